"""The clairvoyant bound: equal to a brute force over short episodes, and above every plan and controller."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.agents.judging.small_episodes import (
    PI,
    best_in_the_kinder_world,
    best_plan,
    random_episode,
    with_streams,
)
from tests.agents.small import BUMPY, DEAD, scenario, steps
from tidesplit.agents.judging.clairvoyant import canonical, clairvoyant, merged, undominated
from tidesplit.agents.judging.evaluation import play, simulation_of
from tidesplit.agents.judging.ladder import WithTrueBandwidth
from tidesplit.agents.judging.relaxed import Beliefs, Frontier
from tidesplit.agents.judging.seer import teacher_regret
from tidesplit.agents.rules.controllers import Lookup, Mpc
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.model import generate
from tidesplit.envs.traces.presets import PRESETS
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.heat import NO_HEAT, Cooling
from tidesplit.envs.world.hop import HopQueue
from tidesplit.envs.world.observation import Controller, Observation
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.queues import Queues, References
from tidesplit.envs.world.vocabulary import Floats, Ints
from tidesplit.profiling.points.stream_columns import Streams

ROUNDING = 1e-9
SAME = 1e-6
EPISODES = 150
"""Random short episodes. In 85 % of 250 the bound was the utility of the best plan in the true world within
`SAME`, in 92 % that of the best plan that may also forbid the device to run frames that it has sent."""
STREAMING = 100
FORBIDDING = 30  # of them, for which the best plan of the second kind is sought too
CALM = replace(World(), rtt_s=0.030)
QUICK_HEAT = Cooling(settling_s=1.0)
RESTLESS = replace(CALM, jitter=5.0, cooling=QUICK_HEAT, mean_calm_s=0.2, mean_busy_s=0.1)


class Short(NamedTuple):
    """Mean utilities of short episodes, ``[E]``."""

    bound: Floats
    kinder: Floats  # brute force in the kinder world
    plan: Floats  # brute force in the true world
    forbidding: Floats  # the same with forbidden runs, of the first episodes


@pytest.fixture(scope="module")
def short() -> Short:
    """Every episode, with nothing merged in the bound."""
    episodes = [(random_episode(seed), seed) for seed in range(EPISODES)]
    return Short(
        np.array([clairvoyant(simulation_of(*one), limit=10**9, cell_s=0.0) for one in episodes]),
        np.array([best_in_the_kinder_world(*one) for one in episodes]),
        np.array([best_plan(*one) for one in episodes]),
        np.array([best_plan(*one, forbids=True) for one in episodes[:FORBIDDING]]),
    )


def test_the_bound_equals_a_brute_force_in_the_kinder_world(short: Short) -> None:
    assert short.bound == pytest.approx(short.kinder, abs=ROUNDING)


def test_no_plan_beats_the_clairvoyant(short: Short) -> None:
    """Every plan, those that let frames drop on purpose too, by a device that goes by its own beliefs."""
    assert (short.plan <= short.bound + ROUNDING).all()
    assert (short.plan[:FORBIDDING] <= short.forbidding + ROUNDING).all()
    assert (short.forbidding <= short.bound[:FORBIDDING] + ROUNDING).all()


def test_the_bound_is_the_best_plan_in_most_episodes(short: Short) -> None:
    same = short.bound - short.plan < SAME
    assert same.mean() >= 0.8
    assert (short.bound[:FORBIDDING] - short.forbidding < SAME).mean() >= 0.9


def test_no_plan_beats_the_clairvoyant_where_payloads_depend_on_those_before() -> None:
    """Random episodes with streams. The bound is loose: its streams need no keys and do not grow old."""
    episodes = [(with_streams(random_episode(seed), seed), seed) for seed in range(STREAMING)]
    bound = np.array([clairvoyant(simulation_of(*one), limit=10**9, cell_s=0.0) for one in episodes])
    plan = np.array([best_plan(*one) for one in episodes])
    assert (plan <= bound + ROUNDING).all()
    assert 0.4 < (bound - plan < SAME).mean() < 0.8


def test_streams_that_never_change_are_none() -> None:
    asked = with_streams(random_episode(0), 0)
    even = replace(asked.table.streams, growth=np.ones_like(asked.table.streams.growth))
    one, other = (
        clairvoyant(simulation_of(replace(asked, table=replace(asked.table, streams=streams)), 0))
        for streams in (even, Streams.none(asked.table.size))
    )
    assert one == other


class Hindsight:
    """The imitation phase's teacher: it looks six frames ahead and sees the truth."""

    name = "hindsight"

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def predict(self, observation: Observation) -> Ints:
        return np.argmin(teacher_regret(self._simulation, np.arange(self._simulation.lanes)), axis=1)


class AtRandom:
    """Any allowed point."""

    name = "at random"

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def predict(self, observation: Observation) -> Ints:
        return np.where(observation.mask, self._rng.random(observation.mask.shape), -1.0).argmax(axis=1)


class EachItsOwn:
    """The first lanes play one static point each, the others any allowed point."""

    name = "static points and chance"

    def __init__(self) -> None:
        self._chance = AtRandom()

    def predict(self, observation: Observation) -> Ints:
        lanes, size = observation.mask.shape
        return np.where(np.arange(lanes) < size, np.arange(lanes), self._chance.predict(observation))


def rules(simulation: Simulation) -> list[Controller]:
    table, world = simulation.table, simulation.scenario.world
    floor = float(simulation.demands.min_accuracy[0])
    mpc = Mpc(name="MPC", table=table, world=world, horizon=3, width=3, margin_s=0.008, min_accuracy=floor)
    return [Lookup(name="naive"), mpc, WithTrueBandwidth(mpc)(simulation), Hindsight(simulation)]


def best_controller(asked: Scenario) -> float:
    """Highest mean utility of all static points, of chance, and of the rules, on the same course of events."""
    lanes = asked.table.size + 8
    together = Simulation(asked, [np.random.default_rng([0, 0]) for _ in range(lanes)], np.zeros(lanes, dtype=np.int64))
    records = play(EachItsOwn(), together)
    for number in range(len(rules(simulation_of(asked, seed=0)))):
        simulation = simulation_of(asked, seed=0)
        records += play(rules(simulation)[number], simulation)
    return max(float(record.utility.mean()) for record in records)


def lte(seed: int, duration_s: float) -> Trace:
    return generate(PRESETS["lte"], duration_s, np.random.default_rng(seed))


CASES: dict[str, tuple[Trace, dict[str, Any]]] = {
    "LTE, default demand": (lte(1, 3.0), {}),
    "LTE, slow camera": (lte(2, 6.0), {"fps": 10.0, "deadline_ms": 150.0}),
    "LTE, accuracy floor": (lte(3, 3.0), {"min_accuracy": 0.86}),
    "LTE, latency": (lte(4, 3.0), {"objective": "latency", "deadline_ms": 1000.0, "min_accuracy": 0.85, "fps": 15.0}),
    "outage": (BUMPY, {}),
    "outage, latency": (BUMPY, {"objective": "latency", "deadline_ms": 300.0}),
    "a link that carries nothing": (DEAD, {}),
    "a link that carries nothing, latency": (DEAD, {"objective": "latency", "deadline_ms": 200.0}),
    "queues under load": (BUMPY, {"fps": 50.0, "deadline_ms": 120.0}),
    "a deadline hardly to be kept": (BUMPY, {"deadline_ms": 40.0, "world": RESTLESS}),
    "a restless device": (BUMPY, {"world": RESTLESS}),
    "a restless device, latency": (BUMPY, {"world": RESTLESS, "objective": "latency", "deadline_ms": 60.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_no_controller_beats_the_clairvoyant(name: str) -> None:
    trace, options = CASES[name]
    asked = scenario(trace, **options)
    asked = replace(asked, table=replace(asked.table, machine=PI))
    assert best_controller(asked) <= clairvoyant(simulation_of(asked, seed=0)) + ROUNDING


def test_a_dead_link_leaves_the_device() -> None:
    """10 fps: each frame by itself, the most accurate point that the device ends within 100 ms is worth 0.85.

    A finish by the device after cut 1 or 2 at half width is as accurate (0.85 after 16 + 30 ms), and none is better.
    """
    quiet = replace(World(), jitter=0.0, cooling=NO_HEAT)
    asked = scenario(DEAD, fps=10.0, world=quiet)
    assert clairvoyant(simulation_of(asked, seed=0)) == pytest.approx(0.85, abs=1e-12)


def test_a_wide_link_leaves_the_best_point() -> None:
    asked = scenario(steps("wide", [1000.0] * 5), fps=10.0, world=replace(World(), rtt_s=0.010, busy_wait_s=0.001))
    assert clairvoyant(simulation_of(asked, seed=0)) == pytest.approx(asked.table.accuracy.max(), abs=1e-12)


def test_fewer_labels_only_raise_the_bound() -> None:
    asked = scenario(lte(1, 2.0))
    few, some, many = (clairvoyant(simulation_of(asked, seed=0), limit=limit) for limit in (4, 16, 64))
    assert many <= some + ROUNDING
    assert some <= few + ROUNDING


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    clairvoyant(simulation_of(scenario(DEAD, fps=150.0), seed=0), report=lambda *done: told.append(done))
    assert told == [(100, 150), (150, 150)]


def labelled(*rows: tuple[float, float, float, float, float]) -> Frontier:
    """Labels of (utility, device free, finish from, finish until, link free)."""
    value, device, begin, end, link = (np.array(column) for column in zip(*rows, strict=True))
    none = np.zeros(len(rows))
    links = (HopQueue(link, none, none),)
    return Frontier(Queues(device, none, begin, end, none, links, References.none(len(rows), 0)), value)


def listed(labels: Frontier) -> list[tuple[float, ...]]:
    queues, value = labels
    columns = (value, queues.device_free_s, queues.finish_from_s, queues.finish_until_s, queues.hops[0].free_s)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def test_merging_leaves_one_label_a_cell_as_good_as_any_of_its_members() -> None:
    labels = labelled(
        (3.0, 0.012, 0.0, 0.0, 0.041),
        (2.0, 0.013, 0.0, 0.0, 0.040),  # the same 10 ms cell: device 0.012, link 0.040, utility 3
        (1.0, 0.022, 0.0, 0.0, 0.041),  # the next cell
        (4.0, 0.012, 0.0, 0.0, 0.051),  # and another
    )
    assert listed(merged(labels, 0.0, 0.010)) == [
        (1.0, 0.022, 0.0, 0.0, 0.041),
        (3.0, 0.012, 0.0, 0.0, 0.040),
        (4.0, 0.012, 0.0, 0.0, 0.051),
    ]


def test_merged_stretches_begin_late_and_end_early() -> None:
    both = merged(labelled((1.0, 0.0, 0.031, 0.062, 0.0), (1.0, 0.0, 0.034, 0.061, 0.0)), 0.0, 0.010)
    assert listed(both) == [(1.0, 0.0, 0.034, 0.061, 0.0)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((0.2, 0.3, 0.4, 0.5), (0.2, 0.3, 0.4, 0.5)),  # a plan for later
        ((0.0, 0.0, 0.4, 0.0), (0.1, 0.1, 0.4, 0.1)),  # a busy worker
        ((0.3, 0.2, 0.4, 0.0), (0.3, 0.1, 0.4, 0.1)),  # busy when the foreground becomes free
        ((0.3, 0.2, 0.3, 0.0), (0.3, 0.1, 0.1, 0.1)),  # done by then
        ((0.0, 0.0, 0.05, 0.0), (0.1, 0.1, 0.1, 0.1)),  # all idle
    ],
)
def test_the_past_is_forgotten(before: tuple[float, ...], after: tuple[float, ...]) -> None:
    """Device free, finish from, finish until, link free; the next frame arrives at 0.1 s."""
    device, begin, end, link = before
    kept = canonical(labelled((0.0, device, begin, end, link)).queues, 0.1)
    assert listed(Frontier(kept, np.zeros(1))) == [(0.0, *after)]


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([(1.0, 0.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0)], 1),  # twins: one stays
        ([(2.0, 0.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0)], 1),  # less utility, no shorter queue
        ([(2.0, 0.0, 0.0, 0.0, 0.1), (1.0, 0.0, 0.0, 0.0, 0.0)], 2),  # less utility, shorter link queue
        ([(2.0, 0.1, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.1)], 2),
        ([(2.0, 0.1, 0.0, 0.2, 0.1), (1.0, 0.1, 0.0, 0.3, 0.1)], 1),
        ([(1.0, 0.0, 0.1, 0.2, 0.0), (1.0, 0.0, 0.0, 0.2, 0.0)], 1),  # a later stretch leaves time before it
        ([(1.0, 0.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.1, 0.2, 0.0)], 2),  # a planned finish can put off further ones
        ([(3.0, 0.3, 0.0, 0.0, 0.0), (2.0, 0.2, 0.0, 0.0, 0.0), (1.0, 0.1, 0.0, 0.0, 0.0)], 3),
        ([(3.0, 0.1, 0.0, 0.0, 0.0), (2.0, 0.2, 0.0, 0.0, 0.0), (1.0, 0.3, 0.0, 0.0, 0.0)], 1),
    ],
)
def test_undominated(rows: list[tuple[float, float, float, float, float]], kept: int) -> None:
    left = listed(undominated(labelled(*rows)))
    assert len(left) == kept
    assert listed(undominated(labelled(*rows[::-1]))) == left


def test_beliefs_are_medians_of_five() -> None:
    """The first five are 1, and a median needs three values as low or as high."""
    beliefs = Beliefs()
    seen = []
    for low, high in [(0.8, 1.3), (0.7, 1.1), (0.9, 1.4), (1.0, 1.0)]:
        beliefs.learn(low, high)
        seen.append((beliefs.lowest, beliefs.highest))
    assert seen == [(1.0, 1.0), (1.0, 1.0), (0.9, 1.1), (0.9, 1.1)]
