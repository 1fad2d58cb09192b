"""Two hops: the clairvoyant stays a bound, and every rule is tuned for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.agents.judging.small_episodes import PI, best_in_the_kinder_world, best_plan
from tests.agents.judging.test_clairvoyant import CALM, RESTLESS, ROUNDING, SAME, best_controller, lte
from tests.agents.small import BUMPY, DEAD, steps
from tests.envs.three import TABLE, three_tiers
from tidesplit.agents.judging.clairvoyant import clairvoyant
from tidesplit.agents.judging.evaluation import play, simulation_of
from tidesplit.agents.judging.ladder import (
    RULES,
    TRUE_BANDWIDTH,
    Tuning,
    mean_utility,
    tuned_rules,
    whole_images,
)
from tidesplit.agents.rules.linucb import LinUcb
from tidesplit.agents.rules.published import mean_rate
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.physics import World

WIDE, SLOW = steps("wide", [50.0] * 5), steps("slow", [0.4, 0.1, 1.0, 0.0, 0.7])


# trace of the first hop, of the second, options
CASES: dict[str, tuple[Trace, Trace, dict[str, Any]]] = {
    "LTE, wide second hop": (lte(1, 2.5), WIDE, {}),
    "LTE, slow second hop": (lte(1, 2.5), SLOW, {"fps": 20.0, "deadline_ms": 150.0}),
    "the second hop is the narrow one": (WIDE, SLOW, {"fps": 20.0}),
    "outage on both": (BUMPY, BUMPY, {"world": RESTLESS}),
    "outage on both, latency": (BUMPY, BUMPY, {"objective": "latency", "deadline_ms": 300.0, "min_accuracy": 0.8}),
    "the second hop carries nothing": (BUMPY, DEAD, {}),
    "the first hop carries nothing": (DEAD, WIDE, {"fps": 20.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_no_controller_beats_the_clairvoyant(name: str) -> None:
    first, second, options = CASES[name]
    asked = three_tiers(trace=first, second_trace=second, **options)
    asked = replace(asked, table=replace(asked.table, machine=PI))
    bound = clairvoyant(simulation_of(asked, seed=0))
    (learned,) = play(LinUcb(name="LinUCB", usual_rate=1e5), simulation_of(asked, seed=0))
    assert max(best_controller(asked), learned.utility.mean()) <= bound + ROUNDING


def small_case(seed: int) -> Scenario:
    """Four points, at least two of which go on, four or five frames, two hops that come and go."""
    rng = np.random.default_rng(seed)
    frames, fps = int(rng.integers(4, 6)), float(rng.choice([10.0, 20.0, 30.0, 40.0]))

    def link(name: str) -> Trace:
        mbps = np.where(rng.random(12) < 0.3, 0.0, rng.choice([0.05, 0.5, 1.0, 3.0, 8.0], 12))
        return steps(name, list(mbps), frames / fps / 12)

    asked = three_tiers(
        trace=link("first"),
        second_trace=link("second"),
        fps=fps,
        deadline_ms=float(rng.choice([60.0, 100.0, 150.0, 300.0])),
        objective="latency" if rng.random() < 0.5 else "accuracy",
        world=replace(RESTLESS if rng.random() < 0.5 else CALM, probe_after_s=float(rng.choice([0.05, 1.0]))),
    )
    on = rng.permutation(np.flatnonzero(asked.table.hops[1].sends))[:2]
    rest = rng.permutation(np.setdiff1d(np.arange(asked.table.size), on))[:2]
    return replace(asked, table=asked.table.take(np.sort(np.concatenate([on, rest]))))


def test_the_bound_of_short_episodes() -> None:
    """It equals a brute force in the kinder world, and no plan in the true world beats it."""
    episodes = [(small_case(seed), seed) for seed in range(30)]
    bound = np.array([clairvoyant(simulation_of(*one), limit=10**9, cell_s=0.0) for one in episodes])
    assert bound == pytest.approx([best_in_the_kinder_world(*one) for one in episodes], abs=ROUNDING)
    plan = np.array([best_plan(*one) for one in episodes])
    assert (plan <= bound + ROUNDING).all()
    assert (bound - plan < SAME).mean() >= 0.75


def test_a_wide_second_hop_is_worth_having() -> None:
    """The middle server is a second slower than the cloud: with the cloud in reach the bound is that of the cloud."""
    asked = three_tiers(
        trace=WIDE, second_trace=WIDE, fps=10.0, world=replace(World(), request_s=0.0, cold=1.0, picture_s=0.0)
    )
    slow = replace(asked.table, server_s=asked.table.server_s + np.where(asked.table.hops[1].sends, 0.0, 1.0))
    out_of_reach = replace(asked, table=slow, further=((DEAD,),))
    in_reach = replace(asked, table=slow)
    assert clairvoyant(simulation_of(in_reach, 0)) == pytest.approx(0.92, abs=1e-9)
    assert clairvoyant(simulation_of(out_of_reach, 0)) < 0.90


def test_image_offload_sends_the_picture_to_where_the_whole_cnn_runs() -> None:
    assert [TABLE.ids[row] for row in np.flatnonzero(whole_images(TABLE))] == ["image", "image>cloud"]


def test_every_rule_is_tuned_in_three_tiers() -> None:
    asked = three_tiers(trace=BUMPY, second_trace=SLOW)
    few = replace(asked, table=asked.table.take([0, 1, int(np.flatnonzero(asked.table.local)[0])]))
    tuning = Tuning(lanes=2, episode_s=0.5)
    rules = tuned_rules(few, tuning)
    assert set(rules) == {*RULES, TRUE_BANDWIDTH}
    arena = replace(few, episode_s=0.5)
    assert all(0.0 <= mean_utility(rule, arena, tuning) <= 1.0 for rule in rules.values())
    assert mean_rate(asked.links[1]) == pytest.approx(0.44e6 / 8)
