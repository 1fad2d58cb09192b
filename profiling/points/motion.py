"""The motion of a camera's scene: how its streams' bytes differ from the profile's, and what a device believes of it.

A stream sends what changed since its reference. So video of a still scene needs a tenth of the bytes of a vehicle's
camera, and a pan more than twice as many (`benchmarks/clips.py`). A key is a whole picture and does not depend on the
motion. Bytes of cuts with memory follow the motion less than those of video do, so a device has a belief of each.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidesplit.profiling.points.stream_columns import column_of
from tidesplit.profiling.points.table import PointTable

Number = TypeVar("Number", float, NDArray[np.float64])
RATE = 0.1  # share of the newest payload in the belief: some ten payloads, a third of a second
MOST = 8.0  # a payload counts as at most so many times the profile's: a cut of the scene is a key by another name
FRESH_S = 1.0  # age up to which the newest payload counts in full
FADE_S = 10.0  # after that the belief comes nearer to 1 by the factor e in this time


def in_motion(factor: NDArray[Any], cap: NDArray[Any], motion: NDArray[Any]) -> NDArray[Any]:
    """Factors on a stream's bytes in a scene with ``motion``: not above ``cap``, unless the profile's are."""
    return np.asarray(np.minimum(factor * motion, np.maximum(factor, cap)))


def growth_of(
    table: PointTable, points: NDArray[np.int64], age: NDArray[np.float64], motion: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Factor on the bytes of these points of streams, ``[L]``, by the ages of their references in frames."""
    column, streams = column_of(age), table.streams
    factor = streams.factors[points, column]
    return np.where(column == 0, factor, in_motion(factor, streams.cap[points], motion))


def videos(table: PointTable) -> NDArray[np.bool_]:
    """True for the streams of pictures, False for those of cuts, ``[S]``."""
    rows = table.streams.rows
    _, first = np.unique(table.streams.of[rows], return_index=True)
    return np.asarray(table.light[rows[first]])


def faded(belief: Number, age_s: Number) -> Number:
    """A belief so long after the last payload that told the motion: only another one could correct it."""
    share: Number = np.exp(-np.maximum(age_s - FRESH_S, 0.0) / FADE_S)
    return 1.0 + (belief - 1.0) * share


def believed(before: Number, ratio: Number) -> Number:
    """The belief after a payload of ``ratio`` times the profile's bytes. It begins at 1."""
    newest: Number = np.minimum(ratio, MOST)
    return before + RATE * (newest - before)
