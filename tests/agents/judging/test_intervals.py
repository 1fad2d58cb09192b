"""Interquartile means and paired differences with known answers; the generator passed in is the one used."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from tests.agents.small import BUMPY, scenario
from tidesplit.agents.judging import intervals
from tidesplit.agents.judging.contest import Result
from tidesplit.agents.judging.evaluation import History, interval, play, summarise
from tidesplit.agents.judging.figures import standings_table
from tidesplit.agents.rules.controllers import Static
from tidesplit.envs.simulation.course import draw_course
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.physics import World

NOTHING = History(*(np.zeros(1) for _ in History._fields))  # type: ignore[arg-type]


def results(**utilities: list[list[float]]) -> list[Result]:
    """One contest a seed, from ``[T][S]`` of each controller; traces are named by their number."""
    blank = summarise(NOTHING, controller="", trace="", period_s=1.0, decision_us=0.0, bound=1.0)
    traces, seeds = (len(next(iter(utilities.values()))), len(next(iter(utilities.values()))[0]))
    return [
        Result(
            [
                replace(blank, controller=name, trace=str(trace), utility=values[trace][seed])
                for name, values in utilities.items()
                for trace in range(traces)
            ],
            {str(trace): 1.0 for trace in range(traces)},
            {},
        )
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([5.0], 5.0),
        ([1.0, 2.0, 6.0], 3.0),  # a quarter of three is none
        ([0.0, 1.0, 2.0, 100.0], 1.5),
        ([9.0, 1.0, 1.0, 2.0, 3.0, 4.0, 4.0, -7.0], 2.5),
        ([0.0, 0.0, 1.0, 2.0, 3.0, 50.0, 50.0], 11.2),  # one of seven at either end
    ],
)
def test_interquartile_mean(values: list[float], mean: float) -> None:
    assert intervals.interquartile_mean(np.array([values, values])).tolist() == pytest.approx([mean, mean])


def test_utilities_by_trace_and_seed() -> None:
    found = intervals.utilities(results(a=[[0.1, 0.2], [0.3, 0.4]], b=[[0.5, 0.6], [0.7, 0.8]]))
    assert {name: of.tolist() for name, of in found.items()} == {
        "a": [[0.1, 0.2], [0.3, 0.4]], "b": [[0.5, 0.6], [0.7, 0.8]],
    }  # fmt: skip


def test_a_constant_lead_is_sure_however_far_the_traces_lie_apart() -> None:
    """Paired: what the traces have in common cancels, though the utilities themselves are anything but sure."""
    mpc = [[0.1, 0.2], [0.5, 0.4], [0.9, 0.8]]
    better = [[u + 0.05 for u in trace] for trace in mpc]
    found = intervals.standings(results(mpc=mpc, better=better), "mpc", np.random.default_rng(0))
    assert found["better"].difference == pytest.approx((0.05, 0.05, 0.05))
    assert found["better"].by_trace == pytest.approx({"0": 0.05, "1": 0.05, "2": 0.05})
    assert found["better"].better_on == 3
    assert found["mpc"].difference == (0.0, 0.0, 0.0)
    assert found["mpc"].better_on == 0
    low, value, high = (getattr(found["better"].utility, n) for n in ("low", "value", "high"))
    assert value == pytest.approx(np.mean([0.25, 0.45, 0.55, 0.85]))
    assert low < 0.3 < 0.8 < high


def test_intervals_are_over_traces_as_well_as_seeds() -> None:
    """Many seeds cannot make up for few traces: seeds that agree leave the traces' spread as it is."""
    values = np.repeat(np.random.default_rng(1).normal(0.5, 0.1, (20, 1)), 50, axis=1)
    chosen = intervals.drawn(20, 50, np.random.default_rng(0))
    found = intervals.estimate(values, chosen, lambda v: v.mean(axis=1))
    half = 1.96 * values[:, 0].std() / np.sqrt(20)  # what theory says of 20 independent numbers, not of 1000
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_table_fits_a_terminal() -> None:
    found = intervals.standings(
        results(**{"MPC, tuned": [[0.5], [0.6]], "MPC, true bandwidth": [[0.6], [0.5]]}), "MPC, tuned",
        np.random.default_rng(0),
    )  # fmt: skip
    written = io.StringIO()
    console = Console(width=80, file=written)
    console.print(standings_table(found, "MPC, tuned", "title"))
    shown = [" ".join(line.split()) for line in written.getvalue().splitlines()]
    assert "MPC, true bandwidth 0.5500 [0.500, 0.600] +0.0000 [-0.100, +0.100] 1 of 2" in shown
    assert "MPC, tuned 0.5500 [0.500, 0.600]" in shown


SOME = results(a=[[0.1, 0.7], [0.3, 0.4]], b=[[0.5, 0.6], [0.2, 0.9]])


def episode(rng: np.random.Generator) -> object:
    simulation = Simulation(replace(scenario(BUMPY), table_spread=0.2, episode_s=1.0), [rng])
    return [column.tolist() for column in play(Static("", 0), simulation)[0]]


RANDOM: dict[str, Callable[[np.random.Generator], object]] = {
    "standings": lambda rng: intervals.standings(SOME, "a", rng, draws=50)["b"],
    "bootstrap samples": lambda rng: [part.tolist() for part in intervals.drawn(3, 2, rng, draws=5)],
    "interval of a mean": lambda rng: interval(np.arange(7.0), rng, draws=50),
    "course of an episode": lambda rng: [
        np.asarray(c).tolist() for c in draw_course(World(), BUMPY, 0.0, 40, 1 / 30, rng)
    ],
    "episode": episode,
}


@pytest.mark.parametrize("name", RANDOM)
def test_the_generator_passed_in_is_the_one_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same state gives the same, another something else, its state moves on; and none is made on the side."""
    first, again, other = (np.random.default_rng(seed) for seed in (0, 0, 1))
    before = first.bit_generator.state

    def refuse(*_: object) -> np.random.Generator:
        raise AssertionError("a generator was made beside the one passed in")

    monkeypatch.setattr(np.random, "default_rng", refuse)
    found = RANDOM[name](first)
    assert found == RANDOM[name](again)
    assert found != RANDOM[name](other)
    assert first.bit_generator.state != before
    assert first.bit_generator.state == again.bit_generator.state
