"""The clairvoyant bound: above every controller and every plan, and tight where nothing is rounded."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.agents.small import BUMPY, DEAD, scenario, steps
from tests.envs.small import TABLE
from tidesplit.agents.judging.clairvoyant import Frontier, _merge, _undominated, clairvoyant
from tidesplit.agents.judging.evaluation import play, simulation_of
from tidesplit.agents.judging.ladder import WithTrueBandwidth
from tidesplit.agents.learning.imitation import teacher_regret
from tidesplit.agents.rules.controllers import Lookup, Mpc, Static
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.model import generate
from tidesplit.envs.traces.presets import PRESETS
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.hop import HopQueue
from tidesplit.envs.world.observation import Controller, Observation
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Queues
from tidesplit.envs.world.vocabulary import Ints

ROUNDING = 1e-9
CALM = replace(World(), rtt_s=0.030)
RESTLESS = replace(CALM, mean_cool_s=0.1, mean_hot_s=0.05, mean_calm_s=0.2, mean_busy_s=0.1)


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


def controllers(simulation: Simulation) -> list[Controller]:
    table, world = simulation.table, simulation.scenario.world
    floor = float(simulation.demands.min_accuracy[0])
    mpc = Mpc(name="MPC", table=table, world=world, horizon=4, width=4, margin_s=0.008, min_accuracy=floor)
    statics: list[Controller] = [Static(name, row) for row, name in enumerate(table.ids)]
    lookups = [Lookup(name="naive"), Lookup(name="careful", safety=0.4, margin_s=0.01, device_share=1.0)]
    return [*statics, *lookups, mpc, WithTrueBandwidth(mpc)(simulation), Hindsight(simulation), AtRandom()]


def lte(seed: int, duration_s: float) -> Trace:
    return generate(PRESETS["lte"], duration_s, np.random.default_rng(seed))


CASES: dict[str, tuple[Trace, dict[str, Any]]] = {
    "LTE, default demand": (lte(1, 5.0), {}),
    "LTE, slow camera": (lte(2, 8.0), {"fps": 10.0, "deadline_ms": 150.0}),
    "LTE, accuracy floor": (lte(3, 5.0), {"min_accuracy": 0.86}),
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
    bound = clairvoyant(simulation_of(asked, seed=0))
    for number in range(len(controllers(simulation_of(asked, seed=0)))):
        simulation = simulation_of(asked, seed=0)
        controller = controllers(simulation)[number]
        (record,) = play(controller, simulation)
        assert record.utility.mean() <= bound + ROUNDING, controller.name


def test_a_dead_link_leaves_the_device() -> None:
    """10 fps: each frame by itself, the most accurate point that the device ends within 100 ms is worth 0.85.

    A finish by the device after cut 1 or 2 at half width is as accurate (0.85 after 16 + 30 ms), and none is better.
    """
    quiet = replace(World(), compute_jitter=0.0, mean_cool_s=1e9)
    asked = scenario(DEAD, fps=10.0, world=quiet)
    assert clairvoyant(simulation_of(asked, seed=0)) == pytest.approx(0.85, abs=1e-12)


def test_a_wide_link_leaves_the_best_point() -> None:
    asked = scenario(steps("wide", [1000.0] * 5), fps=10.0, world=replace(World(), rtt_s=0.010, busy_wait_s=0.001))
    assert clairvoyant(simulation_of(asked, seed=0)) == pytest.approx(asked.table.accuracy.max(), abs=1e-12)


def best_plan(asked: Scenario, seed: int) -> float:
    """Mean utility of the best of all plans, each played in a lane of its own on the same course."""
    frames = int(simulation_of(asked, seed).frames[0])
    plans = np.array(list(product(range(asked.table.size), repeat=frames)))
    rngs = [np.random.default_rng([seed, 0]) for _ in plans]
    played = Simulation(asked, rngs, trace_of=np.zeros(len(plans), dtype=np.int64))
    total = np.zeros(len(plans))
    for column in plans.T:
        outcome, _ = played.step(column)
        total += outcome.utility
    return float(total.max()) / frames


def small_case(seed: int) -> Scenario:
    """Four points, four or five frames, a link that comes and goes, sometimes a device that throttles."""
    rng = np.random.default_rng(seed)
    frames, fps = int(rng.integers(4, 6)), float(rng.choice([10.0, 20.0, 30.0, 40.0]))
    mbps = np.where(rng.random(12) < 0.3, 0.0, rng.choice([0.1, 0.5, 1.0, 3.0, 8.0], 12))
    world = replace(RESTLESS if rng.random() < 0.5 else CALM, probe_after_s=float(rng.choice([0.05, 1.0])))
    asked = scenario(
        steps("on and off", list(mbps), frames / fps / 12),
        fps=fps,
        deadline_ms=float(rng.choice([60.0, 100.0, 150.0, 300.0])),
        objective="latency" if rng.random() < 0.5 else "accuracy",
        world=world,
    )
    return replace(asked, table=asked.table.take(np.sort(rng.choice(asked.table.size, 4, replace=False))))


@pytest.mark.parametrize("seed", range(30))
def test_no_plan_beats_the_clairvoyant(seed: int) -> None:
    """Every plan, those that let frames drop on purpose too, by a device that goes by its own beliefs."""
    asked = small_case(seed)
    assert best_plan(asked, seed) <= clairvoyant(simulation_of(asked, seed)) + ROUNDING


@pytest.mark.parametrize(
    "asked",
    [
        # The image, the cut or the device in round numbers (see tests/envs/small.py).
        scenario(steps("falling", [2.0, 1.0, 0.4, 0.2], 0.04), fps=25.0, world=CALM),
        scenario(steps("rising", [0.05, 0.4, 1.0, 4.0], 0.04), fps=25.0, world=CALM),
        scenario(steps("gap", [4.0, 0.0, 0.0, 4.0], 0.04), fps=25.0, deadline_ms=150.0, world=CALM),
        scenario(steps("dead", [0.0], 0.16), fps=25.0, world=CALM),
        scenario(
            steps("latency", [2.0, 0.5, 1.0, 0.5], 0.04), fps=25.0, objective="latency", deadline_ms=500.0, world=CALM
        ),
    ],
    ids=lambda asked: asked.traces[0].name,
)
def test_the_bound_is_tight_where_nothing_is_merged(asked: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidesplit.agents.judging.clairvoyant._merge", lambda labels, *_: labels)
    # Without finishes: about those the clairvoyant knows more than the device, which goes by what it foresees.
    asked = replace(asked, table=replace(TABLE, finish_s=np.full(3, np.inf)))
    bound = clairvoyant(simulation_of(asked, 0), limit=10**9)
    assert bound == pytest.approx(best_plan(asked, 0), abs=1e-6)


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
    zero = np.zeros(len(rows))
    return Frontier(Queues(device, zero, begin, end, zero, (HopQueue(link, zero, zero),)), value)


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
    assert listed(_merge(labels, 0.0, 0.010)) == [
        (1.0, 0.022, 0.0, 0.0, 0.041),
        (3.0, 0.012, 0.0, 0.0, 0.040),
        (4.0, 0.012, 0.0, 0.0, 0.051),
    ]


def test_merged_finishes_begin_late_and_end_early() -> None:
    merged = _merge(labelled((1.0, 0.0, 0.031, 0.062, 0.0), (1.0, 0.0, 0.034, 0.061, 0.0)), 0.0, 0.010)
    assert listed(merged) == [(1.0, 0.0, 0.034, 0.061, 0.0)]


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([(1.0, 0.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0)], 1),  # twins: one stays
        ([(2.0, 0.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0)], 1),  # less utility, no shorter queue
        ([(2.0, 0.0, 0.0, 0.0, 0.1), (1.0, 0.0, 0.0, 0.0, 0.0)], 2),  # less utility, shorter link queue
        ([(2.0, 0.1, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.1)], 2),
        ([(2.0, 0.1, 0.0, 0.2, 0.1), (1.0, 0.1, 0.0, 0.3, 0.1)], 1),
        ([(1.0, 0.0, 0.1, 0.2, 0.0), (1.0, 0.0, 0.0, 0.2, 0.0)], 1),  # a later finish leaves time before it
        ([(1.0, 0.0, 0.0, 0.1, 0.0), (1.0, 0.0, 0.1, 0.2, 0.0)], 2),
        ([(3.0, 0.3, 0.0, 0.0, 0.0), (2.0, 0.2, 0.0, 0.0, 0.0), (1.0, 0.1, 0.0, 0.0, 0.0)], 3),
        ([(3.0, 0.1, 0.0, 0.0, 0.0), (2.0, 0.2, 0.0, 0.0, 0.0), (1.0, 0.3, 0.0, 0.0, 0.0)], 1),
    ],
)
def test_undominated(rows: list[tuple[float, float, float, float, float]], kept: int) -> None:
    left = listed(_undominated(labelled(*rows)))
    assert len(left) == kept
    assert listed(_undominated(labelled(*rows[::-1]))) == left
