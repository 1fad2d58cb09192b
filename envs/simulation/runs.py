"""Each device's knowledge of its worker: the runs that it handed over, and the time until they are done."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.vocabulary import Floats, Ints, Run

REMEMBERED = 16  # runs: more than the worker can do within a usual deadline


class Runs(NamedTuple):
    """The last R runs of each lane, newest first, shapes ``[R, B]``, seconds: columns of `Run`, and the deadline."""

    handed_s: Floats
    settled_s: Floats
    end_s: Floats
    takes_s: Floats
    slow_down: Floats  # 0 where it is known to the device
    deadline_s: Floats  # moment after which the run is worth nothing

    @classmethod
    def none(cls, lanes: int) -> Runs:
        """No run in any slot."""
        zero = np.zeros((REMEMBERED, lanes))
        return cls(zero + np.inf, zero + np.inf, zero - np.inf, zero, zero.copy(), zero.copy())

    def forget(self, lanes: Ints) -> None:
        """Forget the runs of these lanes."""
        for store, empty in zip(self, Runs.none(len(lanes)), strict=True):
            store[:, lanes] = empty

    def push(self, run: Run, deadline_s: Floats) -> Runs:
        """The runs with a new one in the lanes where it is ever handed over."""
        given = np.isfinite(run.handed_s)
        columns = zip((*run, deadline_s), self, strict=True)
        return Runs(*(np.where(given, np.concatenate((new[None], old[:-1])), old) for new, old in columns))

    def busy_s(self, now_s: Floats) -> Floats:
        """Time until the worker has done the run under way and those that wait, ``[B]``, as the device believes.

        The device does not know which of those that wait an answer will make needless. One that cannot end in time is
        not counted.
        """
        free_s = np.maximum(np.where(self.settled_s <= now_s, self.end_s, -np.inf).max(axis=0), now_s)
        waits = (self.handed_s <= now_s) & (self.settled_s > now_s)
        for slot in np.flatnonzero(waits.any(axis=1))[::-1]:  # oldest first
            ends_s = free_s + self.takes_s[slot]
            free_s = np.where(waits[slot] & (ends_s <= self.deadline_s[slot]), ends_s, free_s)
        return np.asarray(free_s - now_s)

    def learn(self, now_s: Floats) -> Floats:
        """Slow-down of the oldest run that has ended and was not learned from before, ``[B]``; 0 if there is none."""
        ended = (self.slow_down > 0.0) & (self.end_s <= now_s)
        slot, lane = len(ended) - 1 - ended[::-1].argmax(axis=0), np.arange(len(now_s))
        slow_down = np.where(ended[slot, lane], self.slow_down[slot, lane], 0.0)
        self.slow_down[slot, lane] -= slow_down
        return slow_down
