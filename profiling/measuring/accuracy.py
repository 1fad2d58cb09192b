"""Accuracy and bytes of every operating point on a folder of pictures, through the real codec: bytes out, bytes in.

A head runs once for all bit widths and regions. Heads run in float32, because the values that they send must not
change. Tails run in bfloat16 for speed. How far that moves an accuracy from that of float32 tails was not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tidesplit.compression.codec.knobs import RATIOS, device_id
from tidesplit.compression.pictures.labelled import Bytes, scale
from tidesplit.models.slim import set_of_ratio
from tidesplit.profiling.measuring.counts import Counts, count, right, tail_of
from tidesplit.profiling.measuring.trained import IMAGE_POINTS, Trained, load_trained, point_ids


def _points(name: str, weights: Path | None, pixels: Bytes, labels: Tensor, wanted: list[str]) -> dict[str, Counts]:
    """Counts of the wanted points."""
    found: dict[str, Counts] = {}
    for point in IMAGE_POINTS:
        if point.id in wanted:
            seen, sizes = point.cross(pixels)
            found[point.id] = Counts.of(right(tail_of(name, weights, 0), seen, labels), sizes)
    image = scale(pixels)
    for ratio in RATIOS:
        if any(f"-c{ratio:.2f}" in point_id for point_id in wanted):
            found |= _ratio_points(name, weights, ratio, image, labels, wanted)
    return found


def _ratio_points(
    name: str, weights: Path | None, ratio: float, image: Tensor, labels: Tensor, wanted: list[str]
) -> dict[str, Counts]:
    """Counts of the wanted points of one ratio, from one pass of the network."""
    trained, width_set = load_trained(name, weights), set_of_ratio(ratio)
    features, logits = trained.system.net.features(image, width_set)
    found: dict[str, Counts] = {}
    for partition, feature in enumerate(features, start=1):
        chosen = [k for k in trained.knobs if (k.partition, k.ratio) == (partition, ratio) and k.id in wanted]
        if chosen:
            y, score = trained.system.bottleneck(partition).encode(feature, width_set)
        for knobs in chosen:
            values, sizes = trained.cross(y, score, knobs)
            found[knobs.id] = Counts.of(right(tail_of(name, weights, partition), values, labels), sizes)
    if device_id(ratio) in wanted:
        found[device_id(ratio)] = Counts.of(logits.argmax(1) == labels, [0] * len(labels))
    return found


def _rows(trained: Trained, counts: dict[str, Counts]) -> list[dict[str, Any]]:
    """Rows of the profile's table, but for the columns that follow from the network."""
    where = {k.id: (k.partition, k.ratio, k.region, k.bits) for k in trained.knobs}
    where |= {p.id: (0, 1.0, 1.0, p.quality) for p in IMAGE_POINTS}
    where |= {device_id(r): (trained.system.net.partitions, r, 1.0, 0) for r in RATIOS}
    names = ("partition", "channel_ratio", "region_ratio", "bits")
    return [{"id": i, **dict(zip(names, where[i], strict=True)), **some.columns()} for i, some in counts.items()]


def measure_accuracy(
    name: str, images: Path, points: Sequence[str], limit: int, partial: Path, jobs: int, ray: str | None,
    weights: Path | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of the points asked for, or of all where `points` is empty. The other arguments are those of `count`.

    Raises:
        ValueError: a point that the CNN does not have, or pictures of other classes.
    """
    trained = load_trained(name, weights)
    wanted = list(points) or point_ids(trained)
    unknown = sorted(set(wanted) - set(point_ids(trained)))
    if unknown:
        example = trained.knobs[0].id
        raise ValueError(f"{name} has no operating point {unknown[0]!r}; it has, for example, {example!r}")
    counts = count(_points, name, weights, images, wanted, limit, partial, jobs, ray)
    return _rows(trained, {i: counts[i] for i in wanted})
