"""A profile from measured rows. It gets compute and fallbacks from the network, and keeps the machines timed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tidesplit.compression.codec.knobs import cut_id, device_id
from tidesplit.compression.net.cnn_work import work_of
from tidesplit.compression.net.deploy import arriving
from tidesplit.compression.net.system import SplitNet
from tidesplit.models.slim import frozen, set_of_partition
from tidesplit.profiling.measuring.trained import Trained
from tidesplit.profiling.points.profile import DeviceTable, OperatingPoint, Profile, Provenance


def _extras(trained: Trained) -> dict[str, dict[str, Any]]:
    """Codec, fallback and multiply-accumulates, by point id.

    Cuts fall back to the whole net of their ratio and precision, pictures to the quickest of all.
    """
    system, ratios = trained.system, trained.system.net.ratios
    last, picture = system.net.partitions, torch.zeros(1, *system.net.shape(0))
    heads = {(p, r): work_of(system.head, picture, p, r).macs for p in range(1, last) for r in ratios}
    whole = {r: work_of(system.device, picture, r).macs for r in ratios}
    tails = {p: _tail_macs(system, p) for p in range(last)}
    found: dict[str, dict[str, Any]] = {}
    for precision in trained.precisions:
        for k in trained.knobs:
            macs = {"head_macs": heads[k.partition, k.ratio], "tail_macs": tails[k.partition]}
            fallback = device_id(k.ratio, precision)
            found[cut_id(k, precision)] = {"codec": "feature", "fallback": fallback, **macs}
        for ratio in ratios:
            macs = {"head_macs": whole[ratio], "tail_macs": 0}
            found[device_id(ratio, precision)] = {"codec": "none", "fallback": None, **macs}
    for point in trained.image_points:
        macs = {"head_macs": 0, "tail_macs": tails[0]}
        fallback = device_id(ratios[0], trained.precisions[-1])
        found[point.id] = {"codec": point.codec, "fallback": fallback, **macs}
    return found


def _tail_macs(system: SplitNet, partition: int) -> float:
    plain = frozen(system, set_of_partition(partition))
    return work_of(plain.tail, torch.zeros(1, *arriving(system, partition)), partition).macs


def assemble(
    name: str, trained: Trained, rows: Sequence[Mapping[str, Any]], devices: Mapping[str, DeviceTable],
    machine: str, dataset: str,
) -> Profile:  # fmt: skip
    """The profile of measured rows, with those of `devices` that have times of all its points."""
    extras = _extras(trained)
    points = [
        OperatingPoint(**{**row, "accuracy_ci95": tuple(row["accuracy_ci95"]), **extras[row["id"]]}) for row in rows
    ]
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
        name=name, partitions=trained.system.net.partitions, points=tuple(points), accuracy_provenance=provenance,
        devices=kept, cnn=cnn,
    )  # fmt: skip
