"""How soon frames cross again after the link was gone: python benchmarks/recovery.py --bundle OUT [--outages 60]

A device that always offloads, a server process, and an emulated link that goes away at random moments for 0.5 to 4 s
(bytes are held, as radio links do) and comes back. Prints the time from the link's return to the arrival of the first
frame that the server then answers: median, 99th percentile, maximum; and how frames were answered meanwhile.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, installed or not

from benchmarks.emulated import served
from tidesplit.agents import bundle as bundles
from tidesplit.agents.rules.controllers import Static
from tidesplit.envs.traces.trace import Trace
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.runtime.device import source
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.log import Log
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.device.record import Record
from tidesplit.runtime.emulator.proxy import Link
from tidesplit.runtime.export import for_bundle


def main() -> None:
    """Break the link again and again, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of train.py")
    parser.add_argument("--point", default="p1-c0.25-r1.00-b1", help="operating point that is always chosen")
    parser.add_argument("--outages", type=int, default=60, help="how often the link goes away")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    loaded = bundles.load(options.bundle)
    cnn, table = for_bundle(options.bundle), loaded.table
    engine = Engine(cnn, tuple(loaded.profile.point(i) for i in table.ids))
    trace = Trace("steady", np.array([0.0]), 60.0, np.array([5e6]))
    rng = np.random.default_rng(0)
    records: list[Record] = []
    returns: list[float] = []
    with served() as server, Link(trace, to=server, rtt_s=0.06, rng=rng) as link:
        address = "{}:{}".format(*link.address)
        with GrpcClient(address, cnn) as client, Log([records.append]) as log:
            demand = replace(loaded.demand, fps=30.0, deadline_s=0.15)
            device = Device(Static("static", table.row(options.point)), table, demand, engine, client, log)
            pictures = source.drawn(cnn.input_px)
            stopped = threading.Event()

            def until_stopped() -> object:
                while not stopped.is_set():
                    yield next(pictures)

            thread = threading.Thread(target=lambda: device.run(until_stopped()))
            thread.start()
            time.sleep(3.0)
            for _ in range(options.outages):
                link.blackhole(True)
                time.sleep(float(rng.uniform(0.5, 4.0)))
                link.blackhole(False)
                returns.append(device.now_s())
                time.sleep(float(rng.uniform(1.5, 2.5)))
            stopped.set()
            thread.join()
    crossed = np.sort([r.arrival_s for r in records if r.answered_by == "server"])
    waits = np.array([float(crossed[np.searchsorted(crossed, moment)] - moment) for moment in returns])
    found = {
        "outages": len(returns),
        "median_s": float(np.median(waits)),
        "p99_s": float(np.percentile(waits, 99)),
        "max_s": float(waits.max()),
        "frames": len(records),
        "answered_by": dict(Counter(r.answered_by for r in records)),
        "machine": machine_facts(1),
    }
    print(json.dumps({k: v for k, v in found.items() if k != "machine"}))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
