"""What a request costs beyond link, decode and tail: python benchmarks/request_overhead.py --cnn FOLDER [--json FILE]

A real edge loop offloads 30 frames a second over an emulated link of 20 Mbit/s and 60 ms to a server process, one
partition after the other, paced as the profile's device. From the time between a head's end and the answer three things
are taken off: the link's round trip, its bytes over its bandwidth, and the profile's decode and tail. What is left is
hand-overs between threads and processes, gRPC, the systems' sleeps, and a tail that runs 30 times a second with cold
caches where the profile timed it in a hot loop. Prints median, quartiles and 95th percentile by partition;
`envs.world.physics.World.request_s` holds what is found. FOLDER: `tidesplit export --profile NAME --out FOLDER`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, installed or not

from benchmarks.emulated import linked, served
from tidesplit.agents.rules.controllers import Static
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.table import PointTable, table_for
from tidesplit.runtime.cnn import Cnn, load_cnn
from tidesplit.runtime.device import source
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.log import Log
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.device.record import Record

POINTS = ("p0-jpeg-q30", "p1-c0.50-r1.00-b2", "p2-c0.25-r1.00-b2", "p5-c0.25-r1.00-b2")
LINK_BPS, RTT_S = 20e6, 0.060
PATIENCE_S = 1.0  # long enough for every answer: none is finished on the device
FIRST = 30  # frames that warm caches and the connection: not counted


def offload(point: str, engine: Engine, table: PointTable, frames: int) -> list[Record]:
    """Frames that the server answered, after the first ones."""
    records: list[Record] = []
    demand = Demand(fps=30.0, deadline_s=PATIENCE_S)
    trace = Trace("steady", np.array([0.0]), 60.0, np.array([LINK_BPS]))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(served())
        address, _ = stack.enter_context(linked(trace, server, RTT_S))
        client = stack.enter_context(GrpcClient(address, engine.cnn))
        log = stack.enter_context(Log([records.append]))
        device = Device(Static(point, table.row(point)), table, demand, engine, client, log, paced=True)
        device.run(itertools.cycle(list(itertools.islice(source.drawn(engine.cnn.input_px), 16))), frames)
    return [r for r in records if r.answered_by == "server" and r.frame >= FIRST]


def parts_ms(record: Record, table: PointTable) -> dict[str, float]:
    """What a frame's request took beyond what the simulator knows, and where: milliseconds.

    `server` is what the server's own clock says of wait and computing, beyond the profile; `around` all else.
    """
    server_s = float(table.server_s[record.row])
    size = record.sent_bytes + World().overhead_bytes
    beyond_s = record.latency_s - record.waited_s - record.head_s - RTT_S - 8.0 * size / LINK_BPS - server_s
    computed_s = (record.server_s or 0.0) - server_s
    return {"total": 1e3 * beyond_s, "server": 1e3 * computed_s, "around": 1e3 * (beyond_s - computed_s)}


def spread(values: list[float]) -> dict[str, float]:
    """Median, quartiles and 95th percentile."""
    names = {"median": 50, "quartile_1": 25, "quartile_3": 75, "p95": 95}
    return {name: float(np.percentile(values, q)) for name, q in names.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cnn", type=Path, required=True, help="folder of tidesplit export")
    parser.add_argument("--device", default="raspberry-pi-4", help="device of the profile that sets the pace")
    parser.add_argument("--server", default="x86-2core", help="machine of the profile that this one is")
    parser.add_argument("--points", nargs="+", default=list(POINTS), help="operating points, one after the other")
    parser.add_argument("--frames", type=int, default=300, help="frames a point")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    cnn: Cnn = load_cnn(options.cnn)
    profile = profiles.load(cnn.name)
    table = table_for(profile, options.device, options.server)
    engine = Engine(cnn, tuple(profile.point(name) for name in options.points))
    rows: dict[str, dict[str, object]] = {}
    everything: list[float] = []
    for point in options.points:
        frames = [parts_ms(r, table) for r in offload(point, engine, table, options.frames)]
        everything += [frame["total"] for frame in frames]
        rows[point] = {"n": len(frames), **{part: spread([f[part] for f in frames]) for part in frames[0]}}
        told = ", ".join(f"{part} {rows[point][part]['median']:.1f}" for part in frames[0])  # type: ignore[index]
        print(f"{point:20} n {len(frames)}  ms in the median: {told}; {rows[point]['total']}", flush=True)
    whole = spread(everything)
    print(f"all: n {len(everything)}, median {whole['median']:.2f} ms, quartiles {whole['quartile_1']:.2f} to "
          f"{whole['quartile_3']:.2f}, p95 {whole['p95']:.2f}")  # fmt: skip
    if options.json:
        told_all = {"all_ms": whole, "n": len(everything), "points_ms": rows, "machine": machine_facts(1)}
        options.json.write_text(json.dumps(told_all, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
