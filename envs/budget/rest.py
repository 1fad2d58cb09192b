"""A radio that rests: where it has brought nothing for long under a budget of energy, the device sends nothing.

A radio stays awake for seconds after each message. No single message is to blame for that, so a controller that weighs
frame by frame keeps it awake on a bad link, and what it sends may bring nothing. What counts is a stretch of time. A
frame's *lead* is its utility less half the price of its energy, less what the best net on the device has by itself.
Once the mean lead of a long stretch is below a margin, the radio rests for as long as pays. Nobody knows for how long a
link stays bad, so this is the question of renting or buying (Karlin, Manasse, McGeoch, Owicki, Algorithmica 1994).
Then a short trial shows if the link is better. Where it is not, the next rest is longer.

Only frames whose decision found the radio awake count, and times are counted in frames.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.vocabulary import Bools, Demands, Floats, Utility
from tidesplit.profiling.points.table import PointTable

PATIENCE_S = 45.0
"""Time with the radio awake that is judged. Gaps of LTE are shorter; bad stretches of 5G on the road last minutes."""
LEAST = -0.02  # mean lead below which the radio rests
SHARE = 0.5
"""Of a joule's price in a frame's lead. Who rests for too long loses a good link, who does not only some watts."""
REST_S, LONGEST_REST_S = 30.0, 60.0  # it doubles where a trial shows nothing better
TRIAL_S = 4.0  # time with the radio awake that is judged after a rest


class Rest(NamedTuple):
    """What the radio of each lane brings, and for how long it rests, columns ``[B]``, seconds."""

    lead: Floats  # mean over the stretch that is being judged; forgets with the time constant `PATIENCE_S`
    judged_s: Floats  # length of that stretch, with the radio awake
    enough_s: Floats  # length at which it says enough
    left_s: Floats  # of the rest under way; 0: none
    next_s: Floats  # length of the next rest

    @classmethod
    def none(cls, lanes: int) -> Rest:
        """No rest, and nothing known."""
        zero = np.zeros(lanes)
        return cls(zero, zero.copy(), zero + PATIENCE_S, zero.copy(), zero + REST_S)

    @property
    def resting(self) -> Bools:
        """True in lanes that send nothing, ``[B]``."""
        return np.asarray(self.left_s > 0.0)

    def after(self, lead: Floats, awake: Bools, period_s: Floats) -> Rest:
        """After a frame period with this lead. ``awake``: its decision found the radio awake. All ``[B]``."""
        counts = awake & ~self.resting
        judged_s = self.judged_s + np.where(counts, period_s, 0.0)
        share = np.where(counts, period_s / np.clip(judged_s, period_s, PATIENCE_S), 0.0)
        mean = self.lead + share * (lead - self.lead)
        told = counts & (judged_s >= self.enough_s - 0.5 * period_s)
        good, bad = told & (mean >= LEAST), told & (mean < LEAST)
        return Rest(
            lead=np.where(bad, 0.0, mean),
            judged_s=np.where(bad, 0.0, judged_s),
            enough_s=np.where(bad, TRIAL_S, np.where(good, PATIENCE_S, self.enough_s)),
            left_s=np.where(bad, self.next_s, np.maximum(self.left_s - period_s, 0.0)),
            next_s=np.where(bad, np.minimum(2.0 * self.next_s, LONGEST_REST_S), np.where(good, REST_S, self.next_s)),
        )


def lead_of(
    utility: Floats | float,
    joules: Floats | float,
    table: PointTable,
    demands: Demands,
    slow_down: Floats,
    prices: tuple[Floats, Floats],
    own: Utility | None = None,
) -> Floats:
    """A frame's lead ``[B]``, from its utility and the joules of its period, idle time included.

    ``prices``: of a joule, at the frame and to begin with. The lower one counts: where a budget cannot hold, prices
    rise beyond all that sending could bring. ``slow_down`` and ``own``: as `by_itself` has them.
    """
    price = SHARE * np.minimum(*prices)
    used_j = joules - table.machine.idle_w * demands.period_s
    return np.asarray(utility - price * used_j - by_itself(table, demands, slow_down, price, own))


def by_itself(
    table: PointTable, demands: Demands, slow_down: Floats, joule_price: Floats, own: Utility | None = None
) -> Floats:
    """Utility of a frame less the price of its energy above idle, ``[B]``, of the best net on the device by itself.

    A net that is slower than the camera answers as many frames as it can. ``slow_down``: factor on the table's times.
    ``own``: a utility of the user's own.
    """
    best, machine = np.zeros_like(demands.period_s), table.machine
    for row in np.flatnonzero(table.local.reshape(-1, table.size)[0]):  # the same in all lanes
        head_s = table.head_s[..., row] * slow_down
        share = np.minimum(1.0, demands.period_s / head_s)
        utility = demands.utility(table.accuracy[..., row] + np.zeros_like(best), head_s, own)
        in_time = head_s <= demands.deadline_s  # others are dropped before they begin
        joules = np.where(in_time, head_s * machine.run_w, 0.0)
        best = np.maximum(best, share * (utility - joule_price * joules))
    return best
