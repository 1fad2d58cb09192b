"""Memory of the last codes at a cut, and the entropy stage of the codes that changed since.

The stage codes flags in four steps. The context of each flag is known when its step begins, so all are vectorised:

1. The activity of each position: the class of the number of its codes that changed. Its context is the frame's rate,
   the class of the share of changed codes, which comes first.
2. Which codes changed, at active positions. The context is the old code and the activity.
3. For each changed code, up or down. The context is the old code, and where its neighbours lie.
4. How far, one step at a time. The context is the steps so far and the activity.

Channels share their tables: with a table for each channel, a frame takes 1 % fewer bytes and the tables 40 times more.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tidesplit.compression.codec.knobs import RATIOS, CutSpec
from tidesplit.compression.codec.zero_runs import FLIPPED, LARGEST, FlagReader, FlagWriter

ACTIVITY = (1, 3, 6, 10, 16, 26)  # changed codes of a position from which the next class of activity begins
RATES = (1, 3, 6, 12, 24, 48, 96)  # thousandths of all codes that changed, from which the next class begins
RATE_BITS = 3
STEPS = 4  # contexts of a code's way: 1, 2, 3, 4 or more steps so far

Codes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Coder = Callable[[str, Ints, Flags], Flags]
"""Codes flags `[n]`, given the name of their table and their cells `[n]` in it, and returns them. A decoder ignores the
flags that it is given, and returns those that it has read."""


@dataclass(frozen=True, eq=False)
class CutMemory:
    """The last codes known at a partition, `[Kmax, h, w]` uint8, read-only. Sender and receiver have the same."""

    partition: int
    bits: int
    codes: Codes

    def __post_init__(self) -> None:
        self.codes.setflags(write=False)

    @cached_property
    def check(self) -> int:
        """32 bits by which a receiver knows that a payload is relative to these codes."""
        return zlib.crc32(self.codes.tobytes(), zlib.crc32(struct.pack("<BB", self.partition, self.bits)))

    def updated(self, codes: Codes) -> CutMemory:
        """The memory with new codes `[k, h, w]` in its first channels."""
        whole = self.codes.copy()
        whole[: len(codes)] = codes
        return CutMemory(self.partition, self.bits, whole)


def cells(name: str, cut: CutSpec, bits: int) -> tuple[int, ...]:
    """Shape of a table."""
    n = 2**bits
    return {
        "usual": (cut.channels,),
        "activity": (len(RATIOS), len(RATES) + 1, len(ACTIVITY)),
        "changed": (len(RATIOS), len(ACTIVITY), n),
        "rises": (3, n),
        "further": (len(ACTIVITY), STEPS),
    }[name]


@dataclass(frozen=True, eq=False)
class ChangeTables:
    """Tables of one cut and bit width, all uint8: the most common codes, and for each context the class of its flags.

    Args:
        usual: `[Kmax]`, the most common code of each channel. It stands for codes that were never sent.
        activity: `[RATIOS, RATES + 1, ACTIVITY]`: a position has more than this activity.
        changed: `[RATIOS, ACTIVITY, 2**bits]`: a code changed, by its position's activity (from 1) and the old code.
        rises: `[3, 2**bits]`: a changed code rises, by where its neighbours lie (0 below, 2 above) and the old code.
        further: `[ACTIVITY, STEPS]`: a changed code moves further.

    Raises:
        ValueError: wrong shapes, or a value that is no code or class.
    """

    cut: CutSpec = field(metadata={"table": False})
    bits: int = field(metadata={"table": False})
    usual: Codes
    activity: Codes
    changed: Codes
    rises: Codes
    further: Codes

    def __post_init__(self) -> None:
        for name in self.names():
            table: Codes = getattr(self, name)
            expected = cells(name, self.cut, self.bits)
            if table.shape != expected:
                raise ValueError(f"{name} of shape {table.shape} received, {expected} expected")
            sound = table < 2**self.bits if name == "usual" else (table % FLIPPED <= LARGEST) & (table < 2 * FLIPPED)
            if not sound.all():
                raise ValueError(f"{name} holds {int(table[~sound][0])}, which is no code or class")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the tables, in the order of the stored form."""
        return tuple(f.name for f in fields(cls) if f.metadata.get("table", True))

    @cached_property
    def _flat(self) -> dict[str, Codes]:
        return {name: getattr(self, name).ravel() for name in self.names()}

    def first(self, partition: int, codes: Codes) -> CutMemory:
        """The memory after a key with codes `[k, h, w]`."""
        usual = np.broadcast_to(self.usual[:, None, None], self.cut.shape)
        return CutMemory(partition, self.bits, usual).updated(codes)

    def encode(self, old: Codes, new: Codes) -> bytes:
        """Bytes from which `decode` makes `new` `[k, h, w]` of `old`, where k is the cut's channels at some ratio."""
        writer, flat = FlagWriter(), self._flat

        def write(name: str, cells: Ints, flags: Flags) -> Flags:
            writer.flags(flat[name][cells], flags)
            return flags

        rate = rate_of(old, new)
        writer.number(rate, RATE_BITS)
        self.code(write, rate, old, new)
        return writer.finish()

    def decode(self, data: bytes, old: Codes) -> Codes:
        """The new codes `[k, h, w]`. Memory and time are bounded by the length of the data and the number of codes.

        Raises:
            PayloadError: `encode` never made `data`.
        """
        reader, flat = FlagReader(data), self._flat
        rate = reader.number(RATE_BITS)
        new = self.code(lambda name, cells, _: reader.flags(flat[name][cells]), rate, old, old)
        reader.finish()
        return new

    def code(self, coder: Coder, rate: int, old: Codes, new: Codes) -> Codes:
        """Code the flags that make `new` of `old`, both `[k, h, w]`, and return the new codes.

        A decoder gives the old codes for the new ones, which it does not know.
        """
        k, top = len(old), 2**self.bits - 1
        ratio = [self.cut.kept_channels(r) for r in RATIOS].index(k)
        before, after = old.reshape(k, -1), new.reshape(k, -1)
        changed = before != after
        levels = _levels(coder, (ratio * (len(RATES) + 1) + rate) * len(ACTIVITY), changed.sum(axis=0), k)
        active = np.flatnonzero(levels)
        rows = (ratio * len(ACTIVITY) + levels[active] - 1) << self.bits
        flags = coder("changed", (rows + before[:, active]).ravel(), changed[:, active].ravel())
        channels, where = np.divmod(np.flatnonzero(flags), max(1, len(active)))
        places, activity = channels * before.shape[1] + active[where], levels[active[where]] - 1
        was, target = before.ravel()[places].astype(np.int64), after.ravel()[places].astype(np.int64)
        rises, free = was == 0, (was > 0) & (was < top)
        leaning = _leaning(old, places[free])
        rises[free] = coder("rises", (leaning + 1 << self.bits) + was[free], target[free] > was[free])
        room, far = np.where(rises, top - was, was), np.ones_like(was)
        for step in range(1, top):
            going = np.flatnonzero((far == step) & (room > step))
            cells = activity[going] * STEPS + min(step, STEPS) - 1
            more = coder("further", cells, abs(target - was)[going] > step)
            far[going[more]] += 1
        result = old.copy()
        result.ravel()[places] = np.where(rises, was + far, was - far)
        return result

    @cached_property
    def tag(self) -> int:
        """Two bytes by which a receiver knows that a payload was made with these tables."""
        return zlib.crc32(self.to_bytes()) & 0xFFFF

    def to_bytes(self) -> bytes:
        """The stored form: all tables, one after another."""
        return b"".join(self._flat[name].tobytes() for name in self.names())

    @classmethod
    def from_bytes(cls, data: bytes, cut: CutSpec, bits: int) -> ChangeTables:
        """The tables in a stored form. Raises ValueError where they are none of this cut and bit width."""
        shapes = {name: cells(name, cut, bits) for name in cls.names()}
        ends = np.cumsum([np.prod(shape) for shape in shapes.values()]).tolist()
        if len(data) != ends[-1]:
            raise ValueError(f"tables of {ends[-1]} bytes expected, {len(data)} received")
        parts = np.split(np.frombuffer(data, dtype=np.uint8), ends[:-1])
        made = {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
        return cls(cut, bits, **made)


def rate_of(old: Codes, new: Codes) -> int:
    """Class of the share of codes that changed."""
    return int(np.searchsorted(RATES, 1000 * np.count_nonzero(old != new) / old.size, side="right"))


def _levels(coder: Coder, row: int, counts: Ints, channels: int) -> Ints:
    """Classes of activity `[positions]`, 0 where no code changed. `row`: where the frame's contexts begin."""
    levels = np.zeros(len(counts), dtype=np.int64)
    for level, edge in enumerate(ACTIVITY):
        if edge > channels:
            break
        asked = np.flatnonzero(levels == level)
        more = coder("activity", np.full(len(asked), row + level), counts[asked] >= edge)
        levels[asked[more]] += 1
    return levels


def _leaning(codes: Codes, places: Ints) -> Ints:
    """Sign of the four neighbours' differences to the codes at some flat indices: 1 where most of them are higher."""
    height, width = codes.shape[1:]
    wide = np.pad(codes, ((0, 0), (1, 1), (1, 1)), mode="edge").ravel().astype(np.int64)
    channel, position = np.divmod(places, height * width)
    y, x = np.divmod(position, width)
    at = (channel * (height + 2) + y + 1) * (width + 2) + x + 1
    signs = [np.sign(wide[at + step] - wide[at]) for step in (-1, 1, -width - 2, width + 2)]
    leaning: Ints = np.sign(np.sum(signs, axis=0))
    return leaning
