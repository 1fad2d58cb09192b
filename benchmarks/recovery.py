"""Time until frames cross again after an outage: python benchmarks/recovery.py --bundle OUT [--outages 60]

A device that always offloads, a server process, and an emulated link with outages of 0.5 to 4 s at random moments. The
link holds bytes during an outage, as radio links do. Prints the time from an outage's end to the arrival of the first
frame that the server then answers (median, 99th percentile, maximum), and who answered the frames of the whole run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tidesplit.agents import bundle as bundles
from tidesplit.agents.bundle import Bundle
from tidesplit.agents.rules.controllers import Static
from tidesplit.benchmarks.processes import served
from tidesplit.benchmarks.results import percentiles, write_json
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.physics import USUAL
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.runtime.camera import source
from tidesplit.runtime.camera.picture import Picture
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine, points_of
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.emulator.proxy import Link
from tidesplit.runtime.export import for_bundle
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.log.writer import Log


def broken_link(loaded: Bundle, folder: Path, point: str, outages: int) -> tuple[list[Record], list[float]]:
    """Frames of a run, and the moments at which its outages ended, on the device's clock."""
    cnn, table = for_bundle(folder), loaded.table
    engine = Engine(cnn, points_of(loaded.profile, table.ids))
    trace = Trace("steady", np.array([0.0]), 60.0, np.array([5e6]))
    demand = replace(loaded.demand, fps=30.0, deadline_s=0.15)
    rng = np.random.default_rng(0)
    records: list[Record] = []
    ends: list[float] = []
    stopped = threading.Event()

    def until_stopped() -> Iterator[Picture]:
        for picture in source.drawn(cnn.input_px):
            if stopped.is_set():
                return
            yield picture

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(served())
        link = stack.enter_context(Link(trace, to=server, rtt_s=0.06, rng=rng))
        client = stack.enter_context(GrpcClient("{}:{}".format(*link.address), cnn))
        log = stack.enter_context(Log([records.append]))
        device = Device(Static("static", table.row(point)), table, demand, engine, client, log, USUAL.under(demand))
        thread = threading.Thread(target=lambda: device.run(until_stopped()))
        thread.start()
        time.sleep(3.0)
        for _ in range(outages):
            link.blackhole(True)
            time.sleep(float(rng.uniform(0.5, 4.0)))
            link.blackhole(False)
            ends.append(device.now_s())
            time.sleep(float(rng.uniform(1.5, 2.5)))
        stopped.set()
        thread.join()
    return records, ends


def recovery_s(ends: Sequence[float], crossed: Sequence[float]) -> list[float]:
    """Time from each outage's end to the arrival of the next frame that crossed the link."""
    arrivals = np.sort(crossed)
    return [float(arrivals[np.searchsorted(arrivals, end)] - end) for end in ends]


def main(argv: Sequence[str] | None = None) -> None:
    """Break the link again and again, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder that tidesplit train wrote")
    parser.add_argument("--point", default="p3-c0.25-r1.00-b2-i8", help="operating point that is always chosen")
    parser.add_argument("--outages", type=int, default=60, help="number of outages")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(argv)
    records, ends = broken_link(bundles.load(options.bundle), options.bundle, options.point, options.outages)
    waits = recovery_s(ends, [r.arrival_s for r in records if r.answered_by == "server"])
    found = {
        "outages": len(ends),
        **percentiles(waits, median_s=50, p99_s=99, max_s=100),
        "frames": len(records),
        "answered_by": dict(Counter(r.answered_by for r in records)),
    }
    print(json.dumps(found))
    write_json(options.json, {**found, "machine": machine_facts(1)})


if __name__ == "__main__":
    main()
