"""Accuracy and bytes of every operating point on a folder of pictures, through the real codec: bytes out, bytes in.

A head runs once for all bit widths and regions. Heads run in float32, because the values that they send must not
change, and int8 heads and tails as the very models that device and server run.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidesplit.compression.codec.knobs import FLOAT32, INT8, Knobs, Precision, cut_id, device_id
from tidesplit.compression.net.deploy import encoder_model, part_model
from tidesplit.compression.net.int8 import int8_model
from tidesplit.compression.pictures.labelled import Bytes, scale
from tidesplit.compression.session import Session, SessionChain, session
from tidesplit.models.slim import set_of_ratio
from tidesplit.profiling.measuring.assemble import settings_of
from tidesplit.profiling.measuring.counts import Counts, count, right, tail_of
from tidesplit.profiling.measuring.trained import Trained, load_trained


def _points(name: str, weights: Path | None, pixels: Bytes, labels: Tensor, wanted: list[str]) -> dict[str, Counts]:
    """Counts of the wanted points."""
    trained, found = load_trained(name, weights), dict[str, Counts]()
    for point in trained.image_points:
        if point.id in wanted:
            seen, sizes = point.cross(pixels)
            found[point.id] = Counts.of(right(tail_of(name, weights, 0), seen, labels), sizes)
    image = scale(pixels)
    for ratio in trained.system.ratios:
        of_ratio = [point_id for point_id in wanted if f"-c{ratio:.2f}" in point_id]
        int8 = [point_id for point_id in of_ratio if point_id.endswith("-i8")]
        if len(int8) < len(of_ratio):
            found |= _ratio_points(name, weights, ratio, image, labels, of_ratio)
        if int8:
            found |= _int8_points(name, weights, ratio, image, labels, int8)
    return found


def _ratio_points(
    name: str, weights: Path | None, ratio: float, image: Tensor, labels: Tensor, wanted: list[str]
) -> dict[str, Counts]:
    """Counts of the wanted float32 points of one ratio, from one pass of the network."""
    trained, width_set = load_trained(name, weights), set_of_ratio(ratio)
    features, logits = trained.system.net.features(image, width_set)
    found: dict[str, Counts] = {}
    for partition, feature in enumerate(features, start=1):
        if knobs := _wanted(trained, partition, ratio, FLOAT32, wanted):
            y, score = trained.system.bottleneck(partition).encode(feature, width_set)
            found |= _cut_points(name, weights, y, score, knobs, labels)
    if device_id(ratio) in wanted:
        found[device_id(ratio)] = _local(logits, labels)
    return found


def _int8_points(
    name: str, weights: Path | None, ratio: float, image: Tensor, labels: Tensor, wanted: list[str]
) -> dict[str, Counts]:
    """Counts of the wanted int8 points of one ratio, through the models that a device runs."""
    trained, found = load_trained(name, weights), dict[str, Counts]()
    for partition in range(1, trained.system.partitions):
        if knobs := _wanted(trained, partition, ratio, INT8, wanted):
            _, y, score = _run(int8_session(name, weights, partition, ratio), image)
            found |= _cut_points(name, weights, y, score, knobs, labels)
    if (point_id := device_id(ratio, INT8)) in wanted:
        (logits,) = _run(int8_session(name, weights, trained.system.partitions, ratio), image)
        found[point_id] = _local(logits, labels)
    return found


def _wanted(
    trained: Trained, partition: int, ratio: float, precision: Precision, wanted: list[str]
) -> dict[str, Knobs]:
    """The wanted points of one head, by id."""
    cuts = {cut_id(k, precision): k for k in trained.knobs if (k.partition, k.ratio) == (partition, ratio)}
    return {point_id: knobs for point_id, knobs in cuts.items() if point_id in wanted}


def _cut_points(
    name: str, weights: Path | None, y: Tensor, score: Tensor, points: dict[str, Knobs], labels: Tensor
) -> dict[str, Counts]:
    """Counts of a head's points. `y` `[B, k, h, w]` and `score` `[B, 1, h, w]` are its outputs."""
    trained, found = load_trained(name, weights), dict[str, Counts]()
    for point_id, knobs in points.items():
        values, sizes = trained.cross(y, score, knobs)
        found[point_id] = Counts.of(right(tail_of(name, weights, knobs.partition), values, labels), sizes)
    return found


def _local(logits: Tensor, labels: Tensor) -> Counts:
    return Counts.of(logits.argmax(1) == labels, [0] * len(labels))


@lru_cache(maxsize=32)
def int8_session(name: str, weights: Path | None, partition: int, ratio: float) -> Session:
    """An int8 head, or at the last partition the whole net."""
    trained = load_trained(name, weights)
    assert trained.ranges is not None
    models = [part_model(trained.system, 0, partition, ratio)]
    if partition < trained.system.partitions:
        models.append(encoder_model(trained.system, partition, ratio))
    made = [int8_model(model, trained.ranges).SerializeToString() for model in models]
    return SessionChain([session(model, torch.get_num_threads()) for model in made])


def _run(model: Session, image: Tensor) -> list[Tensor]:
    """Outputs for pictures `[B, 3, px, px]`. They go one by one, because deployed models take one."""
    outputs = [model.run(None, {"x": x[None].contiguous().numpy()}) for x in image]
    return [torch.from_numpy(np.concatenate(column)) for column in zip(*outputs, strict=True)]


def measure_accuracy(
    name: str, images: Path, points: Sequence[str], limit: int, partial: Path, jobs: int, ray: str | None,
    weights: Path | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of the points asked for, or of all where `points` is empty. The other arguments are those of `count`.

    Raises:
        ValueError: a point that the CNN does not have, or pictures of other classes.
    """
    trained = load_trained(name, weights)
    settings = settings_of(trained.system, trained.image_points, trained.precisions)
    wanted = list(dict.fromkeys(points or settings))
    unknown = sorted(set(wanted) - settings.keys())
    if unknown:
        example = trained.knobs[0].id
        raise ValueError(f"{name} has no operating point {unknown[0]!r}; it has, for example, {example!r}")
    counts = count(_points, name, weights, images, wanted, limit, partial, jobs, ray)
    return [{"id": i, **settings[i], **counts[i].columns()} for i in wanted]
