"""The motion of a camera's scene: how its streams' bytes differ from the profile's, and what a device believes of it.

A stream sends what changed since its reference. So a fixed camera needs a tenth of the bytes of one on a vehicle, and a
pan more than twice as many (`benchmarks/clips.py`). A key is a whole picture and does not depend on the motion.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidesplit.profiling.points.stream_columns import column_of
from tidesplit.profiling.points.table import PointTable

Number = TypeVar("Number", np.float64, NDArray[np.float64])
RATE = 0.1  # share of the newest payload in the belief: some ten payloads, a third of a second
MOST = 8.0  # a payload counts as at most so many times the profile's: a cut of the scene is a key by another name


def moved(factor: NDArray[Any], key: NDArray[Any], motion: NDArray[Any] | float) -> NDArray[Any]:
    """Factors on a stream's bytes in a scene with ``motion``: not above a key's, unless the profile's are."""
    return np.asarray(np.minimum(factor * motion, np.maximum(factor, key)))


def growth_of(
    table: PointTable, points: NDArray[np.int64], age: NDArray[np.float64], motion: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Factor on the bytes of these points of streams, ``[L]``, by the ages of their references in frames."""
    column, factors = column_of(age), table.streams.factors
    key = factors[points, 0]
    return np.where(column == 0, key, moved(factors[points, column], key, motion))


def believed(before: Number, ratio: Number) -> Number:
    """The belief after a payload of ``ratio`` times the profile's bytes. It begins at 1."""
    newest: Number = np.minimum(ratio, MOST)
    return before + RATE * (newest - before)
