"""A device's account under budgets: what its frames have spent so far, and the prices that follow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.envs.budget.prices import WITHIN, Budgets, Ledger, Prices
from tidesplit.envs.world.vocabulary import Demand, gb_per_month


class Spending(NamedTuple):
    """The account after a frame: prices of the next one, and means since the start."""

    joule_price: float  # utility; 0 without a budget of energy
    byte_price: float  # utility; 0 without a budget of data
    watts: float | None  # of device and radio; None where they are not known
    gb_month: float  # all bytes sent, those of probes too

    def energy(self, demand: Demand) -> str:
        """The watts beside their budget, for the user. Empty without one."""
        if demand.max_watts is None or self.watts is None:
            return ""
        return f"{self.watts:.2f} W of {demand.max_watts:g} W: {_met(self.watts, demand.max_watts)}"

    def data(self, demand: Demand) -> str:
        """The GB a month beside their budget, for the user. Empty without one."""
        if (most := demand.max_gb_month) is None:
            return ""
        return f"{self.gb_month:.2f} GB of {most:g} GB a month: {_met(self.gb_month, most)}"


def _met(spent: float, most: float) -> str:
    return "met" if spent <= WITHIN * most else "over"


class Account:
    """Books frames one by one, each with one frame period. ``first_prices``: of a joule and of a byte."""

    def __init__(self, demand: Demand, first_prices: tuple[float, float]) -> None:
        self._budgets, self._first = Budgets.of(demand), Prices.of(*first_prices)
        self._period_s, self._ledger = np.array([demand.period_s]), Ledger.empty(1)
        self._frames, self._joules, self._sent_bytes = 0, 0.0, 0.0
        self._known = True  # True while every frame's joules were known
        self.prices = self._prices_now()

    @classmethod
    def of(cls, demand: Demand, first_prices: tuple[float, float]) -> Account | None:
        """The account of this demand. None without a budget."""
        return cls(demand, first_prices) if demand.budgeted else None

    def book(self, joules: float | None, sent_bytes: float) -> Spending:
        """Take what a frame has spent. ``joules``: of device and radio, idle time included; None: not known."""
        spent, self._known = joules or 0.0, self._known and joules is not None
        self._frames += 1
        self._joules += spent
        self._sent_bytes += sent_bytes
        self._ledger = self._ledger.after(np.array([spent]), np.array([sent_bytes]), self._period_s, self._budgets)
        self.prices = self._prices_now()
        period_s = float(self._period_s[0])
        watts = self._joules / self._frames / period_s if self._known else None
        return Spending(*self.prices, watts, gb_per_month(self._sent_bytes / self._frames, period_s))

    def _prices_now(self) -> tuple[float, float]:
        joule, byte = self._ledger.prices(self._first, self._budgets)
        return float(joule[0]), float(byte[0])
