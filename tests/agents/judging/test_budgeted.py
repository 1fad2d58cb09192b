"""Prices to begin with, and who meets a budget, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.agents.small import BUMPY, scenario
from tidesplit.agents.judging.budgeted import (
    MIXTURE,
    THRESHOLD,
    Budgeted,
    affordable,
    mixture_utility,
    thresholds,
    usual_prices,
    within,
)
from tidesplit.agents.judging.ladder import FAMILIES, Tuning, tuned_rules
from tidesplit.agents.rules.family import Family, Setting, Spent
from tidesplit.envs.budget.prices import Prices
from tidesplit.envs.world.vocabulary import MONTH_S, Demand

FPS = 10.0
SPENT = Spent(np.array([0.9, 0.6]), np.array([0.2, 0.1]), np.array([2000.0, 1000.0]))  # 2 and 1 W, 20 and 10 kB/s
HALF_WAY = {"watts": Demand(fps=FPS, max_watts=1.5), "bytes": Demand(fps=FPS, max_gb_month=15e3 * MONTH_S / 1e9)}


@pytest.mark.parametrize("budget", HALF_WAY)
def test_the_best_mixture_of_two_points_is_the_linear_programmes(budget: str) -> None:
    """Half of the frames each: 0.75. The price is what the richer point gains for each joule or byte more."""
    prices = usual_prices(SPENT, HALF_WAY[budget])
    expected = (3.0, 0.0) if budget == "watts" else (0.0, 3e-4)
    assert (prices.joule[0], prices.byte[0]) == pytest.approx(expected, rel=0.2)  # steps of the grid
    assert mixture_utility(SPENT, HALF_WAY[budget]) == pytest.approx(0.75, abs=0.02)


def test_a_budget_that_binds_nobody_has_the_least_price_and_no_loss() -> None:
    rich = Demand(fps=FPS, max_watts=20.0)
    assert usual_prices(SPENT, rich).joule[0] == pytest.approx(0.05)
    assert mixture_utility(SPENT, Demand(fps=FPS)) == 0.9


def test_who_can_afford_what() -> None:
    assert affordable(SPENT, HALF_WAY["watts"]).tolist() == [False, True]
    assert affordable(SPENT, HALF_WAY["bytes"]).tolist() == [False, True]
    assert affordable(SPENT, Demand(fps=FPS)).tolist() == [True, True]
    demand = Demand(max_watts=2.0, max_gb_month=10.0)
    assert [within(*spent, demand) for spent in ((2.03, 10.1), (2.05, 1.0), (1.0, 10.3))] == [True, False, False]
    assert within(1e3, 1e3, Demand())


def test_threshold_rules_are_tried_after_the_points_and_race_their_own_picture() -> None:
    table = scenario(BUMPY).table
    found = thresholds(table, Spent(table.accuracy, *np.zeros((2, table.size))), Prices.of(1.0, 1e-4))
    assert found[: table.size] == [Setting(row, row, row) for row in range(table.size)]
    rules = found[table.size :]
    by_themselves = [rule for rule in rules if rule.offload == rule.local]
    assert all(table.races[rule.race] for rule in rules if rule not in by_themselves)
    in_turns = [rule for rule in rules if np.isfinite(rule.spare_s)]
    assert all(table.local[rule.wide_local] for rule in in_turns)
    of_nets = [rule for rule in in_turns if table.local[rule.local]]  # the wider net is the more accurate one
    assert all(table.accuracy[rule.wide_local] >= table.accuracy[rule.local] for rule in of_nets)
    assert all(rule.wide_local != rule.local for rule in by_themselves)


def test_every_net_is_tried_while_there_is_time_and_sending_else() -> None:
    """A device whose only net is a little too slow for the camera sends one frame in some."""
    table = scenario(BUMPY).table
    found = thresholds(table, Spent(table.accuracy, *np.zeros((2, table.size))), Prices.of(1.0, 1e-4))
    relieved = [rule for rule in found if np.isfinite(rule.spare_s) and not table.local[rule.local]]
    relieved = [rule for rule in relieved if rule.offload == rule.race == rule.local]
    assert {rule.wide_local for rule in relieved} == set(np.flatnonzero(table.local))
    assert any(table.races[rule.local] for rule in relieved)
    assert any(not table.races[rule.local] for rule in relieved)


def test_the_best_net_also_takes_turns_with_the_next_narrower_one() -> None:
    """A device that gets hot needs both, whichever is the best by itself."""
    table = scenario(BUMPY).table
    nets = np.flatnonzero(table.local)[np.argsort(table.accuracy[table.local])].tolist()
    worth = np.where(np.arange(table.size) == nets[1], 1.0, 0.0)
    found = thresholds(table, Spent(worth, *np.zeros((2, table.size))), Prices.of(1.0, 1e-4))[table.size :]
    pairs = {(rule.local, rule.wide_local) for rule in found if np.isfinite(rule.spare_s)}
    assert {(nets[0], nets[1]), (nets[1], nets[2])} <= pairs


def test_rules_for_budgets_are_there_only_under_one() -> None:
    tuning, small = Tuning(lanes=2, episode_s=1.0), scenario(BUMPY)
    assert not set(tuned_rules(small, tuning, FAMILIES))
    rules = tuned_rules(scenario(BUMPY, max_gb_month=50.0), Tuning(lanes=1, episode_s=1.0), [MIXTURE])
    assert isinstance(rules[MIXTURE], Budgeted)
    assert isinstance(rules[MIXTURE].entrant, Family)
    assert rules[MIXTURE].prices[0] == 0.0 < rules[MIXTURE].prices[1]
    assert {MIXTURE, THRESHOLD} == set(FAMILIES)
