"""No belief locks the device: each one is driven to its worst, and frames are answered again within a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from tests.runtime.deployed import points, points_of_three, server_process
from tests.runtime.punctual import on_time
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Demand, Ints
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.camera.source import drawn
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.core.sending import Reply
from tidesplit.runtime.core.slow_down import PRIOR, SlowDown
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.log.writer import Log
from tidesplit.runtime.wire.answers import ServerTiming
from tidesplit.runtime.wire.estimator import Settled

Spoil = Callable[[Device], None]
DEMAND = Demand(fps=20, deadline_s=0.15)
WELL, FRAMES = 5, 35  # frames before the bad sample, and in all: one and a half seconds after it
BAD_S = 1.9  # an answer that took longer would be a failure
LOGITS = np.zeros(4, np.float32)


class Superstitious:
    """Chooses the most accurate point that is forecast in time. Where none is, it chooses the worst of all.

    So does a policy in a state that no training has drawn.
    """

    name = "superstitious"

    def __init__(self) -> None:
        self.count, self.spoil = 0, lambda: None

    def predict(self, observation: Observation) -> Ints:
        self.count += 1
        if self.count == WELL:
            self.spoil()
        latency_s = np.where(observation.mask[0], observation.foreseen.latency_s[0], np.nan)
        fits = latency_s <= observation.seen.deadline_s[0]
        if not fits.any():
            return np.array([np.nanargmax(latency_s)])
        return np.array([np.argmax(np.where(fits, observation.foreseen.accuracy[0], -1.0))])


def played(
    engine: Engine, address: str, table: PointTable, spoil: Spoil, paced: bool, demand: Demand = DEMAND
) -> tuple[list[Record], float]:
    """The frames' records in order, and the moment of the bad sample."""
    records: list[Record] = []
    controller, moments = Superstitious(), []
    with GrpcClient(address, engine.cnn) as client, Log([records.append]) as log:
        device = Device(controller, table, demand, engine, client, log, paced=paced)

        def spoil_now() -> None:
            moments.append(device.now_s())
            spoil(device)

        controller.spoil = spoil_now
        device.run(islice(drawn(engine.cnn.input_px), FRAMES))
    return sorted(records, key=lambda r: r.frame), moments[0]


def check(records: list[Record], at_s: float) -> None:
    assert [r.frame for r in records] == list(range(FRAMES))
    answered = [r.arrival_s for r in records if r.arrival_s > at_s and r.answered_by != "miss"]
    assert answered
    assert answered[0] - at_s < 1.0
    late = [r.answered_by != "miss" for r in records if r.arrival_s > at_s + 1.0]
    assert np.mean(late) >= 0.9, [(r.frame, r.decision, r.answered_by, r.dropped, r.by_rule) for r in records]


def runs(device: Device, expected_s: float, actual_s: float, count: int) -> None:
    for _ in range(count):
        device.core.beliefs.slow_down.ran(device.now_s(), expected_s, actual_s)


def one_run(device: Device) -> None:
    runs(device, 0.020, 1.0, 1)


def some_runs(device: Device) -> None:
    runs(device, 0.020, 1.0, 8)


def too_quick(device: Device) -> None:
    runs(device, 0.020, 0.0, 8)


def fixed_cost(device: Device) -> None:
    runs(device, 0.001, 1.0, 8)


class Unbounded(SlowDown):
    """A belief without any bound and any fading. It needs two runs to be corrected."""

    def at(self, now_s: float) -> float:
        return 14.0 if len(self._ratios) < PRIOR + 2 else super().at(now_s)


def locked(device: Device) -> None:
    device.core.beliefs.slow_down = Unbounded()


@pytest.fixture(scope="module")
def engine(cnn: Cnn) -> Engine:
    return Engine(cnn, points_of_three(cnn.partitions)[0].points)


@on_time
@pytest.mark.parametrize(
    ("spoil", "paced"),
    [*((spoil, paced) for spoil in (one_run, some_runs, too_quick, fixed_cost) for paced in (False, True)),
     (locked, False)],  # a paced device does not measure itself
)  # fmt: skip
def test_beliefs_of_the_device(engine: Engine, spoil: Spoil, paced: bool) -> None:
    """Nobody else could answer: there is no server."""
    table = points(engine.cnn.partitions)[1]
    check(*played(engine, "localhost:1", table, spoil, paced))


def message(
    device: Device, answered: bool = True, uplink_s: float = 0.0, rtt_s: float = 0.0, wait_s: float = 0.0,
    jump_s: float = 0.0,
) -> None:  # fmt: skip
    """A message on the first hop that had this fate. Server and device share one clock here."""
    now_s, stamp_s, key = device.now_s(), time.perf_counter() + jump_s, 10**6
    sent_s = now_s - uplink_s - rtt_s - wait_s - (0.0 if answered else BAD_S)
    with device.shared.lock:
        device.core.beliefs.links.sent(key, sent_s, Settled(450.0))
        if answered:
            timing = ServerTiming(stamp_s - rtt_s - wait_s, wait_s, 0.0)
            device.core.beliefs.links.answered(key, now_s, Reply(LOGITS, timing))


FIRST_HOP: dict[str, Spoil] = {
    "goodput": lambda device: message(device, uplink_s=BAD_S),
    "round trip": lambda device: message(device, rtt_s=BAD_S),
    "server wait": lambda device: message(device, wait_s=BAD_S),
    "stall": lambda device: message(device, answered=False),
    "server's clock, on": lambda device: message(device, jump_s=1e6),
    "server's clock, back": lambda device: message(device, jump_s=-1e6),
    "breaker": lambda device: device.breaker.failed(device.now_s(), "a bad sample"),
}


def remote_only(table: PointTable, rows: list[int]) -> PointTable:
    """These points, which the device cannot finish, and a local one that never comes off in time."""
    local = table.row("device-c0.25")
    table = table.take([*rows, local])
    head_s, accuracy = table.head_s.copy(), table.accuracy.copy()
    head_s[-1], accuracy[-1] = 1.0, 0.9
    return replace(table, head_s=head_s, accuracy=accuracy, finish_s=np.full(table.size, np.inf))


@pytest.fixture(scope="module")
def address(port: int) -> str:
    return f"localhost:{port}"


@on_time
@pytest.mark.parametrize("paced", [False, True])
@pytest.mark.parametrize("belief", FIRST_HOP)
def test_beliefs_of_the_first_hop(engine: Engine, address: str, belief: str, paced: bool) -> None:
    """The device itself cannot answer in time."""
    table = remote_only(points(engine.cnn.partitions)[1], [0, 1])
    check(*played(engine, address, table, FIRST_HOP[belief], paced))


def second_hop(device: Device, answered: bool, uplink_s: float = 0.0, rtt_s: float = 0.0) -> None:
    now_s, hop, key = device.now_s(), device.core.beliefs.links._further[0]._estimator, 10**6
    with device.shared.lock:
        hop.sent(key, now_s - BAD_S, Settled(450.0))
        if answered:
            hop.timed(key, now_s, uplink_s, rtt_s)


SECOND_HOP: dict[str, Spoil] = {
    "goodput": lambda device: second_hop(device, True, uplink_s=BAD_S),
    "round trip": lambda device: second_hop(device, True, rtt_s=BAD_S),
    "stall": lambda device: second_hop(device, False),
}


@pytest.fixture(scope="module")
def middle(cnn: Cnn, address: str) -> Iterator[str]:
    with server_process(cnn.folder, "--next", address) as (_, port):
        yield f"localhost:{port}"


@on_time
@pytest.mark.parametrize("belief", SECOND_HOP)
def test_beliefs_of_the_second_hop(engine: Engine, middle: str, belief: str) -> None:
    """All points but one that is too slow cross the second hop."""
    table = points_of_three(engine.cnn.partitions)[1]
    crossing = [row for row in range(table.size) if table.hops[1].sends[row]]
    check(*played(engine, middle, remote_only(table, crossing), SECOND_HOP[belief], False))


@on_time
def test_a_real_hiccup_of_the_first_run_is_not_believed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was found: the first head took fourteen times its time, and no frame was ever answered."""
    head, first = engine.head, iter([True])

    def slow_once(*frame: Any) -> object:
        if next(first, False):
            time.sleep(0.3)
        return head(*frame)

    monkeypatch.setattr(engine, "head", slow_once)
    records, _ = played(engine, "localhost:1", points(engine.cnn.partitions)[1], lambda _: None, False)
    assert sum(r.answered_by == "device" for r in records) >= FRAMES - 8
    assert records[-1].state["slow_down"] < 2.0
