"""Each device's knowledge of its worker: the runs that it handed over, and the time until they are done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.vocabulary import Floats, Ints, Run

REMEMBERED = 16  # runs: more than the worker can do within a usual deadline
MEASURED = 5  # runs whose median slow-down the device believes: it bears two hiccups


class Runs(NamedTuple):
    """The last R runs of each lane, newest first: columns of `Run`, and the deadline of its frame, ``[6, R, B]``."""

    columns: Floats

    @classmethod
    def none(cls, lanes: int) -> Runs:
        """No run in any slot."""
        nothing = [*Run(handed_s=np.inf, settled_s=np.inf, end_s=-np.inf, takes_s=0.0, slow_down=0.0), 0.0]  # type: ignore[arg-type]
        return cls(np.tile(np.array(nothing)[:, None, None], (1, REMEMBERED, lanes)))

    def forget(self, lanes: Ints) -> None:
        """Forget the runs of these lanes."""
        self.columns[:, :, lanes] = self.none(len(lanes)).columns

    def forked(self, lanes: Ints) -> Runs:
        """The runs of these lanes, ``[N]``."""
        return Runs(self.columns[:, :, lanes])

    def push(self, run: Run, deadline_s: Floats) -> Runs:
        """The runs with a new one in the lanes where it is ever handed over."""
        newest = np.array((*run, deadline_s))[:, None]
        pushed = np.concatenate((newest, self.columns[:, :-1]), axis=1)
        return Runs(np.where(np.isfinite(run.handed_s), pushed, self.columns))

    def busy_s(self, now_s: Floats) -> Floats:
        """Time until the worker has done the run under way and those that wait, ``[B]``, as the device believes.

        The device does not know which of those that wait an answer will make needless. One that cannot end in time is
        not counted.
        """
        handed_s, settled_s, end_s, takes_s, _, deadline_s = self.columns
        settled = settled_s <= now_s
        free_s = np.maximum(np.where(settled, end_s, -np.inf).max(axis=0), now_s)
        waits = (handed_s <= now_s) & ~settled
        if waits.any():
            for slot in np.flatnonzero(waits.any(axis=1))[::-1]:  # oldest first
                ends_s = free_s + takes_s[slot]
                free_s = np.where(waits[slot] & (ends_s <= deadline_s[slot]), ends_s, free_s)
        return np.asarray(free_s - now_s)

    def ended(self, now_s: Floats) -> Iterator[Floats]:
        """Slow-downs of the runs that have ended since the last call, oldest first, ``[B]`` each. 0: there is none."""
        _, _, end_s, _, slow_downs, _ = self.columns
        ended, lane = (slow_downs > 0.0) & (end_s <= now_s), np.arange(len(now_s))
        while ended.any():
            slot = REMEMBERED - 1 - ended[::-1].argmax(axis=0)
            yield np.where(ended[slot, lane], slow_downs[slot, lane], 0.0)
            slow_downs[slot, lane] *= ~ended[slot, lane]
            ended[slot, lane] = False


class Pace:
    """The slow-down that each device believes: the median of its last few."""

    def __init__(self, lanes: int) -> None:
        self._last = np.ones((MEASURED, lanes))
        self.slow_down = np.ones(lanes)

    def forget(self, lanes: Ints) -> None:
        """Believe in the tables again in these lanes."""
        self._last[:, lanes] = self.slow_down[lanes] = 1.0

    def forked(self, lanes: Ints) -> Pace:
        """What these lanes believe, ``[N]``."""
        fork = Pace(len(lanes))
        fork._last, fork.slow_down = self._last[:, lanes], self.slow_down[lanes]
        return fork

    def measured(self, slow_down: Floats) -> None:
        """Take newly measured slow-downs, ``[B]``, 0 where there is none."""
        ran = slow_down > 0.0
        if ran.any():
            self._last = np.where(ran, np.concatenate((slow_down[None], self._last[:-1])), self._last)
            self.slow_down = np.sort(self._last, axis=0)[MEASURED // 2]
