"""Right answers and bytes of one point on clips, and the row of a table that they make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidesplit.compression.codec.knobs import stream_of
from tidesplit.compression.net.measure import wilson
from tidesplit.profiling.points.profile import AGES

KEY = "key"
COMPARED = "p0-jpeg-q95"  # what video is compared with


def comparable(point_id: str) -> str:
    """The stateless point that a stream's point is compared with; the point itself where it is stateless."""
    if not stream_of(point_id):
        return point_id
    return COMPARED if point_id.startswith("p0-") else point_id.removesuffix("-s")


@dataclass
class ClipCounts:
    """What one point did on some clips.

    Args:
        clips: for each clip its judged frames, those answered right, and those of the same frames answered right by the
            comparable point and by the uncut net. Of answers that are no classes, sums of their fidelities.
        sizes: payloads, sum of their bytes and of the bytes' squares, by age or KEY.
    """

    clips: list[list[float]]
    sizes: dict[str, list[float]]

    @classmethod
    def of(cls, clip: list[float], sizes: Mapping[str, Sequence[int]]) -> ClipCounts:
        """Of one clip, as in `clips`, with the ``sizes`` of its payloads in bytes by age or KEY."""
        squares = {age: [len(s), float(sum(s)), float(sum(v * v for v in s))] for age, s in sizes.items() if s}
        return cls([clip], squares)

    def add(self, other: ClipCounts) -> None:
        """Add other clips."""
        self.clips += other.clips
        for age, found in other.sizes.items():
            self.sizes[age] = [a + b for a, b in zip(self.sizes.get(age, [0.0] * 3), found, strict=True)]

    def row(self, point_id: str, source: str, measure: str) -> dict[str, Any]:
        """The row of a table."""
        n, right, base, uncut = (np.array(column, dtype=np.float64) for column in zip(*self.clips, strict=True))
        means = {age: total / count for age, (count, total, _) in self.sizes.items()}
        count, total, square = self.sizes.get("1", self.sizes.get(KEY, [1.0, 0.0, 0.0]))
        row: dict[str, Any] = {
            "id": point_id, "clips": source, "measure": measure, "n": int(n.sum()), "n_clips": len(n),
            "share": float(right.sum() / n.sum()), "share_ci95": _interval(right, n),
            "bytes_mean": total / count,
            "bytes_std": math.sqrt(max(0.0, square / count - (total / count) ** 2)),
        }  # fmt: skip
        row |= _lost("below_uncut", uncut - right, n)
        if stream_of(point_id):
            row |= {"against": comparable(point_id), **_lost("lost", base - right, n)}
            row |= {"bytes_by_age": [means.get(str(age)) for age in AGES], "bytes_key": means[KEY]}
        return row


def _lost(name: str, frames: Any, n: Any) -> dict[str, Any]:
    """Share of frames lost, with its interval. `frames`: lost of each clip, less those gained."""
    lost, half = _ratio(frames, n)
    if half == 0.0:  # no clip differs from another: as much as so many clips may hide
        half = wilson(0, len(n))[1]
    return {name: lost, f"{name}_ci95": [lost - half, lost + half]}


def _ratio(part: Any, whole: Any) -> tuple[float, float]:
    """Share of the sums over clips, and half its 95 % interval from how it varies between clips."""
    share = float(part.sum() / whole.sum())
    if len(part) < 2:
        return share, 1.0
    squares = float(((part - share * whole) ** 2).sum()) * len(part) / (len(part) - 1)
    return share, 1.96 * math.sqrt(squares) / float(whole.sum())


def _interval(right: Any, n: Any) -> list[float]:
    """95 % interval of a share. Where no clip differs from another, that of as many independent clips."""
    share, half = _ratio(right, n)
    if half == 0.0:
        return list(wilson(round(share * len(n)), len(n)))
    return [max(0.0, share - half), min(1.0, share + half)]
