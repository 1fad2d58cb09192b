"""From a head's values to a payload on the device, and from the payload to the tail's input on the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tidesplit.compression.codec.knobs import BITS, CutSpec, Knobs
from tidesplit.compression.codec.learned_entropy import CodeTables
from tidesplit.compression.codec.payload import pack_payload, unpack_payload

Floats = npt.NDArray[np.float32]
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
    """

    cuts: Mapping[int, CutSpec]
    low: Mapping[int, Floats]
    step: Mapping[int, Floats]
    tag: int
    tables: Mapping[tuple[int, int], CodeTables] = field(default_factory=dict)

    def codes(self, y: Floats, knobs: Knobs) -> npt.NDArray[np.uint8]:
        """Codes of values `[..., k, h, w]`. Halves are rounded to even, as torch does."""
        row, k = BITS.index(knobs.bits), y.shape[-3]
        low = self.low[knobs.partition][row, :k, None, None]
        step = self.step[knobs.partition][row, :k, None, None]
        codes: npt.NDArray[np.uint8] = np.clip(np.rint((y - low) / step), 0, 2**knobs.bits - 1).astype(np.uint8)
        return codes

    def encode(self, y: Floats, score: Floats, knobs: Knobs) -> bytes:
        """Payload of the head's values `[k, h, w]`, sent where the attention score `[h, w]` is highest."""
        if not np.isfinite(y).all():
            raise ValueError("the head's values are not finite: its input or weights are broken")
        cut = self.cuts[knobs.partition]
        mask = best_positions(score, cut.kept_positions(knobs.region))
        return pack_payload(self.codes(y, knobs), mask, knobs, cut, self.tag, self.tables)

    def decode(self, payload: bytes) -> tuple[Floats, Knobs]:
        """Input of the tail `[Kmax, h, w]`, zero where nothing was sent. Raises PayloadError for foreign bytes."""
        codes, mask, knobs = unpack_payload(payload, self.cuts, self.tag, self.tables)
        cut, k = self.cuts[knobs.partition], codes.shape[0]
        row = BITS.index(knobs.bits)
        values = np.zeros((cut.channels, cut.height, cut.width), dtype=np.float32)
        values[:k] = codes * self.step[knobs.partition][row, :k, None, None]
        values[:k] += self.low[knobs.partition][row, :k, None, None]
        values[:k] *= mask
        return values, knobs
