"""Prices that move with what is overspent, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tidesplit.envs.budget.prices import CALM_S, CREDIT_S, HIGHEST_PRICES, Budgets, Ledger, PriceDraw, Prices
from tidesplit.envs.world.vocabulary import MONTH_S, Demand

RATE = 1000.0  # bytes a second
BUDGETS = Budgets.of(Demand(max_watts=4.0), Demand(max_gb_month=RATE * MONTH_S / 1e9), Demand())
FIRST = Prices.of(3.0, 1e-4, lanes=3)


def after(seconds: int, watts: float, byte_rate: float) -> Ledger:
    """The ledger of three lanes, one with each budget and one without, after so many periods of one second."""
    ledger = Ledger.empty(3)
    for _ in range(seconds):
        ledger = ledger.after(np.full(3, watts), np.full(3, byte_rate), np.ones(3), BUDGETS)
    return ledger


def test_a_price_rises_by_the_factor_e_for_some_seconds_of_budget_overspent() -> None:
    """Eight seconds at twice the budget overspend eight seconds of it."""
    prices = after(round(CALM_S), watts=8.0, byte_rate=2 * RATE).prices(FIRST, BUDGETS)
    assert prices.joule == pytest.approx([3.0 * math.e, 0.0, 0.0])
    assert prices.byte == pytest.approx([0.0, 1e-4 * math.e, 0.0])


def test_who_spends_as_much_as_allowed_keeps_the_price() -> None:
    prices = after(100, watts=4.0, byte_rate=RATE).prices(FIRST, BUDGETS)
    assert (prices.joule[0], prices.byte[1]) == pytest.approx((3.0, 1e-4))


def test_only_a_minute_of_budget_is_saved_for_later() -> None:
    ledger = after(1000, watts=0.0, byte_rate=0.0)
    assert (ledger.joules_s.tolist(), ledger.bytes_s.tolist()) == ([-CREDIT_S, 0.0, 0.0], [0.0, -CREDIT_S, 0.0])
    assert ledger.prices(FIRST, BUDGETS).joule[0] == pytest.approx(3.0 * math.exp(-CREDIT_S / CALM_S))


def test_a_budget_that_cannot_hold_ends_at_the_highest_prices() -> None:
    prices = after(10_000, watts=400.0, byte_rate=1e9).prices(FIRST, BUDGETS)
    assert (prices.joule[0], prices.byte[1]) == HIGHEST_PRICES


def test_an_hour_overspent_is_forgotten_in_two_minutes_that_spend_nothing() -> None:
    ledger = after(3600 * 30, watts=40.0, byte_rate=0.0)
    assert ledger.joules_s[0] == CREDIT_S
    for _ in range(120 * 30):
        ledger = ledger.after(np.zeros(3), np.zeros(3), np.full(3, 1 / 30), BUDGETS)
    assert ledger.joules_s[0] == pytest.approx(-CREDIT_S)


def test_drawn_prices_lie_about_the_usual_ones_and_are_free_at_times() -> None:
    rng = np.random.default_rng(0)
    draws = [PriceDraw(Prices.of(3.0, 1e-4), spread=4.0, free=0.25).draw(BUDGETS, rng) for _ in range(400)]
    joule = np.array([prices.joule[0] for prices in draws])
    assert np.count_nonzero(joule == 0.0) == pytest.approx(100, abs=40)
    paid = joule[joule > 0.0]
    assert (0.75 < paid.min() < 0.9, 10.0 < paid.max() < 12.0) == (True, True)
    assert not any(prices.joule[1:].any() or prices.byte[[0, 2]].any() for prices in draws)  # no budget, no price
    fixed = PriceDraw(Prices.of(3.0, 1e-4), spread=1.0, free=0.0).draw(BUDGETS, rng)
    assert (fixed.joule[0], fixed.byte[1]) == (3.0, 1e-4)
