"""A small untrained CNN as it is deployed, and a table of invented timings, for the runtime's tests."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from tests.compression.tables import change_tables_of
from tidesplit.compression.codec.knobs import PASSED_ON, joined
from tidesplit.compression.net.cut_codec import Codec
from tidesplit.compression.net.system import SplitNet
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.profiling.measuring.trained import Trained
from tidesplit.profiling.points.profile import Codec as CodecName
from tidesplit.profiling.points.profile import (
    DeviceTable,
    OperatingPoint,
    Power,
    Profile,
    Provenance,
    StreamBytes,
    Timing,
)
from tidesplit.profiling.points.table import PointTable, table_for
from tidesplit.profiling.points.tiers import table_of
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.export import export, for_device, for_server

CLASSES = ("cat", "dog", "eel", "fox")
INVENTED = Provenance(kind="estimated", source="invented for tests")
CUT_STREAM, VIDEO_STREAM = "p1-c0.50-r1.00-b2-s", "p0-h264-q34"
# id: partition, ratio, bits, codec, accuracy, bytes, head s on the device, finish s
ROWS: dict[str, tuple[int, float, int, CodecName, float, float, float, float]] = {
    "p0-jpeg-q50": (0, 1.0, 50, "jpeg", 0.90, 900.0, 0.004, 0.020),
    "p1-c0.50-r1.00-b2": (1, 0.5, 2, "feature", 0.86, 300.0, 0.012, 0.020),
    "device-c0.25": (9, 0.25, 0, "none", 0.60, 0.0, 0.020, 0.0),
}


def small_source() -> Trained:
    """An untrained CIFAR ResNet of four classes, without ranges for int8."""
    torch.manual_seed(0)
    system = SplitNet(CifarResNet(len(CLASSES))).eval().requires_grad_(False)
    return Trained(system, Codec(system, 0x5A5A), CLASSES, "5a5a" * 16)


def small_cnn(folder: Path) -> Cnn:
    """Export all its models."""
    source = small_source()
    return export(source, folder, for_server(source, True), for_device(source))


def with_memory(cnn: Cnn) -> Cnn:
    """The CNN with invented tables for streams at all cuts."""
    changes = {(p, bits): change_tables_of(cut, bits) for p, cut in cnn.codec.cuts.items() for bits in (1, 2, 4)}
    return replace(cnn, codec=replace(cnn.codec, changes=changes))


def points_of_streams(partitions: int) -> tuple[Profile, PointTable]:
    """The same points, and a cut and a video that send streams."""
    profile, _ = points(partitions)
    grows = StreamBytes(by_age=(100.0, 120.0, 140.0, 160.0, 180.0, 200.0), key=300.0)
    likes = tuple(ROWS)[1::-1]
    cut, video = (replace(profile.point(like), bytes_mean=100.0, stream=grows) for like in likes)
    made = replace(cut, id=CUT_STREAM), replace(video, id=VIDEO_STREAM, codec="h264", bits=34)
    devices = {
        label: replace(
            device,
            timings={**device.timings, **{p.id: device.timings[like] for p, like in zip(made, likes, strict=True)}},
        )
        for label, device in profile.devices.items()
    }
    profile = replace(profile, points=(*profile.points, *made), devices=devices, stream_provenance=INVENTED)
    return profile, table_for(profile, "device", "server")


def points_of_three(partitions: int) -> tuple[Profile, PointTable]:
    """The same points in three tiers, and points that the middle server passes on or cuts again."""
    profile, _ = points(partitions)
    second, like = "p2-c1.00-r1.00-b2", profile.point("p1-c0.50-r1.00-b2")
    devices = {
        label: replace(device, timings={**device.timings, second: device.timings[like.id]})
        for label, device in profile.devices.items()
    }
    later = replace(like, id=second, partition=2, channel_ratio=1.0)
    profile = replace(profile, points=(*profile.points, later), devices=devices)
    ids = [*ROWS, *(joined(first, next_point) for first in tuple(ROWS)[:2] for next_point in (PASSED_ON, second))]
    return profile, table_of(profile, ("device", "server", "server"), ids)


def points(partitions: int) -> tuple[Profile, PointTable]:
    """Image offload, one cut and the narrowest net, as a profile and its table."""
    made, on_device, on_server = [], {}, {}
    for name, (partition, ratio, bits, codec, accuracy, size, head_s, finish_s) in ROWS.items():
        local = codec == "none"
        made.append(
            OperatingPoint(
                id=name,
                partition=partitions if local else partition,
                channel_ratio=ratio,
                region_ratio=1.0,
                bits=bits,
                codec=codec,
                accuracy=accuracy,
                accuracy_ci95=(accuracy - 0.01, accuracy + 0.01),
                bytes_mean=size,
                bytes_std=0.2 * size,
                n=1000,
                fallback=None if local else "device-c0.25",
            )
        )
        on_device[name] = Timing(head_s=head_s, encode_s=0.0, decode_s=0.0, tail_s=0.0, finish_s=finish_s)
        on_server[name] = Timing(head_s=0.0, encode_s=0.0, decode_s=0.0, tail_s=0.0 if local else 0.002, finish_s=0.0)
    devices = {
        "device": DeviceTable(
            provenance=INVENTED, timings=on_device, power=Power(idle_w=2.0, busy_w=6.0, source="invented")
        ),
        "server": DeviceTable(provenance=INVENTED, timings=on_server),
    }
    profile = Profile(
        name="cifar_resnet", partitions=partitions, points=tuple(made), accuracy_provenance=INVENTED, devices=devices
    )
    return profile, table_for(profile, "device", "server")


@contextlib.contextmanager
def server_process(folder: Path, *options: str, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A real server in a process of its own. Yields the process and its port."""
    command = [sys.executable, "-m", "tidesplit", "server", "--cnn", str(folder), "--port", str(port), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "listening on" in line, line
        yield process, int(line.split("listening on ")[1].split(",")[0].rsplit(":", 1)[1])
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


DEMAND = Demand(fps=20, deadline_s=0.25)
