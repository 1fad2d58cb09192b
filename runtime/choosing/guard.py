"""The guard: where a policy does worse by sending than the device would alone, one point takes over for some seconds.

A learned policy trusts its forecast. On a link whose gaps nothing announces it sends without a net in hand, and misses.
Simplex architectures (Sha, IEEE Software 2001) put a rule in the place of a controller that fails. Here the sign is the
controller's own record, not a model: a frame's *lead* is its utility less its cost, less what the device alone would
have had. The rule is the point that was best by itself in training, at the present prices: mostly a race, which needs
no forecast. Whether it does better is measured too, so the guard stands down where it does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidesplit.envs.world.fields import POINT_FIELDS, STATE_FIELDS
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Floats, Ints

SENDS = 60
"""Sent frames over which the policy's lead is averaged, for the sign. Three quarters of them are enough."""
BELOW = 0.05  # the sign: so far below the device alone
TURN_S, LONGEST_TURN_S = 4.0, 16.0  # for which the rule decides. It doubles while the rule keeps being better
TRIAL_S = 3.0  # of the policy, between two turns of the rule
REST_S, LONGEST_REST_S = 10.0, 160.0  # without a turn, after one in which the rule was no better; doubles too
ACCURACY, SLACK, COST = (POINT_FIELDS.index(name) for name in ("accuracy", "slack_s", "cost"))
FOR_LATENCY, DEADLINE = (STATE_FIELDS.index(name) for name in ("for_latency", "deadline_s"))
MEMORY_S = 4.0  # over which the policy's lead is averaged, to compare with the rule's


class _Mean:
    """A mean that begins plainly and then forgets, over ``most`` values."""

    def __init__(self, most: float) -> None:
        self.most, self.count, self.value = most, 0, 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.value += (value - self.value) / min(self.count, self.most)

    def restart(self) -> None:
        self.count, self.value = 0, 0.0


class Guard:
    """Says who decides, from the leads of frames that have ended. ``period_s``: from frame to frame."""

    def __init__(self, period_s: float) -> None:
        self._turn, self._longest_turn, self._trial, self._rest, self._longest_rest = (
            max(1, round(seconds / period_s)) for seconds in (TURN_S, LONGEST_TURN_S, TRIAL_S, REST_S, LONGEST_REST_S)
        )
        self._sent, self._policy, self._rule = _Mean(SENDS), _Mean(max(1.0, MEMORY_S / period_s)), _Mean(np.inf)
        self._next_turn, self._next_rest = self._turn, self._rest
        self._left = self._resting = 0  # frames
        self._better: float | None = None  # the rule's lead in its last turn, where it was better

    def rules(self) -> bool:
        """True while the rule decides."""
        return self._left > 0

    def settled(self, lead: float, sent: bool, by_guard: bool) -> None:
        """A frame has ended, with this lead. ``sent``: bytes left the device. ``by_guard``: the rule decided it."""
        if by_guard != self.rules():
            return  # decided before the other's turn
        if by_guard:
            self._ruled(lead)
            return
        self._policy.add(lead)
        self._resting = max(0, self._resting - 1)
        if sent:
            self._sent.add(lead)
        if self._policy.count < self._trial or self._resting:
            return
        if self._better is None:
            fails = self._sent.count >= 0.75 * SENDS and self._sent.value < -BELOW
        else:
            fails = self._policy.value < self._better
        if fails:
            self._left = self._next_turn
            self._sent.restart()
            self._rule.restart()
        else:
            self._better, self._next_turn = None, self._turn

    def _ruled(self, lead: float) -> None:
        self._rule.add(lead)
        self._left -= 1
        if self._left:
            return
        if self._rule.value > self._policy.value:
            self._better = self._rule.value
            self._next_turn, self._next_rest = min(2 * self._next_turn, self._longest_turn), self._rest
        else:
            self._better, self._next_turn, self._resting = None, self._turn, self._next_rest
            self._next_rest = min(2 * self._next_rest, self._longest_rest)
        self._policy.restart()


def alone(observation: Observation, rows: Sequence[int], lane: int = 0) -> float:
    """Utility less cost of the best frame that stays on the device. 0 where none is in time.

    ``rows``: of the points that stay there. A few numbers are read one by one: arrays so short cost more.
    """
    points, mask = observation.points[lane], observation.mask[lane]
    accuracy, slack_s, cost = points[ACCURACY], points[SLACK], points[COST]
    for_latency, deadline_s = observation.state[lane, FOR_LATENCY], observation.state[lane, DEADLINE]
    best = 0.0
    for row in rows:
        if mask[row] and slack_s[row] >= 0.0:
            utility = slack_s[row] / deadline_s if for_latency else accuracy[row]
            best = max(best, float(utility - cost[row]))
    return best


def best_by_itself(observation: Observation, means: Floats) -> Ints:
    """Row of the allowed point that is worth most at the present prices if all frames use it, ``[B]``.

    ``means``: utility, joules and bytes of a frame of each point when all used it in training, ``[3, A]``.
    """
    utility, joules, sent_bytes = means
    seen = observation.seen
    worth = utility - np.outer(seen.joule_price, joules) - np.outer(seen.byte_price, sent_bytes)
    return np.asarray(np.where(observation.mask, worth, -np.inf).argmax(axis=1))
