"""Many cameras on one server and on several: python benchmarks/fleet.py --cnn FOLDER [--bundle OUT] [--json FILE]

The servers share one processor core, the first; all else has the other ones. For each cut, in turns so that a
disturbance hits all: frames a second of a bare ONNX Runtime loop of the tail on the server's core, of the server with 8
frames under way, and of an echo server, which tells what gRPC itself costs in Python. Then N devices, over N: at 32
they offer 80 % of what the server served, at 40 and 48 all of it and 120 %. At last, of two servers behind HAProxy, one
is killed and started again while 32 devices offer half of that.

A device is a light one: the runtime's real client with a payload encoded beforehand (drawn values; JPEG at p0), over a
connection of its own. Two cores have no room for 32 processes that run a CNN. With --bundle, some of the N are true
device processes (`tidesplit edge`, paced), and every frame of theirs must be settled once. --help has the numbers.

    lost      frames of light devices that ended not at all, or twice
    in time   answers of light devices within the deadline, a second
    late      answers after the deadline of 300 ms
    refused   frames without an answer by gRPC status: a real device finishes these itself
    jain      Jain's index of the answers of each light device: 1 where all have the same

FOLDER: `tidesplit export --profile NAME --out FOLDER`, by default the one that the server caches.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tidesplit.agents import bundle as bundles
from tidesplit.benchmarks.capacity import Cut, capacity, cut_of
from tidesplit.benchmarks.light_devices import LightDevices, Order, figures
from tidesplit.benchmarks.processes import Address, DeviceProcess, Restarts, balanced, serving
from tidesplit.benchmarks.results import write_json
from tidesplit.benchmarks.soak import Ends
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.runtime.cnn import Cnn, load_cnn
from tidesplit.runtime.export import cached_server, say

FULL_AT, FULL_LOAD = 32, 0.8  # devices, and the share of the server's throughput that they offer
DEVICES = (1, 2, 4, 8, 16, 32, 40, 48)
DEADLINE_S = 0.3
A_PROCESS = 16  # light devices in one process
A_TRUE_ONE = 8  # devices for which one may be a true device process
Row = dict[str, Any]


@dataclass(frozen=True)
class Fleet:
    """What all runs share. ``true`` has the options of true device processes, empty where there are none."""

    cnn: Cnn
    cores: tuple[int, ...]  # of the devices
    seconds: float
    true: tuple[str, ...]

    def run(self, address: Address, cut: Cut, devices: int, fps: float, restarts: Restarts | None = None) -> Row:
        """Figures of a run with so many devices."""
        place, ends = "{}:{}".format(*address), [Ends() for _ in range(devices // A_TRUE_ONE if self.true else 0)]
        given = (*self.true, "--server", place, "--fps", str(fps), "--deadline-ms", str(1e3 * DEADLINE_S))
        true = [DeviceProcess(*given, take=one.take, cores=self.cores) for one in ends]
        try:
            while not all(one.times for one in ends) and all(device.running for device in true):
                time.sleep(0.1)
            numbers = range(devices - len(true))
            orders = [
                Order(place, self.cnn.folder, cut.point, cut.payload, tuple(numbers[at : at + A_PROCESS]), fps,
                      self.seconds) for at in range(0, len(numbers), A_PROCESS)
            ]  # fmt: skip
            light = LightDevices(orders, self.cores)
            light.begin()
            if restarts is not None:
                restarts.begin()
            found = figures(*light.ends(), DEADLINE_S)
        finally:
            codes = [device.end(0.0) for device in true]
        in_time_per_s = (found["answered"] - found["late"]) / self.seconds
        return {
            "devices": devices, "fps": round(fps, 2), **found, "in_time_per_s": in_time_per_s,
            **true_figures(ends, codes),
        }  # fmt: skip


def true_figures(ends: Sequence[Ends], codes: Sequence[int]) -> Row:
    """What became of the frames of true devices."""
    by = sum((one.answered_by for one in ends), Counter[str]())
    reasons = sum((one.reasons for one in ends), Counter[str]())
    return {"true_devices": len(ends), "true_frames": by.total(), "true_once": all(one.once for one in ends),
            "true_codes": list(codes), "true_by": dict(by), "true_reasons": dict(reasons)}  # fmt: skip


def tell(row: Row) -> None:
    """Print a run."""
    true = (
        f"; true {row['true_by']}{'' if row['true_once'] else ' FRAMES LOST OR TWICE'}" if row["true_devices"] else ""
    )
    print(
        f"  {row['servers']} servers, N {row['devices']:2d}, {row['load']:4.0%}: p50 {row['p50_ms']:.1f} ms, p99 "
        f"{row['p99_ms']:.1f} ms, in time {row['in_time_per_s']:.0f}/s, late {row['late']}, "
        f"lost {row['lost']} of {row['sent']}, refused {row['refused']}, "
        f"Jain {row['jain']:.4f}{true}", flush=True
    )  # fmt: skip


def draw(found: Row, path: Path) -> None:
    """Latency over load by cut: the median as a line, the 99th percentile dashed; with two servers or more, thin."""
    figure = Figure(figsize=(6.0, 3.2), layout="constrained")
    axes = figure.subplots()
    for number, cut in enumerate(found["capacity"]):
        for servers in sorted({row["servers"] for row in found["rows"]}):
            rows = [row for row in found["rows"] if (row["cut"], row["servers"]) == (cut, servers)]
            share = found["capacity"][cut]["share"]
            title = f"cut {cut}: {share:.0%} of the bare loop" if servers == 1 else None
            for name, line, label in (("p50_ms", "-", title), ("p99_ms", "--", None)):
                axes.plot([row["load"] for row in rows], [row[name] for row in rows], line, color=f"C{number}",
                          linewidth=2 / servers, label=label)  # fmt: skip
    axes.set(xlabel="offered frames, of those that the server served at most", ylabel="latency, ms", yscale="log")
    axes.legend(frameon=False)
    figure.savefig(path)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cnn", type=Path, metavar="FOLDER", help="models of a server; default: the bundled CNN's")
    parser.add_argument("--bundle", type=Path, help="folder that tidesplit train wrote; adds true device processes")
    parser.add_argument("--images", type=Path, help="pictures of the true ones (default: drawn)")
    parser.add_argument("--cuts", type=int, nargs="+", default=[0, 3, 5], help="partitions (default 0 3 5)")
    parser.add_argument("--devices", type=int, nargs="+", default=list(DEVICES), help=f"N (default {DEVICES})")
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 2], help="server processes (default 1 2)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a run (default 10)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="draw the latencies here")
    return parser


def fleet_of(options: argparse.Namespace, cnn: Cnn, cores: tuple[int, ...]) -> Fleet:
    """The fleet that the options describe."""
    true: tuple[str, ...] = ()
    if options.bundle:
        device = str(bundles.load(options.bundle).manifest["device"])
        true = ("--bundle", str(options.bundle), "--pace", device, "--threads", "1")
        true += ("--source", str(options.images)) if options.images else ()
    return Fleet(cnn, cores, options.seconds, true)


def measure(options: argparse.Namespace) -> Row:
    """All runs."""
    first, *others = sorted(os.sched_getaffinity(0))
    cnn = load_cnn(options.cnn) if options.cnn else cached_server("efficientnet_lite0", report=say)
    fleet = fleet_of(options, cnn, tuple(others or [first]))
    os.sched_setaffinity(0, fleet.cores)
    rows: list[Row] = []
    with ExitStack() as stack:
        many = max(2, *options.servers)
        servers = [stack.enter_context(serving("--cnn", str(cnn.folder), cores=(first,))) for _ in range(many)]
        cuts = {partition: cut_of(cnn, partition) for partition in options.cuts}
        capacities = {}
        for partition, cut in cuts.items():
            capacities[partition] = full = capacity(cnn, cut, servers[0], (first,))
            print(f"p{partition}: " + ", ".join(f"{name} {value:.2f}" for name, value in full.items()), flush=True)
            rate = full["server_per_s"]
            for count in options.servers:
                addresses = [server.address for server in servers[:count]]
                with ExitStack() as inner:
                    place = addresses[0] if count == 1 else inner.enter_context(balanced(addresses, by_device=False))
                    for devices in options.devices:
                        row = fleet.run(place, cut, devices, FULL_LOAD * rate / FULL_AT)
                        rows.append({"cut": partition, "servers": count, "load": FULL_LOAD * devices / FULL_AT, **row})
                        tell(rows[-1])
        partition, cut = next(iter(cuts.items()))
        restarts = Restarts(servers[0], [options.seconds / 3])
        stack.callback(restarts.end)
        load = FULL_LOAD / 2
        with balanced([server.address for server in servers[:2]], by_device=False) as place:
            fps = load * capacities[partition]["server_per_s"] / FULL_AT
            row = fleet.run(place, cut, FULL_AT, fps, restarts)
        killed = {"cut": partition, "servers": 2, "load": load, **row}
        restarts.end()
        print("a replica is killed:")
        tell(killed)
    return {"capacity": capacities, "rows": rows, "killed": killed}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = arguments().parse_args(argv)
    found = measure(options)
    if options.plot:
        draw(found, options.plot)
    write_json(options.json, {**found, "seconds": options.seconds, "machine": machine_facts(1)})


if __name__ == "__main__":
    main()
