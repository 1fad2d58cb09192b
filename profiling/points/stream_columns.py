"""The streams that operating points send in, and the bytes of their payloads by the age of the reference.

The age is counted in frames: 1 where the reference is the frame before. Without a reference the payload is a key, whose
age is infinite.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.compression.codec.knobs import stream_of
from tidesplit.profiling.points.profile import AGES, OperatingPoint

KEY = len(AGES)  # column of `growth`
OLDEST = AGES[-1]  # an older reference has the bytes of this age: none was measured


@dataclass(frozen=True, kw_only=True)
class Streams:
    """The streams of a table's A points. Points of one stream share the reference, and with it the key."""

    names: tuple[str, ...]  # S of them
    of: NDArray[np.int64]  # each point's stream, a number of `names`; -1 where every payload is complete by itself
    growth: NDArray[np.float64]  # bytes by age, see `AGES`, then of a key, relative to `bytes_mean`, [A, 7]
    most: NDArray[np.float64] | None = None  # bytes that lively scenes end at, likewise, [A]. None: a key's

    @classmethod
    def none(cls, size: int) -> Streams:
        """``size`` points without streams."""
        return cls(names=(), of=np.full(size, -1, dtype=np.int64), growth=np.ones((size, KEY + 1)))

    @classmethod
    def of_points(cls, points: Iterable[OperatingPoint]) -> Streams:
        """The streams of a profile's points."""
        known = list(points)
        called = ["" if p.stream is None else stream_of(p.id) or p.id for p in known]
        names = tuple(dict.fromkeys(name for name in called if name))
        of = [names.index(name) if name else -1 for name in called]
        growth = np.ones((len(known), KEY + 1))
        for row, point in enumerate(known):
            if point.stream is not None:
                growth[row] = np.array([*point.stream.by_age, point.stream.key]) / point.bytes_mean
        return cls(names=names, of=np.array(of, dtype=np.int64), growth=growth)

    @property
    def cap(self) -> NDArray[np.float64]:
        """Bytes that lively scenes end at, relative to `bytes_mean`, ``[A]``."""
        return self.growth[:, KEY] if self.most is None else self.most

    @property
    def count(self) -> int:
        """Number of streams, S."""
        return len(self.names)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the points that send in streams, ``[R]``."""
        return np.flatnonzero(self.of >= 0)

    @cached_property
    def factors(self) -> NDArray[np.float64]:
        """Bytes by whole ages, relative to `bytes_mean`, ``[A, OLDEST + 2]``. The columns are those of `column_of`.

        Between two measured ages the bytes are linear in the logarithm of the age. Beyond the oldest they are those of
        the oldest, but not above a key's.
        """
        measured, key = self.growth[:, :KEY], self.growth[:, KEY:]
        logs = np.log2(np.arange(1, OLDEST + 1))
        between = [np.interp(logs, np.log2(AGES), row) for row in measured]
        known = np.array(between).reshape(-1, OLDEST)
        return np.concatenate([key, known, np.minimum(measured[:, -1:], key)], axis=1)

    @cached_property
    def smallest(self) -> NDArray[np.float64]:
        """Bytes at the best age, relative to `bytes_mean`, ``[A]``."""
        return np.asarray(self.factors.min(axis=1))

    def take(self, rows: NDArray[np.int64] | list[int]) -> Streams:
        """The streams of these points, in this order. Streams without points are left out."""
        of = self.of[rows]
        kept = np.unique(of[of >= 0])
        number = np.full(self.count + 1, -1, dtype=np.int64)  # the last one is for -1
        number[kept] = np.arange(kept.size)
        return Streams(
            names=tuple(self.names[i] for i in kept),
            of=number[of],
            growth=self.growth[rows],
            most=None if self.most is None else self.most[rows],
        )


def column_of(age: NDArray[Any]) -> NDArray[np.int64]:
    """Columns of `Streams.factors` for ages in frames: 0 for a key, and one for all ages beyond `OLDEST`."""
    return np.where(np.isfinite(age), np.minimum(age, OLDEST + 1), 0.0).astype(np.int64)
