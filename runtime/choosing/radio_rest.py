"""The rest of one device's radio: `envs.budget.rest` for one lane, fed by frames that have ended."""

from __future__ import annotations

import numpy as np

from tidesplit.envs.budget.rest import Rest, lead_of
from tidesplit.envs.world.vocabulary import Demand, Demands
from tidesplit.profiling.points.table import PointTable


class RadioRest:
    """Says when the device sends nothing. ``first_price``: of a joule to begin with; a higher one does not count."""

    def __init__(self, table: PointTable, demand: Demand, first_price: float) -> None:
        self._table, self._demands, self._first_price = table, Demands.of(demand), np.array([first_price])
        self.rest = Rest.none(1)  # so far

    @classmethod
    def of(cls, table: PointTable, demand: Demand, first_price: float) -> RadioRest | None:
        """The rest of this device. None without a budget of energy."""
        return None if demand.max_watts is None else cls(table, demand, first_price)

    @property
    def resting(self) -> bool:
        """True while nothing is sent."""
        return bool(self.rest.left_s[0] > 0.0)

    def settled(self, utility: float, joules: float, joule_price: float, slow_down: float, awake: bool) -> None:
        """A frame has ended.

        ``joules``: since the frame before, idle time included. ``joule_price`` and ``slow_down``: at the frame's
        decision. ``awake``: the radio was awake then, and did not rest. Only such frames count.
        """
        lead = np.zeros(1)
        if awake:
            prices = np.array([joule_price]), self._first_price
            lead = lead_of(utility, joules, self._table, self._demands, np.array([slow_down]), prices)
        self.rest = self.rest.after(lead, np.array([awake]), self._demands.period_s)
