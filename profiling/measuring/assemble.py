"""A profile from measured rows. It gets compute and fallbacks from the network, and keeps the machines timed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from tidesplit.compression.codec.knobs import FLOAT32, Precision, cut_id, device_id
from tidesplit.compression.net.cuttable import Cuttable, knobs_of
from tidesplit.profiling.measuring.trained import ImagePoint, Trained
from tidesplit.profiling.points.profile import DeviceTable, OperatingPoint, Profile, Provenance

SETTINGS = (
    "codec", "partition", "channel_ratio", "region_ratio", "bits", "precision", "resolution", "fallback",
)  # fmt: skip


def settings_of(
    net: Cuttable, pictures: Sequence[ImagePoint], precisions: Sequence[Precision]
) -> dict[str, dict[str, Any]]:
    """The profile's columns that are not measured, by id of the point: image offload, cuts, device only.

    Cuts fall back to the whole net of their ratio and precision, pictures to the quickest of all.
    """
    quickest = device_id(net.ratios[0], precisions[-1])
    rows: dict[str, tuple[Any, ...]] = {
        p.id: (p.codec, 0, 1.0, 1.0, p.quality, FLOAT32, p.px, quickest) for p in pictures
    }
    for kind in precisions:
        for k in knobs_of(net):
            where, whole = (k.partition, k.ratio, k.region, k.bits), device_id(k.ratio, kind)
            rows[cut_id(k, kind)] = ("feature", *where, kind, None, whole)
        for ratio in net.ratios:
            rows[device_id(ratio, kind)] = ("none", net.partitions, ratio, 1.0, 0, kind, None, None)
    return {point: dict(zip(SETTINGS, row, strict=True)) for point, row in rows.items()}


def points_of(net: Cuttable, rows: Sequence[Mapping[str, Any]]) -> tuple[OperatingPoint, ...]:
    """Operating points of measured rows, with their multiply-accumulates."""
    macs, points = cache(net.macs), list[OperatingPoint]()
    for row in rows:
        (head, tail), interval = macs(row["partition"], row["channel_ratio"]), tuple(row["accuracy_ci95"])
        points.append(OperatingPoint(**{**row, "accuracy_ci95": interval, "head_macs": head, "tail_macs": tail}))
    return tuple(points)


def assemble(
    name: str, trained: Trained, rows: Sequence[Mapping[str, Any]], devices: Mapping[str, DeviceTable],
    machine: str, dataset: str,
) -> Profile:  # fmt: skip
    """The profile of measured rows, with those of `devices` that have times of all its points."""
    points = points_of(trained.system, rows)
    provenance = Provenance(
        kind="measured", source=f"tidesplit profile accuracy --profile {name}", machine=machine,
        n=min(p.n for p in points), spread="wilson 95 %",
    )  # fmt: skip
    cnn = {
        "input_px": trained.system.net.input_px, "classes": len(trained.classes), "dataset": dataset,
        "weights_sha256": trained.sha256,
    }  # fmt: skip
    ids = {p.id for p in points}
    kept = {label: table for label, table in devices.items() if ids <= set(table.timings)}
    return Profile(
        name=name, partitions=trained.system.partitions, points=points, accuracy_provenance=provenance,
        devices=kept, cnn=cnn,
    )  # fmt: skip
