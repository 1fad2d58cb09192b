"""Episodes under budgets: what frames cost, and that moving prices meet the budgets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.envs.small import CUT, IMAGE, LOCAL, TABLE, WORLD
from tidesplit.agents.judging.budgeted import at_prices, statics
from tidesplit.agents.judging.ladder import Tuning, means_of
from tidesplit.agents.rules.family import Family, Spent
from tidesplit.envs.budget.prices import Prices
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.vocabulary import MONTH_S, Demand, Floats
from tidesplit.profiling.points.table import Machine

MINUTES_S, FPS = 600.0, 2.0
FLAT = Trace("flat", np.zeros(1), 2 * MINUTES_S, np.array([8e5]))
POWERED = replace(TABLE, machine=Machine(idle_w=2.0, busy_w=5.0, threads=4))
FREE = Scenario(traces=(FLAT,), demands=(Demand(fps=FPS, deadline_s=0.2),), table=POWERED, world=WORLD)


def lanes(scenario: Scenario, count: int) -> Simulation:
    return Simulation(scenario, [np.random.default_rng(lane) for lane in range(count)])


@pytest.fixture(scope="module")
def spent() -> Spent:
    return means_of(statics(POWERED), FREE, Tuning(lanes=1, episode_s=20.0))


def test_a_family_of_two_points_meets_a_budget_between_them_within_two_percent(spent: Spent) -> None:
    """Some lanes have a budget of energy, the others one of data."""
    pair = np.array([IMAGE, LOCAL])
    two = Family(name="two", settings=[statics(POWERED)[row] for row in pair], spent=Spent(*(c[pair] for c in spent)))
    watts, rate = (float(FPS * column[pair].mean()) for column in spent[1:])
    demands = (
        Demand(fps=FPS, deadline_s=0.2, max_watts=watts),
        Demand(fps=FPS, deadline_s=0.2, max_gb_month=rate * MONTH_S / 1e9),
    )
    played = lanes(replace(FREE, demands=demands, episode_s=MINUTES_S), 4)
    joules, sent = np.zeros(4), np.zeros(4)
    for _ in range(round(MINUTES_S * FPS)):
        outcome, _ = played.step(two.predict(played.observation()))
        joules += outcome.device_j + outcome.radio_j
        sent += outcome.hops[0].sent_bytes
    of_energy = np.isfinite(played.budgets.watts)
    assert 0 < np.count_nonzero(of_energy) < 4
    assert joules[of_energy] / MINUTES_S == pytest.approx(watts, rel=0.02)
    assert sent[~of_energy] / MINUTES_S == pytest.approx(rate, rel=0.02)


def test_costs_add_up_to_the_price_of_what_was_drawn() -> None:
    """Of the radio's tail only what has passed, and nothing of what was drawn while it was idle."""
    asked = replace(FREE, demands=(Demand(fps=FPS, deadline_s=0.2, max_watts=3.0, max_gb_month=1.0),), episode_s=10.0)
    played, (joule, byte) = lanes(at_prices(asked, Prices.of(2.0, 1e-4)), 1), (2.0, 1e-4)

    def awake_s() -> Floats:
        return np.asarray(np.maximum(played.queues.hops[0].awake_s - played.frame / FPS, 0.0))

    before_s, cost, joules, sent = awake_s(), 0.0, 0.0, 0.0
    for row in [IMAGE, LOCAL, CUT, LOCAL, LOCAL, IMAGE]:
        outcome, _ = played.step(np.array([row]))
        cost += float(outcome.cost[0])
        joules += float(outcome.device_j[0] + outcome.radio_j[0]) - POWERED.machine.idle_w / FPS
        sent += float(outcome.hops[0].sent_bytes[0])
    left_j = WORLD.radio.tail_w * float((awake_s() - before_s)[0])
    assert abs(left_j) > 0.1
    assert sent == 4000 + 1000 + 4000
    assert cost == pytest.approx(joule * (joules - left_j) + byte * sent)


def test_the_forecast_of_a_points_cost_is_what_it_costs_in_the_long_run() -> None:
    asked = replace(FREE, demands=(Demand(fps=FPS, deadline_s=0.2, max_watts=3.0, max_gb_month=1.0),), episode_s=10.0)
    played, rows = lanes(at_prices(asked, Prices.of(2.0, 1e-4)), 3), np.array([IMAGE, CUT, LOCAL])
    for _ in range(40):
        foreseen = played.observation().foreseen.cost[np.arange(3), rows]
        outcome, _ = played.step(rows)
    assert (outcome.cost > 0.05).all()
    assert foreseen[:2] == pytest.approx(outcome.cost[:2], rel=0.01)
    assert foreseen[LOCAL] == pytest.approx(2.0 * 3.0 * 0.050)


def test_without_a_budget_nothing_costs_anything() -> None:
    played = lanes(replace(FREE, episode_s=2.0), 1)
    played.begin_with(Prices.of(5.0, 1e-3))
    observation = played.observation()
    outcome, _ = played.step(np.array([IMAGE]))
    assert (outcome.cost[0], observation.seen.joule_price[0], observation.seen.byte_price[0]) == (0.0, 0.0, 0.0)
    assert not observation.foreseen.cost.any()


def test_prices_begin_where_they_are_told_and_again_with_each_episode() -> None:
    played = lanes(replace(FREE, demands=(Demand(fps=FPS, deadline_s=0.2, max_watts=2.5),), episode_s=2.0), 2)
    played.begin_with(Prices.of(5.0, 1e-3))
    assert played.observation().seen.joule_price.tolist() == [5.0, 5.0]
    for _ in range(9):
        played.step(np.array([IMAGE, LOCAL]))
    assert played.observation().seen.joule_price[0] > 5.0
    assert played.observation().seen.byte_price.tolist() == [0.0, 0.0]
    played.reset(np.array([0]))
    assert played.observation().seen.joule_price[0] == 5.0
