"""The belief about the device's slow-down: the factor of its compute times on those of its table.

A run takes a fixed cost and its table's time multiplied by the slow-down. Both are medians over several runs, so that a
hiccup of one run changes nothing. A belief that no run confirms fades, because only a run could correct it.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median_low

__all__ = ["DRAWN", "SlowDown"]

ENOUGH_S = 0.003  # the excess of a shorter run is fixed cost and scheduling noise, and no news of the slow-down
# Heat makes a device slower by up to 1.5 in the world, and jitter spreads a run's time by 15 to 21 %. Medians beyond
# this range are so rare there that no policy was trained for them.
DRAWN = (0.7, 2.0)
RUNS = 5  # their median bears two hiccups
PRIOR = 2  # runs at the table's own time that stand for those that were not made yet
LONG_RUNS = 30  # a factor beyond `DRAWN` is believed once three quarters of so many runs agree on it
LONGEST_FIXED_S = 0.010  # a cost above it is no cost of a call
FRESH_S = 1.0  # age up to which the newest run counts in full
FADE_S = 1.0  # after that the belief approaches 1 by the factor e in this time


class SlowDown:
    """Takes the expected and the actual time of each run. Moments are seconds on the caller's clock."""

    def __init__(self) -> None:
        self._ratios: deque[float] = deque([1.0] * PRIOR, maxlen=LONG_RUNS)
        self._excesses: deque[float] = deque([0.0] * PRIOR, maxlen=RUNS)
        self._newest_s = -math.inf

    @property
    def fixed_s(self) -> float:
        """Believed fixed cost of a run, the median excess of the last short ones."""
        return min(max(median_low(self._excesses), 0.0), LONGEST_FIXED_S)

    def ran(self, now_s: float, expected_s: float, actual_s: float) -> None:
        """Take a run that ended at `now_s`. `expected_s` is its time in the table."""
        if expected_s < ENOUGH_S:
            self._excesses.append(actual_s - expected_s)
            return
        self._ratios.append(max(actual_s - self.fixed_s, 0.0) / expected_s)
        self._newest_s = now_s

    def at(self, now_s: float) -> float:
        """The believed factor at `now_s`."""
        low, high = self._bounds()
        believed = min(max(median_low(list(self._ratios)[-RUNS:]), low), high)
        age_s = max(now_s - self._newest_s - FRESH_S, 0.0)
        return 1.0 + (believed - 1.0) * math.exp(-age_s / FADE_S)

    def _bounds(self) -> tuple[float, float]:
        """Lowest and highest factor that may be believed: those of the world, or what many runs agree on."""
        low, high = DRAWN
        if len(self._ratios) < LONG_RUNS:
            return low, high
        ordered = sorted(self._ratios)
        return min(low, ordered[3 * LONG_RUNS // 4]), max(high, ordered[LONG_RUNS // 4])
