"""A frame's decision as values: drops, frames that run on purpose, and who decides."""

from __future__ import annotations

import pytest

from tests.runtime.choosing.test_safeguard import CUT, DEMAND, LOCAL, OFFLOAD, situation
from tests.runtime.deployed import points
from tidesplit.agents.rules.controllers import Static
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.runtime.choosing.deciding import FrameDecider, too_late
from tidesplit.runtime.choosing.safeguard import DROPS, MISSES, Safeguard

TABLE = points(4)[1]  # deadline 250 ms; heads of 4, 12 and 20 ms


def decider(row: int, guarded: bool = True) -> FrameDecider:
    return FrameDecider(Static("static", row), TABLE, DEMAND, World(), Safeguard(DEMAND.period_s), guarded)


@pytest.mark.parametrize(
    ("row", "worker_s", "slow_down", "late"),
    [
        (LOCAL, 0.229, 1.0, False),
        (LOCAL, 0.231, 1.0, True),
        (LOCAL, 0.215, 2.0, True),
        (CUT, 0.231, 1.0, False),
        (CUT, 0.239, 1.0, True),
        (OFFLOAD, 9.0, 1.0, False),  # encoding does not wait for the worker
    ],
)
def test_a_frame_that_would_wait_too_long_for_the_worker_is_dropped(
    row: int, worker_s: float, slow_down: float, late: bool
) -> None:
    decision = decider(row).decide(situation(slow_down, worker_s=worker_s))
    assert (decision.row, decision.late, decision.by_rule) == (row, late, False)
    assert decision.believed.seen.worker_s[0] == pytest.approx(worker_s)


def test_a_frame_runs_on_purpose_after_drops_and_is_planned_with_the_tables_time() -> None:
    made, slow = decider(LOCAL), situation(slow_down=14.0)
    for _ in range(DROPS):
        assert made.decide(slow).late
        made.safeguard.dropped()
    decision = made.decide(slow)
    assert not decision.late
    assert decision.by_rule
    assert decision.slow_down == 1.0
    unguarded = decider(LOCAL, guarded=False)
    for _ in range(DROPS):
        unguarded.safeguard.dropped()
    assert unguarded.decide(slow).late


def test_the_rule_decides_while_the_policy_fails() -> None:
    made, now = decider(LOCAL), situation()
    assert made.decide(now).row == LOCAL
    for _ in range(MISSES):
        made.safeguard.settled(0.9, 0.9, by_rule=False, missed=True)
    decision = made.decide(now)
    assert (decision.row, decision.by_rule) == (OFFLOAD, True)


def test_the_policy_sees_only_what_training_draws() -> None:
    decision = decider(LOCAL).decide(situation(slow_down=4.0))
    assert decision.believed.seen.slow_down[0] == 4.0
    assert decision.given.seen.slow_down[0] == 2.0
    assert decision.slow_down == 4.0


def test_the_rule_of_the_world() -> None:
    demand = Demand(fps=30, deadline_s=0.1)
    assert too_late(demand, 0.07, 0.04)
    assert not too_late(demand, 0.05, 0.04)
