"""Nothing of the future is in an observation: whatever the link does later, what the device is told now is the same."""

from __future__ import annotations

import numpy as np
import pytest

from tests.envs.three import three_tiers
from tests.profiles import synthetic_profile
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.fields import ONE_HOP, Fields, fields_of
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand

NEAR = World(rtt_s=0.02)  # so that answers can come before a fallback, or not, as the link decides
DEMANDS = [Demand(), Demand(deadline_s=0.25), Demand(objective="latency", deadline_s=0.25)]
BIN_S, BINS = 0.05, 80
FUTURES = {"dead": 0.0, "slow": 0.05e6, "fast": 50e6}


def play(past: np.ndarray, future_bps: float, change_s: float, demand: Demand, seed: int) -> list[np.ndarray]:
    """Flat observations of the frames whose turn comes before the link changes."""
    rate = np.where(np.arange(BINS) * BIN_S < change_s, past, future_bps)
    trace = Trace("changes", np.arange(BINS) * BIN_S, BINS * BIN_S, rate)
    scenario = scenario_from(trace=trace, profile=synthetic_profile(), demands=[demand], world=NEAR)
    simulation = Simulation(scenario, [np.random.default_rng(seed)])
    choose = np.random.default_rng(seed + 1)
    often = np.where(np.isfinite(scenario.table.finish_s) & (scenario.table.finish_s < 0.05), 6.0, 1.0)
    seen = []
    while simulation.situation().now_s[0] <= change_s:
        seen.append(simulation.observation().flat()[0])
        simulation.step(choose.choice(scenario.table.size, size=1, p=often / often.sum()))
    return seen


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("demand", DEMANDS, ids=str)
def test_the_future_of_the_link_is_not_observed(demand: Demand, seed: int) -> None:
    rng = np.random.default_rng(seed)
    past = rng.choice([0.0, 0.2e6, 2e6, 8e6], size=BINS)
    change_s = int(rng.integers(10, 60)) * BIN_S - 1e-6
    told = [play(past, bps, change_s, demand, seed) for bps in FUTURES.values()]
    assert len({len(rows) for rows in told}) == 1
    assert differing(told, ONE_HOP) == set()


def differing(told: list[list[np.ndarray]], fields: Fields) -> set[str]:
    """Names of the columns in which the observations of one future are not those of another."""
    points = (len(told[0][0]) - len(fields.state)) // len(fields.points)
    names = [*fields.state, *(name for name in fields.points for _ in range(points))]
    pairs = [pair for other in told[1:] for pair in zip(told[0], other, strict=True)]
    return {names[column] for ours, theirs in pairs for column in np.flatnonzero(ours != theirs)}


def play_on(which: str, past: np.ndarray, future_bps: float, change_s: float, seed: int) -> list[np.ndarray]:
    """As `play`, in three tiers, where it is this link that changes."""
    rate = np.where(np.arange(BINS) * BIN_S < change_s, past, future_bps)
    steady = Trace("steady", np.zeros(1), BINS * BIN_S, np.array([4e6]))
    links = {"trace": steady, "second_trace": steady, which: Trace("changes", np.arange(BINS) * BIN_S, 4.0, rate)}
    simulation = Simulation(three_tiers(world=NEAR, **links), [np.random.default_rng(seed)])
    choose, size = np.random.default_rng(seed + 1), simulation.table.size
    seen = []
    while simulation.situation().now_s[0] <= change_s:
        seen.append(simulation.observation().flat()[0])
        simulation.step(choose.integers(size, size=1))
    return seen


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("which", ["trace", "second_trace"])
def test_the_future_of_neither_hop_is_observed_in_three_tiers(which: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    past = rng.choice([0.0, 0.2e6, 2e6, 8e6], size=BINS)
    change_s = int(rng.integers(10, 60)) * BIN_S - 1e-6
    told = [play_on(which, past, bps, change_s, seed) for bps in FUTURES.values()]
    assert len({len(rows) for rows in told}) == 1
    assert differing(told, fields_of(2)) == set()
