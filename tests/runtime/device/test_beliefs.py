"""No belief locks the device: each one is driven to its worst, and frames are answered again within a second."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.runtime.deployed import points, points_of_three, server_process
from tests.runtime.punctual import on_time
from tidesplit.benchmarks.beliefs import (
    NOBODY,
    ON_DEVICE,
    ON_FIRST_HOP,
    ON_SECOND_HOP,
    Played,
    Spoil,
    message,
    play,
    remote_only,
    runs,
    second_hop,
    summary,
)
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.choosing.slow_down import PRIOR, SlowDown
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.loop import Device

DEMAND = Demand(fps=20, deadline_s=0.15)
FRAMES = 35  # one and a half seconds after the bad sample


def played(engine: Engine, address: str, table: PointTable, spoil: Spoil, paced: bool) -> Played:
    return play(engine, address, table, spoil, paced, DEMAND, FRAMES)


def check(run: Played) -> None:
    records, at_s = run
    assert [r.frame for r in records] == list(range(FRAMES))
    answered = [r.arrival_s for r in records if r.arrival_s > at_s and r.answered_by != "miss"]
    assert answered
    assert answered[0] - at_s < 1.0
    late = [r.answered_by != "miss" for r in records if r.arrival_s > at_s + 1.0]
    assert np.mean(late) >= 0.9, [(r.frame, r.decision, r.answered_by, r.dropped, r.by_rule) for r in records]


class Unbounded(SlowDown):
    """A belief without any bound and any fading. It needs two runs to be corrected."""

    def at(self, now_s: float) -> float:
        return 14.0 if len(self._ratios) < PRIOR + 2 else super().at(now_s)


def test_the_recovery_is_the_first_of_five_answered_frames_in_a_row() -> None:
    ends = "smmsmsssssm"
    records: Any = [
        SimpleNamespace(frame=k, arrival_s=0.05 * k, answered_by="miss" if by == "m" else "server")
        for k, by in enumerate(ends)
    ]
    assert Played(records, 0.01).recovery_s() == pytest.approx(0.24)
    assert Played(records, 0.26).recovery_s() == math.inf
    assert summary([0.2, 0.9]) == {"runs": 2, "within_1_s": 2, "longest_s": 0.9}
    assert summary([0.2, math.inf]) == {"runs": 2, "within_1_s": 1, "longest_s": None}


SPEED: dict[str, Spoil] = {
    **ON_DEVICE,
    "one run": lambda device: runs(device, 0.020, 1.0, 1),
    "too quick": lambda device: runs(device, 0.020, 0.0, 8),
}


def locked(device: Device) -> None:
    device.core.beliefs.slow_down = Unbounded()


@pytest.fixture(scope="module")
def engine(cnn: Cnn) -> Engine:
    return Engine(cnn, points_of_three(cnn.partitions)[0].points)


@on_time
@pytest.mark.parametrize("paced", [False, True])
@pytest.mark.parametrize("belief", SPEED)
def test_beliefs_of_the_device(engine: Engine, belief: str, paced: bool) -> None:
    """Nobody else could answer: there is no server. A paced device does not measure itself, so no run corrects it."""
    check(played(engine, NOBODY, points(engine.cnn.partitions)[1], SPEED[belief], paced))


@on_time
def test_a_belief_without_bound_or_fading(engine: Engine) -> None:
    check(played(engine, NOBODY, points(engine.cnn.partitions)[1], locked, False))


FIRST_HOP: dict[str, Spoil] = {
    **ON_FIRST_HOP,
    "stall": lambda device: message(device, answered=False),
    "server's clock, on": lambda device: message(device, jump_s=1e6),
    "server's clock, back": lambda device: message(device, jump_s=-1e6),
    "breaker": lambda device: device.breaker.failed(device.now_s(), "a bad sample"),
}


@pytest.fixture(scope="module")
def address(port: int) -> str:
    return f"localhost:{port}"


@on_time
@pytest.mark.parametrize("paced", [False, True])
@pytest.mark.parametrize("belief", FIRST_HOP)
def test_beliefs_of_the_first_hop(engine: Engine, address: str, belief: str, paced: bool) -> None:
    """The device itself cannot answer in time."""
    table = remote_only(points(engine.cnn.partitions)[1], [0, 1])
    check(played(engine, address, table, FIRST_HOP[belief], paced))


SECOND_HOP: dict[str, Spoil] = {**ON_SECOND_HOP, "stall": lambda device: second_hop(device, answered=False)}


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
    check(played(engine, middle, remote_only(table, crossing), SECOND_HOP[belief], False))


@on_time
def test_a_real_hiccup_of_the_first_run_is_not_believed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was found: the first head took fourteen times its time, and no frame was ever answered."""
    head, first = engine.head, iter([True])

    def slow_once(*frame: Any) -> object:
        if next(first, False):
            time.sleep(0.3)
        return head(*frame)

    monkeypatch.setattr(engine, "head", slow_once)
    records, _ = played(engine, NOBODY, points(engine.cnn.partitions)[1], lambda _: None, False)
    assert sum(r.answered_by == "device" for r in records) >= FRAMES - 8
    assert records[-1].state["slow_down"] < 2.0
