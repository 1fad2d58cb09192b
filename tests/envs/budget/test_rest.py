"""A radio that rests: known answers for its sign and its times, and what that saves in the simulated world."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.envs.small import IMAGE, LOCAL, TABLE, WORLD
from tidesplit.envs.budget.prices import Prices
from tidesplit.envs.budget.rest import LEAST, LONGEST_REST_S, PATIENCE_S, REST_S, TRIAL_S, Rest, by_itself, lead_of
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.vocabulary import Demand, Demands
from tidesplit.profiling.points.table import Machine
from tidesplit.runtime.choosing.radio_rest import RadioRest

PERIOD_S = np.array([0.1])
POWERED = replace(TABLE, machine=Machine(idle_w=2.0, busy_w=5.0, threads=4))


def lasting(rest: Rest, lead: float, seconds: float, *, awake: bool = True) -> tuple[Rest, float]:
    """The rest after so many seconds with this lead, and for how long of them it rested."""
    rested_s = 0.0
    for _ in range(round(seconds / PERIOD_S[0])):
        rested_s += float(rest.resting[0]) * PERIOD_S[0]
        rest = rest.after(np.array([lead]), np.array([awake]), PERIOD_S)
    return rest, rested_s


@pytest.mark.parametrize(
    ("lead", "seconds", "awake", "rests"),
    [
        (LEAST - 0.01, PATIENCE_S, True, True),
        (LEAST - 0.01, PATIENCE_S - 1.0, True, False),
        (LEAST + 0.01, 3 * PATIENCE_S, True, False),
        (-1.0, 3 * PATIENCE_S, False, False),  # a radio that sleeps anyway
    ],
)
def test_it_rests_where_the_mean_lead_of_a_long_stretch_is_low(
    lead: float, seconds: float, awake: bool, rests: bool
) -> None:
    rest, _ = lasting(Rest.none(1), lead, seconds, awake=awake)
    assert rest.resting[0] == rests


def test_rests_double_up_to_the_longest_while_trials_show_nothing_better() -> None:
    rest, _ = lasting(Rest.none(1), -0.1, PATIENCE_S)
    for length_s in (REST_S, 2 * REST_S, LONGEST_REST_S):
        rest, rested_s = lasting(rest, -0.1, length_s)
        assert rested_s == pytest.approx(length_s)
        assert not rest.resting[0]
        rest, rested_s = lasting(rest, -0.1, TRIAL_S)
        assert rested_s == 0.0
        assert rest.resting[0]


def test_a_trial_that_goes_well_brings_the_patience_back() -> None:
    rest, _ = lasting(Rest.none(1), -0.1, PATIENCE_S + REST_S)
    rest, _ = lasting(rest, 0.1, TRIAL_S)
    rest, rested_s = lasting(rest, -0.1, 0.4 * PATIENCE_S)
    assert rested_s == 0.0
    rest, _ = lasting(rest, -0.1, PATIENCE_S)
    assert rest.left_s[0] <= REST_S


def test_a_good_minute_counts_against_a_bad_one_for_a_while() -> None:
    rest, _ = lasting(Rest.none(1), 0.1, 60.0)
    assert not lasting(rest, -0.1, 10.0)[0].resting[0]
    assert lasting(rest, -0.1, 60.0)[0].resting[0]


@pytest.mark.parametrize(
    ("fps", "deadline_s", "slow_down", "price", "expected"),
    [
        (5.0, 0.2, 1.0, 0.0, 0.9),
        (5.0, 0.2, 1.0, 0.5, 0.9 - 0.5 * 0.100 * 3.0),
        (20.0, 0.2, 1.0, 0.5, 0.5 * (0.9 - 0.15)),  # every second frame
        (5.0, 0.2, 3.0, 0.0, 0.0),  # too late, and so is every other
        (5.0, 0.2, 1.0, 9.0, 0.0),  # worth less than it costs
    ],
)
def test_what_the_device_has_by_itself(
    fps: float, deadline_s: float, slow_down: float, price: float, expected: float
) -> None:
    """The local point is right in 0.9 of the cases after 100 ms, for which the processor draws 3 W more."""
    table = replace(POWERED, head_s=np.where(POWERED.local, 0.100, POWERED.head_s))
    table = replace(table, accuracy=np.where(POWERED.local, 0.9, POWERED.accuracy))
    demands = Demands.of(Demand(fps=fps, deadline_s=deadline_s))
    worth = by_itself(table, demands, np.array([slow_down]), np.array([price]))
    assert worth == pytest.approx([expected])


@pytest.mark.parametrize(
    ("now", "slow_down", "expected"),
    [
        (0.0, 1.0, 0.7 - 0.6),
        (0.4, 1.0, 0.7 - 0.2 * 0.3 - (0.6 - 0.2 * 0.15)),  # half of the price counts
        (9.0, 1.0, 0.7 - 0.5 * 0.3 - (0.6 - 0.5 * 0.15)),  # and no more than half of that to begin with
        (9.0, 2.0, 0.7 - 0.5 * 0.3 - (0.6 - 0.5 * 0.30)),
    ],
)
def test_a_frames_lead_is_its_worth_less_that_of_the_device_by_itself(
    now: float, slow_down: float, expected: float
) -> None:
    """A frame of 0.7 drew 0.3 J above idle. The local net has 0.6 after 50 ms, for which it draws 3 W more."""
    demands = Demands.of(Demand(fps=5.0, deadline_s=0.2))
    prices = np.array([now]), np.array([1.0])
    lead = lead_of(0.7, 0.3 + 2.0 * 0.2, POWERED, demands, np.array([slow_down]), prices)
    assert lead == pytest.approx([expected])


class Sends:
    """Sends pictures where it may."""

    name = "sends"

    def predict(self, observation):  # type: ignore[no-untyped-def]
        """The picture, or the local net."""
        return np.where(observation.mask[:, IMAGE], IMAGE, LOCAL)


def test_it_saves_energy_on_a_link_that_brings_nothing_and_changes_nothing_on_a_good_one() -> None:
    demand = Demand(fps=5.0, deadline_s=0.2, max_watts=4.0)
    for bps, saves in ((2e5, True), (50e6, False)):
        trace = Trace("flat", np.zeros(1), 400.0, np.array([bps]))
        scenario = Scenario(traces=(trace,), demands=(demand,), table=POWERED, world=WORLD, episode_s=240.0)
        radio_j, utility = [], []
        for rests in (True, False):
            simulation = Simulation(scenario, [np.random.default_rng(0)])
            simulation.begin_with(Prices.of(1.0, 0.0), rests)
            ended, joules, worth = False, 0.0, 0.0
            while not ended:
                outcome, end = simulation.step(Sends().predict(simulation.observation()))
                joules, worth, ended = joules + outcome.radio_j[0], worth + outcome.utility[0], bool(end[0])
            radio_j.append(joules)
            utility.append(worth)
        assert (radio_j[0] < 0.7 * radio_j[1]) == saves, bps
        assert utility[0] >= utility[1]


def simulated(lanes: int, demands: tuple[Demand, ...], bps: float = 2e5, **more: Any) -> Simulation:
    """Lanes that may rest, on a link too slow for pictures."""
    trace = Trace("flat", np.zeros(1), 400.0, np.array([bps]))
    scenario = Scenario(traces=(trace,), demands=demands, table=POWERED, world=WORLD, episode_s=120.0, **more)
    simulation = Simulation(scenario, [np.random.default_rng(lane) for lane in range(lanes)])
    simulation.begin_with(Prices.of(1.0, 0.0), rests=True)
    return simulation


def test_lanes_without_a_budget_of_energy_do_not_rest_and_each_may_have_its_own_table() -> None:
    demands = (Demand(fps=5.0, deadline_s=0.2, max_watts=4.0), Demand(fps=5.0, deadline_s=0.2))
    simulation = simulated(8, demands, table_spread=0.01)
    rested = np.zeros(8, dtype=bool)
    for _ in range(500):
        simulation.step(Sends().predict(simulation.observation()))
        assert simulation.rest is not None
        rested |= simulation.rest.resting
    of_energy = np.isfinite(simulation.budgets.watts)
    assert 0 < np.count_nonzero(of_energy) < 8
    assert (rested == of_energy).all()


def test_a_device_rests_at_the_simulators_frames() -> None:
    """Both are fed with the same frames."""
    demand = Demand(fps=5.0, deadline_s=0.2, max_watts=4.0)
    simulation, device = simulated(1, (demand,)), RadioRest(POWERED, demand, 1.0)
    changes = 0
    for _ in range(590):
        seen = simulation.observation().seen
        price, resting = float(simulation.demands.joule_price[0]), device.resting
        outcome, _ = simulation.step(Sends().predict(simulation.observation()))
        awake = bool(seen.awake_s[0] > 0.0) and not resting
        joules = float(outcome.device_j[0] + outcome.radio_j[0])
        device.settled(float(outcome.utility[0]), joules, price, float(seen.slow_down[0]), awake)
        assert simulation.rest is not None
        assert np.array(device.rest) == pytest.approx(np.array(simulation.rest))
        changes += device.resting != resting
    assert changes >= 3


def test_a_fork_goes_on_resting_and_a_new_episode_does_not() -> None:
    simulation = simulated(2, (Demand(fps=5.0, deadline_s=0.2, max_watts=4.0),))
    while simulation.rest is not None and not simulation.rest.resting.any():
        simulation.step(Sends().predict(simulation.observation()))
    assert simulation.rest is not None
    fork = simulation.forked(np.array([1, 1, 0]))
    assert fork.rest is not None
    assert fork.rest.left_s.tolist() == simulation.rest.left_s[[1, 1, 0]].tolist()
    simulation.reset(np.array([1]))
    assert simulation.rest.left_s[1] == 0.0
    assert simulation.rest.enough_s[1] == PATIENCE_S
