"""Time of a request beyond link, decode and tail: python benchmarks/request_overhead.py --cnn FOLDER [--json FILE]

A real device loop offloads 30 frames a second over an emulated link of 20 Mbit/s and 60 ms to a server process, one
partition after the other, paced as the profile's device. Three things are subtracted from the time between a head's end
and the answer: the link's round trip, the bytes over its bandwidth, and the profile's decode and tail. The rest is
hand-overs between threads and processes, gRPC, the operating system's sleeps, and a tail with cold caches: it runs 30
times a second, while the profile timed it in a hot loop.

Prints median, quartiles and 95th percentile by partition, and the least-squares fit through the medians that
`envs.world.physics.World` needs: `request_s`, `cold` and `picture_s`.
FOLDER: `tidesplit export --profile NAME --out FOLDER`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tidesplit.agents.rules.controllers import Static
from tidesplit.benchmarks.processes import linked, served
from tidesplit.benchmarks.results import percentiles, write_json
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.table import PointTable, table_for
from tidesplit.runtime.camera import source
from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.log.writer import Log

POINTS = ("p0-jpeg-q30", "p1-c0.50-r1.00-b2", "p2-c0.25-r1.00-b2", "p5-c0.25-r1.00-b2")
LINK_BPS, RTT_S = 20e6, 0.060
PATIENCE_S = 1.0  # long enough for every answer: the device finishes none itself
FIRST = 30  # frames that warm caches and the connection: not counted


def offload(point: str, engine: Engine, table: PointTable, frames: int) -> list[Record]:
    """Frames that the server answered, without the first ones."""
    records: list[Record] = []
    demand = Demand(fps=30.0, deadline_s=PATIENCE_S)
    trace = Trace("steady", np.array([0.0]), 60.0, np.array([LINK_BPS]))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(served())
        link = stack.enter_context(linked(trace, server, RTT_S))
        client = stack.enter_context(GrpcClient(link.address, engine.cnn))
        log = stack.enter_context(Log([records.append]))
        device = Device(Static(point, table.row(point)), table, demand, engine, client, log, paced=True)
        device.run(itertools.cycle(list(itertools.islice(source.drawn(engine.cnn.input_px), 16))), frames)
    return [r for r in records if r.answered_by == "server" and r.frame >= FIRST]


def parts_ms(record: Record, table: PointTable) -> dict[str, float]:
    """A request's time beyond the simulator's account, milliseconds.

    ``server`` is the part on the server's own clock, wait and computing, less the profile's time. ``around`` is the
    rest of ``total``.
    """
    known_s = float(table.server_s[record.row])
    size = record.sent_bytes + World().overhead_bytes
    total_s = record.latency_s - record.waited_s - record.head_s - RTT_S - 8.0 * size / LINK_BPS - known_s
    server_s = (record.server_s or 0.0) - known_s
    return {"total": 1e3 * total_s, "server": 1e3 * server_s, "around": 1e3 * (total_s - server_s)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and 95th percentile."""
    return percentiles(values, median=50, quartile_1=25, quartile_3=75, p95=95)


def fitted(points: Sequence[str], medians_ms: Sequence[float], table: PointTable) -> dict[str, float]:
    """`World.request_s`, `cold` and `picture_s` by the median time of each point beyond the simulator's account."""
    rows = [table.row(point) for point in points]
    columns = np.stack([np.ones(len(rows)), table.server_s[rows], table.light[rows]], axis=1)
    request_s, more, picture_s = np.linalg.lstsq(columns, 1e-3 * np.array(medians_ms), rcond=None)[0].tolist()
    return {"request_s": request_s, "cold": 1.0 + more, "picture_s": picture_s}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cnn", type=Path, required=True, help="folder of tidesplit export")
    parser.add_argument("--device", default="raspberry-pi-4", help="device of the profile that sets the pace")
    parser.add_argument("--server", default="x86-2core", help="this machine's name in the profile")
    parser.add_argument("--points", nargs="+", default=list(POINTS), help="operating points, one after the other")
    parser.add_argument("--frames", type=int, default=300, help="frames of a point")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(argv)
    cnn = load_cnn(options.cnn)
    profile = profiles.load(cnn.name)
    table = table_for(profile, options.device, options.server)
    engine = Engine(cnn, tuple(profile.point(name) for name in options.points))
    rows: dict[str, dict[str, Any]] = {}
    totals: list[float] = []
    for point in options.points:
        frames = [parts_ms(record, table) for record in offload(point, engine, table, options.frames)]
        parts = {part: spread([frame[part] for frame in frames]) for part in frames[0]}
        medians = ", ".join(f"{part} {of['median']:.1f}" for part, of in parts.items())
        print(f"{point:20} n {len(frames)}  medians in ms: {medians}; total {parts['total']}", flush=True)
        rows[point] = {"n": len(frames), **parts}
        totals += [frame["total"] for frame in frames]
    whole = spread(totals)
    print("all: n {}, median {median:.2f} ms, quartiles {quartile_1:.2f} to {quartile_3:.2f}, p95 {p95:.2f}".format(
        len(totals), **whole))  # fmt: skip
    fit = fitted(options.points, [row["total"]["median"] for row in rows.values()], table)
    print(
        "fit: request {request_s:.4f} s, factor on servers' times {cold:.2f}, picture {picture_s:.4f} s".format(**fit)
    )
    facts = {"all_ms": whole, "n": len(totals), "points_ms": rows, "fit": fit, "machine": machine_facts(1)}
    write_json(options.json, facts)


if __name__ == "__main__":
    main()
