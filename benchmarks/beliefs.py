"""Time until frames are answered again after one bad sample: python benchmarks/beliefs.py --cnn FOLDER [--runs 20]

Each belief of a running device is driven to its worst once, while device, links and servers work as before: its
slow-down, the fixed cost of its runs, the first hop's bandwidth and round trip, the server's wait, and the second hop.
The controller is the worst there is: where no point is forecast in time, it chooses the latest one. Only the side that
the belief is about can answer. A busy loop runs on each core. Half of the runs are paced.

Prints for each belief how many runs had answers again within a second, and the longest time from the bad sample to the
first of five answered frames in a row. null: there were none within two seconds. FOLDER: `tidesplit export --profile
efficientnet_lite0 --out FOLDER`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tidesplit.benchmarks.processes import served
from tidesplit.benchmarks.results import write_json
from tidesplit.compression.codec.knobs import PASSED_ON, joined
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Demand, Ints
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.table import PointTable
from tidesplit.profiling.points.tiers import table_of
from tidesplit.runtime.camera.picture import Picture
from tidesplit.runtime.camera.source import drawn
from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.core.knowledge import Ahead
from tidesplit.runtime.core.sending import Reply
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine, points_of
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.wire.answers import NextTiming, ServerTiming
from tidesplit.runtime.wire.estimator import Settled

WELL = 5  # frames before the bad sample
STEADY = 5  # answered frames in a row that show that the device is well again
LATEST = 40  # frames after which a run is given up
BAD_S = 1.9  # an answer that took longer would be a failure
KEY = 10**6  # of an invented message
DEMAND = Demand(fps=20, deadline_s=0.25)
LIMIT_S = 1.0
OFFLOAD, CUT, LOCAL = "p0-jpeg-q50", "p1-c0.50-r1.00-b8", "device-c0.25"
NOBODY = "localhost:1"
Spoil = Callable[[Device], None]


class Superstitious:
    """Chooses the most accurate point that is forecast in time. Where none is, it chooses the worst of all.

    So may a policy in a state that no training has drawn. It calls `spoil` at one frame.
    """

    name = "superstitious"

    def __init__(self) -> None:
        self.count = 0
        self.spoil: Callable[[], None] = lambda: None

    def predict(self, observation: Observation) -> Ints:
        """The row of one frame's point."""
        self.count += 1
        if self.count == WELL:
            self.spoil()
        latency_s = np.where(observation.mask[0], observation.foreseen.latency_s[0], np.nan)
        fits = latency_s <= observation.seen.deadline_s[0]
        if not fits.any():
            return np.array([np.nanargmax(latency_s)])
        return np.array([np.argmax(np.where(fits, observation.foreseen.accuracy[0], -1.0))])


class Played(NamedTuple):
    """The records of a run's frames in order, and the moment of the bad sample."""

    records: list[Record]
    bad_s: float

    def recovery_s(self) -> float:
        """Time from the bad sample to the arrival of the first of some answered frames in a row; infinity: never."""
        after = [record for record in self.records if record.arrival_s > self.bad_s]
        for first in range(len(after) - STEADY + 1):
            if all(record.answered_by != "miss" for record in after[first : first + STEADY]):
                return after[first].arrival_s - self.bad_s
        return math.inf


def play(
    engine: Engine, address: str, table: PointTable, spoil: Spoil, paced: bool, demand: Demand = DEMAND,
    frames: int | None = None,
) -> Played:  # fmt: skip
    """Run a device that gets one bad sample. Without a number of `frames`, it ends when it is well again."""
    records: list[Record] = []
    moments: list[float] = []
    controller = Superstitious()

    def until_well() -> Iterator[Picture]:
        for number, picture in enumerate(drawn(engine.cnn.input_px)):
            found = Played(sorted(records, key=lambda record: record.frame), moments[0] if moments else math.inf)
            if number == (frames or LATEST) or (frames is None and math.isfinite(found.recovery_s())):
                return
            yield picture

    with GrpcClient(address, engine.cnn) as client:
        device = Device(controller, table, demand, engine, client, records.append, paced=paced)

        def spoil_now() -> None:
            moments.append(device.now_s())
            spoil(device)

        controller.spoil = spoil_now
        device.run(until_well())
    return Played(sorted(records, key=lambda record: record.frame), moments[0])


def runs(device: Device, expected_s: float, actual_s: float, count: int) -> None:
    """Runs of the device that took so long. A median needs several."""
    with device.shared.lock:
        for _ in range(count):
            device.core.beliefs.slow_down.ran(device.now_s(), expected_s, actual_s)


def message(
    device: Device, answered: bool = True, rtt_s: float = 0.0, wait_s: float = 0.0, jump_s: float = 0.0
) -> None:
    """A message on the first hop that had this fate. Server and device share one clock here."""
    now_s, stamp_s = device.now_s(), time.perf_counter() + jump_s
    with device.shared.lock:
        sent_s = now_s - rtt_s - wait_s - (0.0 if answered else BAD_S)
        device.core.beliefs.links.sent(KEY, sent_s, Settled(450.0))
        if answered:
            timing = ServerTiming(stamp_s - rtt_s - wait_s, wait_s, 0.0)
            device.core.beliefs.links.answered(KEY, now_s, Reply(np.zeros(1, np.float32), timing))


def slow_bytes(device: Device) -> None:
    """A small message whose bytes took long, although those of others at the same time did not."""
    now_s, hop = device.now_s(), device.core.beliefs.links.first
    with device.shared.lock:
        hop.sent(KEY, now_s - BAD_S, Settled(450.0))
        hop.timed(KEY, now_s, BAD_S, 0.0)


def second_hop(device: Device, answered: bool = True, uplink_s: float = 0.0, rtt_s: float = 0.0) -> None:
    """A message that crossed the first hop at once, and had this fate on the second one."""
    now_s, links = device.now_s(), device.core.beliefs.links
    sent_s, stamp_s = now_s - BAD_S, time.perf_counter() - BAD_S
    timing = ServerTiming(stamp_s, 0.0, 0.0)
    with device.shared.lock:
        links.sent(KEY, sent_s, Settled(450.0), [Ahead(sent_s, Settled(450.0))])
        links.passed_on(KEY, sent_s + 0.001, timing)
        if answered:
            crossed = NextTiming(uplink_s + rtt_s, 0.0, 0.0, uplink_s, rtt_s)
            links.answered(KEY, now_s, Reply(np.zeros(1, np.float32), timing, crossed))


ON_DEVICE: dict[str, Spoil] = {
    "slow-down": lambda device: runs(device, 0.020, 1.0, 8),
    "fixed cost": lambda device: runs(device, 0.001, 1.0, 8),
}
ON_FIRST_HOP: dict[str, Spoil] = {
    "link": slow_bytes,
    "round trip": lambda device: message(device, rtt_s=BAD_S),
    "server wait": lambda device: message(device, wait_s=BAD_S),
}
ON_SECOND_HOP: dict[str, Spoil] = {
    "second hop": lambda device: second_hop(device, uplink_s=BAD_S),
    "second hop's round trip": lambda device: second_hop(device, rtt_s=BAD_S),
}


def remote_only(table: PointTable, rows: Sequence[int], local: str = LOCAL) -> PointTable:
    """These points, which the device cannot finish, and a local one that never comes off in time."""
    table = table.take([*rows, table.row(local)])
    head_s, accuracy = table.head_s.copy(), table.accuracy.copy()
    head_s[-1], accuracy[-1] = 1.0, 0.99
    return replace(table, head_s=head_s, accuracy=accuracy, finish_s=np.full(table.size, np.inf))


def summary(times_s: Sequence[float]) -> dict[str, float | None]:
    """Figures of the recoveries of one belief."""
    longest_s = max(times_s)
    within = sum(time_s < LIMIT_S for time_s in times_s)
    return {"runs": len(times_s), "within_1_s": within, "longest_s": longest_s if math.isfinite(longest_s) else None}


@contextmanager
def busy(cores: int) -> Iterator[None]:
    """A loop that never sleeps on each core."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        if sys.platform == "linux":
            for loop, core in zip(loops, itertools.cycle(sorted(os.sched_getaffinity(0))), strict=False):
                os.sched_setaffinity(loop.pid, {core})
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main(argv: Sequence[str] | None = None) -> None:
    """Play all runs, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cnn", type=Path, required=True, help="folder of tidesplit export")
    parser.add_argument("--device", default="raspberry-pi-4", help="device of the profile that is paced")
    parser.add_argument("--server", default="x86-2core", help="server of the profile")
    parser.add_argument("--runs", type=int, default=20, help="runs of each belief, unpaced and as many paced")
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1, help="busy loops at the same time")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(argv)
    cnn = load_cnn(options.cnn)
    profile, cnn_options = profiles.load(cnn.name), ("--cnn", str(options.cnn))
    crossing = [joined(point, PASSED_ON) for point in (OFFLOAD, CUT)]
    table = table_of(profile, (options.device, options.server, options.server), (OFFLOAD, CUT, LOCAL, *crossing))
    engine = Engine(cnn, points_of(profile, table.ids))
    found = {}
    with ExitStack() as stack:
        last = "{}:{}".format(*stack.enter_context(served(*cnn_options)))
        middle = "{}:{}".format(*stack.enter_context(served(*cnn_options, "--next", last)))
        stack.enter_context(busy(options.busy))
        first_hop, passed_on = remote_only(table, [0, 1]), remote_only(table, [3, 4])
        for spoils, address, among in (
            (ON_DEVICE, NOBODY, table), (ON_FIRST_HOP, middle, first_hop), (ON_SECOND_HOP, middle, passed_on)
        ):  # fmt: skip
            for (name, spoil), paced in itertools.product(spoils.items(), (False, True)):
                times_s = [play(engine, address, among, spoil, paced).recovery_s() for _ in range(options.runs)]
                row = summary(times_s)
                found[f"{name}, {'paced' if paced else 'unpaced'}"] = row
                print(f"{name:24} {'paced' if paced else 'unpaced':8} {json.dumps(row)}", flush=True)
    write_json(options.json, {"busy_loops": options.busy, "beliefs": found, "machine": machine_facts(1)})


if __name__ == "__main__":
    main()
