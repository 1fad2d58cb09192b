"""A device's account: the simulator's ledger for one lane, and means for the user."""

from __future__ import annotations

import numpy as np
import pytest

from tidesplit.envs.budget.account import Account
from tidesplit.envs.budget.prices import Budgets, Ledger, Prices
from tidesplit.envs.world.vocabulary import MONTH_S, Demand

FIRST = (3.0, 1e-4)
BOTH = Demand(fps=10.0, max_watts=4.0, max_gb_month=1000.0 * MONTH_S / 1e9)  # 0.4 J and 100 bytes a frame


def test_prices_move_as_the_simulators_do() -> None:
    account, ledger = Account(BOTH, FIRST), Ledger.empty(1)
    assert account.prices == FIRST
    for joules, sent in [(0.5, 0.0), (0.3, 900.0), (0.45, 50.0)] * 40:
        spent = account.book(joules, sent)
        ledger = ledger.after(np.array([joules]), np.array([sent]), np.array([BOTH.period_s]), Budgets.of(BOTH))
    expected = ledger.prices(Prices.of(*FIRST), Budgets.of(BOTH))
    assert account.prices == spent[:2] == (expected.joule[0], expected.byte[0])


def test_means_stand_beside_their_budgets() -> None:
    account = Account(BOTH, FIRST)
    account.book(0.3, 150.0)
    spent = account.book(0.5, 100.0)
    assert (spent.watts, spent.gb_month) == pytest.approx((4.0, 1.25 * BOTH.max_gb_month))  # type: ignore[operator]
    assert (spent.energy(BOTH), spent.data(BOTH)) == ("4.00 W of 4 W: met", "3.24 GB of 2.592 GB a month: over")
    assert (spent.energy(Demand()), spent.data(Demand())) == ("", "")


def test_a_budget_of_data_needs_no_watts() -> None:
    account = Account(Demand(max_gb_month=10.0), FIRST)
    assert account.book(None, 100.0).watts is None
    assert account.prices[0] == 0.0
    assert Account.of(Demand(), FIRST) is None
