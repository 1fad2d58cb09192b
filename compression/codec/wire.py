"""From a head's values to a payload on the device, and from the payload to the tail's input on the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tidesplit.compression.codec.entropy import CHANGES
from tidesplit.compression.codec.errors import PayloadError
from tidesplit.compression.codec.knobs import BITS, CutSpec, Knobs
from tidesplit.compression.codec.learned_entropy import CodeTables
from tidesplit.compression.codec.memory import ChangeTables, CutMemory
from tidesplit.compression.codec.payload import (
    body_bytes,
    pack_changes,
    pack_payload,
    read_header,
    unpack_changes,
    unpack_payload,
)

MARGINS = {1: 0.0625, 2: 0.25, 4: 0.5}
"""Dead zone by bits: a code changes where the value lies so many steps or more beyond the old code's rounding limit."""
KEY_TRIED_FROM = 0.5
"""Changes that take less than this share of the plain codes are taken without a look at the key, which takes more."""

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def best_positions(score: Floats, count: int) -> Mask:
    """Mask `[h, w]` of the `count` positions with the highest score `[h, w]`. Of equals the first ones win."""
    order = np.argsort(-score.ravel(), kind="stable")[:count]
    mask = np.zeros(score.size, dtype=np.bool_)
    mask[order] = True
    return mask.reshape(score.shape)


@dataclass(frozen=True)
class WireCodec:
    """Geometry, quantizer and entropy tables of every cut.

    Args:
        cuts: by partition.
        low: lowest levels of the quantizer by partition, `[len(BITS), Kmax]` float32.
        step: distances between its levels, likewise.
        tag: two bytes of the weights' hash, which every payload carries.
        tables: of the entropy stage, by partition and bits. Without them payloads are longer.
        changes: tables of the entropy stage with memory, likewise. Without them the cut has no memory.
    """

    cuts: Mapping[int, CutSpec]
    low: Mapping[int, Floats]
    step: Mapping[int, Floats]
    tag: int
    tables: Mapping[tuple[int, int], CodeTables] = field(default_factory=dict)
    changes: Mapping[tuple[int, int], ChangeTables] = field(default_factory=dict)

    def codes(self, y: Floats, knobs: Knobs, last: Codes | None = None) -> Codes:
        """Codes of values `[..., k, h, w]`. Halves are rounded to even, as torch does.

        ``last``: `[k, h, w]`, codes that are kept within the dead zone.
        """
        row, k = BITS.index(knobs.bits), y.shape[-3]
        low = self.low[knobs.partition][row, :k, None, None]
        step = self.step[knobs.partition][row, :k, None, None]
        levels, top = (y - low) / step, 2**knobs.bits - 1
        codes: Codes = np.clip(np.rint(levels), 0, top).astype(np.uint8)
        if last is None:
            return codes
        return np.where(abs(np.clip(levels, 0, top) - last) < 0.5 + MARGINS[knobs.bits], last, codes)

    def encode(self, y: Floats, score: Floats, knobs: Knobs) -> bytes:
        """Payload of the head's values `[k, h, w]`, sent where the attention score `[h, w]` is highest."""
        _check_finite(y)
        cut = self.cuts[knobs.partition]
        mask = best_positions(score, cut.kept_positions(knobs.region))
        return pack_payload(self.codes(y, knobs), mask, knobs, cut, self.tag, self.tables)

    def decode(self, payload: bytes) -> tuple[Floats, Knobs]:
        """Input of the tail `[Kmax, h, w]`, zero where nothing was sent. Raises PayloadError for foreign bytes."""
        codes, mask, knobs = unpack_payload(payload, self.cuts, self.tag, self.tables)
        return self._values(codes, mask, knobs), knobs

    def encode_next(self, y: Floats, score: Floats, knobs: Knobs, memory: CutMemory | None) -> tuple[bytes, CutMemory]:
        """Payload of values `[k, h, w]` in a stream, and what the receiver will then remember.

        Args:
            memory: of the last payload sent at this partition. None gives a key, which needs no memory.

        Raises:
            ValueError: the region ratio is not 1.0, or the CNN has no tables of streams at this cut and bit width.
        """
        _check_finite(y)
        tables = self.changes.get((knobs.partition, knobs.bits))
        if tables is None or knobs.region != 1.0:
            raise ValueError(
                f"{knobs.id} cannot be a stream: it needs region ratio 1.0 and tables (tidesplit fit-streams)"
            )
        relative = None
        if memory is not None:
            start = self.requantized(memory, knobs.bits)
            last = start.codes[: len(y)]
            codes = self.codes(y, knobs, last)
            relative = pack_changes(codes, knobs, self.tag, tables, memory, last), start.updated(codes)
            if len(relative[0]) < KEY_TRIED_FROM * body_bytes(self.cuts[knobs.partition], knobs):
                return relative
        key = self.encode(y, score, knobs), tables.first(knobs.partition, self.codes(y, knobs))
        return key if relative is None or len(key[0]) <= len(relative[0]) else relative

    def decode_next(self, payload: bytes, memory: CutMemory | None) -> tuple[Floats, Knobs, CutMemory]:
        """Input of the tail `[Kmax, h, w]` of a payload in a stream, its settings, and the memory for the next one.

        Raises:
            ReferenceUnknownError: the payload is relative to other codes than those in the memory. A key helps.
            PayloadError: foreign bytes.
        """
        knobs, method = read_header(payload, self.tag, memory, self.changes)
        tables = self.changes.get((knobs.partition, knobs.bits))
        if tables is None or knobs.region != 1.0:
            raise PayloadError(f"{knobs.id} received in a stream, region ratio 1.0 and known tables expected")
        if method != CHANGES or memory is None:
            codes, mask, _ = unpack_payload(payload, self.cuts, self.tag, self.tables)
            return self._values(codes, mask, knobs), knobs, tables.first(knobs.partition, codes)
        start, cut = self.requantized(memory, knobs.bits), self.cuts[knobs.partition]
        codes = unpack_changes(payload, knobs, cut, tables, start.codes[: cut.kept_channels(knobs.ratio)])
        every = np.ones(codes.shape[1:], dtype=np.bool_)
        return self._values(codes, every, knobs), knobs, start.updated(codes)

    def requantized(self, memory: CutMemory, bits: int) -> CutMemory:
        """The memory in codes of another bit width. Elementwise float32, so all machines find the same codes."""
        if bits == memory.bits:
            return memory
        p, row = memory.partition, BITS.index(memory.bits)
        levels = np.arange(2**memory.bits, dtype=np.float32) * self.step[p][row, :, None] + self.low[p][row, :, None]
        table = self.codes(levels[..., None], Knobs(p, 1.0, 1.0, bits))[..., 0]  # [Kmax, old codes]
        channels = np.arange(len(table))[:, None, None]
        return CutMemory(p, bits, table[channels, memory.codes])

    def _values(self, codes: Codes, mask: Mask, knobs: Knobs) -> Floats:
        """Input of the tail `[Kmax, h, w]` of codes `[k, h, w]`, zero where the mask `[h, w]` is."""
        cut, k = self.cuts[knobs.partition], codes.shape[0]
        row = BITS.index(knobs.bits)
        values = np.zeros(cut.shape, dtype=np.float32)
        values[:k] = codes * self.step[knobs.partition][row, :k, None, None]
        values[:k] += self.low[knobs.partition][row, :k, None, None]
        values[:k] *= mask
        return values


def _check_finite(y: Floats) -> None:
    if not np.isfinite(y).all():
        raise ValueError("the head's values are not finite: its input or weights are broken")
