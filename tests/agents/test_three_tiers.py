"""Three tiers: the clairvoyant stays a bound, the rules and the papers' methods know the second link, PPO trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.agents.judging.test_clairvoyant import CALM, RESTLESS, ROUNDING, AtRandom, Hindsight, best_plan, lte
from tests.agents.small import BUMPY, DEAD, steps
from tests.envs.three import TABLE, three_tiers
from tests.profiles import CLOUD, DEVICE, SERVER, three_tier_profile
from tidesplit.agents import bundle
from tidesplit.agents.judging.clairvoyant import clairvoyant
from tidesplit.agents.judging.evaluation import play, simulation_of
from tidesplit.agents.judging.ladder import (
    BLIND,
    KNOWS_BANDWIDTH,
    Blind,
    Informed,
    Tuning,
    mean_utility,
    tuned_rules,
    whole_images,
)
from tidesplit.agents.learning import training
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.agents.learning.imitation import ImitationConfig
from tidesplit.agents.learning.policy import greedy
from tidesplit.agents.rules.controllers import Controller, Lookup, Mpc, Static, uncompressed
from tidesplit.agents.rules.linucb import LinUcb, beyond_s
from tidesplit.agents.rules.published import Jmdc, cnnpc, mean_rate, static_latency
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.observation import THREE_TIERS
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand

WIDE, SLOW = steps("wide", [50.0] * 5), steps("slow", [0.4, 0.1, 1.0, 0.0, 0.7])


def controllers(simulation: Simulation) -> list[Controller]:
    table, world = simulation.table, simulation.scenario.world
    floor = float(simulation.demands.min_accuracy[0])
    mpc = Mpc(name="MPC", table=table, world=world, horizon=4, width=4, margin_s=0.008, min_accuracy=floor)
    statics: list[Controller] = [Static(name, row) for row, name in enumerate(table.ids)]
    others = [Lookup(name="naive"), mpc, Informed(mpc)(simulation), Hindsight(simulation), AtRandom()]
    return [*statics, *others, LinUcb(name="LinUCB", usual_rate=1e5)(simulation)]


# first link, second link, options
CASES: dict[str, tuple[Trace, Trace, dict[str, Any]]] = {
    "LTE, wide second link": (lte(1, 4.0), WIDE, {}),
    "LTE, slow second link": (lte(1, 4.0), SLOW, {"fps": 20.0, "deadline_ms": 150.0}),
    "the second link is the narrow one": (WIDE, SLOW, {"fps": 20.0}),
    "outage on both": (BUMPY, BUMPY, {"world": RESTLESS}),
    "outage on both, latency": (BUMPY, BUMPY, {"objective": "latency", "deadline_ms": 300.0, "min_accuracy": 0.8}),
    "the second link carries nothing": (BUMPY, DEAD, {}),
    "the first link carries nothing": (DEAD, WIDE, {"fps": 20.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_no_controller_beats_the_clairvoyant(name: str) -> None:
    first, second, options = CASES[name]
    asked = three_tiers(trace=first, onward_trace=second, **options)
    bound = clairvoyant(simulation_of(asked, seed=0))
    for number in range(len(controllers(simulation_of(asked, seed=0)))):
        simulation = simulation_of(asked, seed=0)
        controller = controllers(simulation)[number]
        (record,) = play(Blind(controller), simulation)
        assert record.utility.mean() <= bound + ROUNDING, controller.name


def small_case(seed: int) -> Scenario:
    """Four points, at least two of which go on, four or five frames, two links that come and go."""
    rng = np.random.default_rng(seed)
    frames, fps = int(rng.integers(4, 6)), float(rng.choice([10.0, 20.0, 30.0, 40.0]))

    def link(name: str) -> Trace:
        mbps = np.where(rng.random(12) < 0.3, 0.0, rng.choice([0.05, 0.5, 1.0, 3.0, 8.0], 12))
        return steps(name, list(mbps), frames / fps / 12)

    asked = three_tiers(
        trace=link("first"),
        onward_trace=link("second"),
        fps=fps,
        deadline_ms=float(rng.choice([60.0, 100.0, 150.0, 300.0])),
        objective="latency" if rng.random() < 0.5 else "accuracy",
        world=replace(RESTLESS if rng.random() < 0.5 else CALM, probe_after_s=float(rng.choice([0.05, 1.0]))),
    )
    assert asked.table.onward is not None
    on = rng.permutation(np.flatnonzero(asked.table.onward.sends))[:2]
    rest = rng.permutation(np.setdiff1d(np.arange(asked.table.size), on))[:2]
    return replace(asked, table=asked.table.take(np.sort(np.concatenate([on, rest]))))


@pytest.mark.parametrize("seed", range(30))
def test_no_plan_beats_the_clairvoyant(seed: int) -> None:
    asked = small_case(seed)
    assert best_plan(asked, seed) <= clairvoyant(simulation_of(asked, seed)) + ROUNDING


def test_the_bound_is_tight_where_nothing_is_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the round points of `tests.envs.three`, without finishes, over links that change under way."""
    monkeypatch.setattr("tidesplit.agents.judging.clairvoyant._merge", lambda labels, *_: labels)
    links = {"trace": steps("f", [4.0, 1.0, 8.0], 0.04), "onward_trace": steps("s", [0.3, 4.0, 0.0], 0.05)}
    asked = three_tiers(fps=25.0, deadline_ms=130.0, world=CALM, **links)
    asked = replace(asked, table=replace(TABLE, finish_s=np.full(TABLE.size, np.inf)).take([1, 2, 4, 5, 6]))
    assert clairvoyant(simulation_of(asked, 0), limit=10**9) == pytest.approx(best_plan(asked, 0), abs=1e-6)


def test_a_wide_second_link_is_worth_having() -> None:
    """The edge server is a second slower than the cloud: with the cloud in reach the bound is that of the cloud."""
    asked = three_tiers(trace=WIDE, onward_trace=WIDE, fps=10.0, world=replace(World(), request_s=0.0))
    slow = replace(asked.table, server_s=asked.table.server_s + np.where(asked.table.onward.sends, 0.0, 1.0))  # type: ignore[union-attr]
    out_of_reach = replace(asked, table=slow, onward=(DEAD,))
    in_reach = replace(asked, table=slow)
    assert clairvoyant(simulation_of(in_reach, 0)) == pytest.approx(0.92, abs=1e-9)
    assert clairvoyant(simulation_of(out_of_reach, 0)) < 0.90


def test_static_latency_is_the_sum_of_the_tables() -> None:
    """100 kB/s and 200 kB/s, round trips of 40 and 10 ms: `tests.envs.test_hop` has the same frames by the pipeline."""
    world = replace(World(), rtt_s=0.040, request_s=0.0, onward_rtt_s=0.010)
    expected = [0.110, 0.125, 0.1195, 0.080, 0.089, 0.0925, 0.050]
    np.testing.assert_allclose(static_latency(TABLE, world, 1e5, 2e5), expected)


@pytest.mark.parametrize(
    ("demand", "rates", "best"),
    [
        (Demand(deadline_s=0.112), (1e5, 2e5), "image"),
        (Demand(deadline_s=0.108), (1e5, 2e5), "cut"),
        (Demand(deadline_s=0.112), (1e5, 1e9), "image>cloud"),  # 5.1 ms quicker than the edge server, both in time
        (Demand(objective="latency", min_accuracy=0.85, deadline_s=1.0), (2e5, 1e9), "image>cloud"),
        (Demand(objective="latency", min_accuracy=0.85, deadline_s=1.0), (2e5, 5e4), "image"),
        (Demand(objective="latency", min_accuracy=0.7, deadline_s=1.0), (1e5, 5e4), "cut"),
        (Demand(objective="latency", min_accuracy=0.7, deadline_s=1.0), (1e5, 1e6), "cut"),
    ],
)
def test_cnnpc_and_jmdc_choose_among_two_cuts_too(demand: Demand, rates: tuple[float, float], best: str) -> None:
    world = replace(World(), rtt_s=0.040, request_s=0.0, onward_rtt_s=0.010)
    latency = static_latency(TABLE, world, *rates)
    chosen = cnnpc(TABLE, world, demand, *rates).row
    fits = (latency <= demand.deadline_s) & (demand.min_accuracy <= TABLE.accuracy)
    by_hand = min(
        np.flatnonzero(fits),
        key=lambda r: (latency[r],) if demand.objective == "latency" else (-TABLE.accuracy[r], latency[r]),
    )
    assert (TABLE.ids[chosen], chosen) == (best, by_hand)


def test_jmdc_is_told_of_the_second_link() -> None:
    """Where the second link turns slow, it stops sending over it."""
    links = {"trace": steps("wide", [50.0] * 40), "onward_trace": steps("turns slow", [50.0] * 20 + [0.01] * 20)}
    asked = three_tiers(**links, deadline_ms=150.0, world=replace(World(), request_s=0.0))
    slow = replace(asked.table, server_s=asked.table.server_s + np.where(asked.table.onward.sends, 0.0, 0.2))  # type: ignore[union-attr]
    asked = replace(asked, table=slow)
    jmdc = Jmdc(name="JMDC", table=slow, world=asked.world, usual_rate=1e6, usual_onward_rate=1e6)
    (record,) = play(Blind(jmdc), simulation_of(asked, 0))
    assert slow.onward is not None
    goes_on = slow.onward.sends[record.points]
    assert goes_on[5:50].all()
    assert not goes_on[-20:].any()


def test_the_bandit_adds_what_lies_beyond_the_edge_server() -> None:
    simulation = Simulation(three_tiers(trace=WIDE, onward_trace=WIDE), [np.random.default_rng(0)])
    told = simulation.observation()
    added = beyond_s(told)[0]
    table, onward = simulation.table, simulation.table.onward
    assert onward is not None
    takes = onward.middle_s + (onward.bytes_mean + 150.0) / 125_000.0 + World().usual_onward_rtt_s + table.server_s
    np.testing.assert_allclose(added, np.where(onward.sends, takes, 0.0), atol=1e-6)


def test_partition_only_and_image_offload() -> None:
    assert [TABLE.ids[row] for row in np.flatnonzero(uncompressed(TABLE))] == list(TABLE.ids)
    assert [TABLE.ids[row] for row in np.flatnonzero(whole_images(TABLE))] == ["image", "image>cloud"]


def test_every_rule_is_tuned_in_three_tiers() -> None:
    asked = three_tiers(trace=BUMPY, onward_trace=SLOW)
    few = replace(asked, table=asked.table.take([0, 1, asked.table.size - 1]))
    tuning = Tuning(lanes=2, episode_s=0.5)
    rules = tuned_rules(few, tuning)
    assert set(rules) == {*BLIND, KNOWS_BANDWIDTH}
    arena = replace(few, episode_s=0.5)
    assert all(0.0 <= mean_utility(rule, arena, tuning) <= 1.0 for rule in rules.values())
    assert mean_rate(asked.onward) == pytest.approx(0.44e6 / 8)


def test_ppo_trains_and_its_bundle_decides_as_it_does(tmp_path: Path) -> None:
    asked = three_tiers(trace=BUMPY, onward_trace=BUMPY)
    recipe = training.Recipe(
        imitation=ImitationConfig(rounds=2, labels_per_round=64, epochs_per_round=1, last_epochs=1),
        ppo=training.PpoConfig(lanes=4, rollout=16, batch=32, steps=64, critic_steps=64),
    )
    model = training.new_model(asked, recipe)
    training.learn_by_imitation(model, asked, recipe, lambda *_: None)
    training.learn_by_ppo(model, recipe, None, lambda *_: None)
    policy = training.policy_of(model)
    write_bundle(
        tmp_path,
        policy,
        profile=three_tier_profile(),
        table=asked.table,
        device=DEVICE,
        server=SERVER,
        cloud=CLOUD,
        demand=Demand(),
        config={},
    )
    read = bundle.load(tmp_path)
    assert read.manifest["state_fields"] == list(THREE_TIERS.state)
    assert (read.table.ids, read.table.tiers) == (asked.table.ids, 3)
    np.testing.assert_array_equal(read.table.onward.middle_s, asked.table.onward.middle_s)  # type: ignore[union-attr]
    simulation = simulation_of(asked, 0)
    for _ in range(20):
        told = simulation.observation()
        ours = greedy(policy, told.flat(), told.mask)
        np.testing.assert_array_equal(read.policy.predict(told), ours)
        simulation.step(ours)
