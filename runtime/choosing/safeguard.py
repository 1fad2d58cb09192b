"""The safeguard: a rule decides where the policy's frames keep failing, and frames run where none brings news.

A belief that only a run or an answer can correct would otherwise lock the device: the policy decides by the belief,
and its decisions bring nothing that could correct it. All here is values, without socket, clock or thread.
"""

from __future__ import annotations

import numpy as np

from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Floats, Transfers
from tidesplit.runtime.choosing.device_situation import DeviceSituation
from tidesplit.runtime.choosing.slow_down import DRAWN

__all__ = ["Safeguard", "as_drawn", "quickest", "rule", "undrawn"]

DROPS = 3  # frames in a row without news, after which one is taken on purpose
# Misses in a row after which the rule decides: ten, or fewer at a low frame rate.
MISSES, FEWEST, MISSES_S = 10, 3, 0.5
# Time for which the rule decides, or three frames if that is longer. It doubles while the policy fails again at once.
RULE_S, LONGEST_RULE_S, RULE_FRAMES = 1.0, 16.0, 3
# Waits at a busy server are exponential in the world. One in a thousand is longer than seven times their mean.
WAITS = 7.0
WAIT_S = Transfers._fields.index("wait_s")


def quickest(observation: Observation) -> int:
    """Row of the allowed point with the lowest forecast. Forecasts end at ten seconds; there, fewer bytes win."""
    return int(np.lexsort((observation.foreseen.payload[0], _latency(observation)))[0])


def rule(observation: Observation, demand: Demand, guard_s: float) -> int:
    """Row of the most accurate allowed point whose forecast meets the deadline, else of the quickest.

    Of points that are as accurate a race is taken, because it needs no true forecast. The objective "latency" always
    takes the quickest.
    """
    latency_s = _latency(observation)
    fits = latency_s <= demand.deadline_s - guard_s
    if demand.objective == "latency" or not fits.any():
        return quickest(observation)
    accuracy = np.where(fits, observation.foreseen.accuracy[0], -np.inf)
    return int(np.lexsort((latency_s, -observation.foreseen.races[0], -accuracy))[0])


def _latency(observation: Observation) -> Floats:
    """Forecast latency of each point `[A]`, infinity where it is not allowed."""
    allowed = observation.mask[0] if observation.mask[0].any() else ~observation.mask[0]
    latency_s = np.nan_to_num(observation.foreseen.latency_s[0].astype(np.float64), nan=np.inf)
    return np.where(allowed, latency_s, np.inf)


def as_drawn(situation: DeviceSituation, world: World) -> DeviceSituation:
    """The situation within the range that training draws: the policy has never seen another one."""
    longest_s, (low, high) = WAITS * world.busy_wait_s, DRAWN
    waits = max(row[WAIT_S] for rows in situation.messages for row in rows) <= longest_s
    if waits and situation.heat_c >= world.coolest_c and low <= situation.slow_down <= high:
        return situation
    return situation._replace(
        messages=tuple(
            [(*row[:WAIT_S], min(row[WAIT_S], longest_s), *row[WAIT_S + 1 :]) for row in rows]
            for rows in situation.messages
        ),
        slow_down=min(max(situation.slow_down, low), high),
        heat_c=max(situation.heat_c, world.coolest_c),
    )


def undrawn(believed: Observation, given: Observation) -> dict[str, float]:
    """Believed values, by name, that the policy was given within the range of training."""
    names = ("slow_down", "server_wait_s", "heat_c")
    pairs = ((name, getattr(believed.seen, name)[0], getattr(given.seen, name)[0]) for name in names)
    return {name: float(value) for name, value, limited in pairs if value != limited}


class Safeguard:
    """Counts frames without news and missed frames, and says who decides."""

    def __init__(self, period_s: float) -> None:
        self._misses_allowed = max(FEWEST, min(MISSES, int(MISSES_S / period_s)))
        self._drops = self._misses = 0
        self._surprised = False  # True where the last frame that the policy did not decide was answered
        self._rule_s = self._shortest_s = max(RULE_S, RULE_FRAMES * period_s)
        self._until_s = -np.inf

    def rules(self, now_s: float) -> bool:
        """True while the rule decides."""
        return now_s < self._until_s

    def starved(self) -> bool:
        """True where a frame should run although it seems too late.

        The last ones brought no news, or one that ran nevertheless was answered: then what says so is wrong.
        """
        return self._drops >= DROPS or self._surprised

    def dropped(self) -> None:
        """A frame was dropped. It brought no news."""
        self._drops += 1

    def ran(self, by_rule: bool = False) -> None:
        """A frame ran or was sent."""
        self._drops, self._surprised = 0, self._surprised and by_rule

    def settled(self, now_s: float, decided_at_s: float, by_rule: bool, missed: bool) -> None:
        """A frame ended. Frames that the policy decided before the rule's time do not count in the next one."""
        if by_rule:
            self._surprised = not missed
        if by_rule and missed:
            self._rule_s = self._shortest_s  # nobody could answer: the policy is not to blame
        if by_rule or decided_at_s < self._until_s:
            return
        if not missed:
            self._misses, self._rule_s = 0, self._shortest_s
            return
        self._misses += 1
        if self._misses >= self._misses_allowed:
            self._misses, self._until_s = 0, now_s + self._rule_s
            self._rule_s = min(2.0 * self._rule_s, max(LONGEST_RULE_S, self._shortest_s))
