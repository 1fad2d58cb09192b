"""Prices of a joule and of a byte, moved so that budgets are met in the mean over minutes.

A controller takes prices as they are and weighs them against utility. This is the dual of "as much utility as possible
within so many watts and bytes a second", solved by dual mirror descent with the entropy as its mirror map (Balseiro,
Lu, Mirrokni, Operations Research 2023). For every second of the budget that was overspent, a price is multiplied by the
same factor, so that no scale has to be known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.vocabulary import Demand, Floats, byte_rate_of

CALM_S = 8.0
"""Seconds of a budget overspent by which a price rises by the factor e. Much shorter, it would follow the link, and be
high just when a joule is worth most. Much longer, ten minutes would not be enough to meet a budget."""
CREDIT_S = 60.0
"""Seconds of an unspent budget that can be spent later, and of an overspent one that are made good. More are lost."""
USUAL_PRICES = (3.0, 1e-4)
"""Utility of a joule and of a byte to begin with where no training has found better ones."""
WITHIN = 1.02
"""A budget is met where it is overspent by no more than this factor."""
HIGHEST_PRICES = (20.0, 1e-2)
"""Utility of a joule and of a byte beyond which prices do not rise. EfficientNet-Lite0's quickest net on a Pi 4 then
costs more than its answer is worth, and so does a message of 100 bytes. Higher prices could only make a controller give
up more frames, in the name of a budget that does not hold."""


class Prices(NamedTuple):
    """Utility that a joule and a byte cost, columns ``[B]``."""

    joule: Floats
    byte: Floats

    @classmethod
    def of(cls, joule: float, byte: float, lanes: int = 1) -> Prices:
        """The same prices in every lane."""
        return cls(np.full(lanes, joule), np.full(lanes, byte))


class Budgets(NamedTuple):
    """Most joules and bytes a second, ``[B]``. Infinity where there is no budget."""

    watts: Floats
    byte_rate: Floats

    @classmethod
    def of(cls, *demands: Demand) -> Budgets:
        """The budgets of these demands, one lane each."""
        return cls(
            np.array([np.inf if d.max_watts is None else d.max_watts for d in demands]),
            np.array([np.inf if d.max_gb_month is None else byte_rate_of(d.max_gb_month) for d in demands]),
        )


class Ledger(NamedTuple):
    """What is overspent, as seconds of the budget, ``[B]``. Below 0 something is left."""

    joules_s: Floats
    bytes_s: Floats

    @classmethod
    def empty(cls, lanes: int) -> Ledger:
        """Nothing spent."""
        return cls(np.zeros(lanes), np.zeros(lanes))

    def after(self, joules: Floats, sent_bytes: Floats, period_s: Floats, budgets: Budgets) -> Ledger:
        """The ledger after a frame period in which so much was spent, ``[B]``. Without a budget nothing is booked."""
        booked = (
            np.clip(debt_s + np.where(np.isfinite(rate), spent / rate - period_s, 0.0), -CREDIT_S, CREDIT_S)
            for debt_s, spent, rate in zip(self, (joules, sent_bytes), budgets, strict=True)
        )
        return Ledger(*booked)

    def prices(self, first: Prices, budgets: Budgets) -> Prices:
        """The prices now, from those to begin with, at most `HIGHEST_PRICES`. 0 without a budget."""
        moved = (
            np.where(np.isfinite(rate), np.minimum(price * np.exp(debt_s / CALM_S), highest), 0.0)
            for debt_s, price, rate, highest in zip(self, first, budgets, HIGHEST_PRICES, strict=True)
        )
        return Prices(*moved)


class PriceDraw(NamedTuple):
    """Prices to train with: each episode draws its own, log-uniform within a factor ``spread`` of ``usual``."""

    usual: Prices
    spread: float = 4.0
    free: float = 0.1  # share of the episodes in which a joule costs nothing, and of those in which a byte does

    def draw(self, budgets: Budgets, rng: np.random.Generator) -> Prices:
        """Prices of one episode. 0 without a budget."""
        shift = np.log(self.spread) * rng.uniform(-1.0, 1.0, 2)
        costs = rng.random(2) >= self.free
        drawn = (
            np.where(np.isfinite(rate) & cost, price * np.exp(by), 0.0)
            for price, rate, by, cost in zip(self.usual, budgets, shift, costs, strict=True)
        )
        return Prices(*drawn)
