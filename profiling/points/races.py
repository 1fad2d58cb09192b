"""Races: points that send, while the device runs a CNN of its own at the same time. The better answer in time counts.

A profile has no rows for them, because a race is two of its points: one that sends, and one that runs meanwhile. Either
a picture or a feature crosses, and a whole CNN runs on the device (``p0-jpeg-q10+device-c0.25``). Or a feature crosses,
and the device finishes the frame from its own head (``p3-c0.50-r1.00-b2+finish``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tidesplit.compression.codec.knobs import FINISH, joined, race_id, split, split_race
from tidesplit.profiling.points.profile import ProfileError
from tidesplit.profiling.points.table import PointTable, representative

HEAD_STEP, BYTES_STEP = 2.5, 4.0  # budgets of the cuts that race: coarser than usual, or there are too many points


def with_races(table: PointTable, all_points: PointTable, ids: Sequence[str]) -> PointTable:
    """The table of the points ``ids``, in which the columns of races are those of a race.

    Args:
        table: rows of the points without their races, in the order of ``ids``.
        all_points: every point of the profile on the same device.
        ids: identifiers, some of them of races.

    Raises:
        ProfileError: a race with a point that the profile does not have, or that does not run on the device.
    """
    meanwhile = [split_race(split(name)[0])[1] for name in ids]
    races = np.array([bool(name) for name in meanwhile], dtype=bool)
    if not races.any():
        return replace(table, ids=tuple(ids))
    finish_s, finish_accuracy, jitter = table.finish_s.copy(), table.finish_accuracy.copy(), table.jitter.copy()
    for row, name in enumerate(meanwhile):
        if name in ("", FINISH):
            continue
        local = all_points.row(name)
        if not all_points.local[local]:
            raise ProfileError(f"race {ids[row]!r}: a point on the device expected after the '+', {name!r} received")
        finish_s[row], jitter[row] = all_points.head_s[local], all_points.jitter[local]
        finish_accuracy[row] = all_points.accuracy[local]
    if not np.isfinite(finish_s[races]).all():
        raise ProfileError(f"race {ids[int(np.argmax(races & ~np.isfinite(finish_s)))]!r}: the device cannot finish it")
    return replace(
        table, ids=tuple(ids), races=races, finish_s=finish_s, finish_accuracy=finish_accuracy, jitter=jitter
    )


def races_of(table: PointTable) -> list[str]:
    """Identifiers of the races worth choosing among, made of the points of a table.

    Every picture races every whole CNN on the device that is less accurate, because a more accurate one has nothing to
    gain from the server. Cuts race their own finish, and only those of coarse budgets, because their heads wait for
    the device's other runs.
    """
    uplink, local = table.hops[0], np.flatnonzero(table.local)
    pictures = np.flatnonzero(table.light)
    mixed = [
        _raced(table.ids[picture], table.ids[net])
        for picture in pictures
        for net in local
        if table.accuracy[net] < table.accuracy[picture]
    ]
    cuts: NDArray[np.int64] = np.flatnonzero(uplink.sends & ~table.light & np.isfinite(table.finish_s))
    if cuts.size:
        mixed += [_raced(name, FINISH) for name in representative(table.take(cuts), HEAD_STEP, BYTES_STEP).ids]
    return mixed


def without_race(point_id: str) -> str:
    """Identifier of the same point without its race, if it has one."""
    first, second = split(point_id)
    return joined(split_race(first)[0], second)


def _raced(point_id: str, meanwhile: str) -> str:
    first, second = split(point_id)
    return joined(race_id(first, meanwhile), second)
