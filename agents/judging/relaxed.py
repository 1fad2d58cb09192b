"""A world kinder than the true one: the clairvoyant's bound is the best that can be done in it.

A state is the pipeline's queues, in continuous time, and the utility gained so far. Each state goes through the world's
own `advance` by every allowed point, and the worker's runs follow here. Several things are relaxed, each in the
controller's favour:

- The device is as cool as if it had been idle since the episode's beginning. So the bound is loose where the air is
  hot.
- The radio is awake. A link has no slow start, waits for no grant, and carries probes in the first frame only. Any
  number of messages may be unanswered.
- Each finish or race is begun or skipped, even where the answer has already come. The better one of its result and the
  server's answer counts.
- A patient finish falls due at a moment that depends on the slow-down that the device believes. It ends as if it fell
  due at the earliest of these moments, and the device is free for others until the latest. It also frees the foreground
  from waiting for the finishes before it.
- Every payload of a stream has the bytes of the best age of its reference. So streams need no keys, and changing
  between them is free. With streams the bound is looser than without.
- No frame is dropped against the controller's will, and any frame may be left out.

A state is at least as good as another one if its foreground, links, runs and finishes end no later, and if its finishes
begin no earlier. A device without any counts as one that has begun them. It is not as good as one with planned
finishes, because in the true world these can put off further ones, which otherwise would keep heads waiting.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.chain import Picker
from tidesplit.envs.world.pipeline import Frame, advance
from tidesplit.envs.world.queues import Queues, References, idle_s, interrupted_s
from tidesplit.envs.world.radio import WIRED
from tidesplit.envs.world.vocabulary import SERVER, Bools, Floats, Ints, each
from tidesplit.profiling.points.table import without_streams

NO_DROPS = 1e-9  # believed slow-down by which no head ever seems to be too late
ROUNDING_S = 1e-12  # by which an answer may miss the deadline: one at the deadline counts


class Frontier(NamedTuple):
    """States after a frame, shapes ``[L]``: their queues and the utility gained so far."""

    queues: Queues
    value: Floats

    def take(self, rows: Ints) -> Frontier:
        """These states."""
        return Frontier(self.queues.take(rows), self.value[rows])


def together(*groups: Frontier) -> Frontier:
    """The states of all groups."""
    queues = each(lambda *columns: np.concatenate(columns), *(g.queues for g in groups))
    return Frontier(queues, np.concatenate([g.value for g in groups]))


class Beliefs:
    """Range of the slow-downs that the device can believe: the median of its last five runs.

    At least three of the five are as low as the median, so it is not below the third lowest slow-down of all frames so
    far. Before the first run all five are 1. The same holds for the highest.
    """

    def __init__(self) -> None:
        self._low = self._high = np.ones(3)

    @property
    def lowest(self) -> float:
        """Lowest slow-down that can be believed."""
        return float(self._low[-1])

    @property
    def highest(self) -> float:
        """Highest slow-down that can be believed."""
        return float(self._high[0])

    def learn(self, lowest: float, highest: float) -> None:
        """Take the range of the slow-downs that the device can meet in a frame."""
        self._low = np.sort(np.append(self._low, lowest))[:3]
        self._high = np.sort(np.append(self._high, highest))[1:]


class Relaxed:
    """The episode of one lane in the kinder world."""

    def __init__(self, simulation: Simulation, lane: int) -> None:
        world = simulation.scenario.world
        self._world = replace(world, radio=WIRED, grant_s=0.0, initial_window_bytes=np.inf, probe_after_s=np.inf)
        self._simulation, self._lane = simulation, np.array([lane])
        self._table = without_streams(simulation.table, self._smallest())
        self._servers_only = replace(self._table, finish_s=np.full_like(self._table.finish_s, np.inf))
        self._demands = simulation.demands.take(self._lane)
        self._beliefs = Beliefs()
        self._jitter = self._table.jitter if self._table.jitter.ndim == 1 else self._table.jitter[lane]
        self._first_c = simulation.queues.heat_c[self._lane]
        self.allowed = np.flatnonzero(simulation.observation().mask[lane])
        self.frames = int(simulation.frames[lane])
        self.period_s = float(self._demands.period_s[0])

    def _smallest(self) -> Floats:
        """Factor on the bytes of each point at the best age of its reference, ``[A]``, if that is no key's."""
        streams, motion = self._simulation.table.streams, self._simulation.scenario.world.motion
        return np.where(streams.of >= 0, streams.smallest * min(motion, 1.0), streams.smallest)

    def first(self) -> Frontier:
        """The state in which the episode begins."""
        queues = self._simulation.queues.take(self._lane)._replace(references=References.none(1, 0))
        return Frontier(queues, np.zeros(1))

    def after(self, k: int, states: Frontier, every: bool = False) -> Frontier:
        """States after frame ``k``: each state without the frame, by each allowed point, and by each with its run.

        ``every``: True for all of them, False without those that cannot be better than another one.
        """
        frame = self._simulation.frame_at(k, self._lane)
        count = len(states.value)
        rows, points = np.repeat(np.arange(count), len(self.allowed)), np.tile(self.allowed, count)
        before, at = states.take(rows), Picker(points, np.full(len(rows), self._lane[0]))
        sent, gained = self._without_runs(before.queues, points, frame)
        slow = self._slow_down(before.queues.heat_c, at(self._table.jitter), frame)
        ran, gained_too, can, matters = self._with_runs(sent, at, slow, frame, gained)
        served = Frontier(sent, before.value + gained).take(np.flatnonzero((gained > 0.0) | every))
        finished = Frontier(ran, before.value + gained_too).take(np.flatnonzero(can & (matters | every)))
        self._learn(states.queues.heat_c[:1], frame)
        later = together(states, served, finished)
        idle_c = np.repeat(self._idle(states.queues.heat_c[:1], frame), len(later.value))
        return later._replace(queues=later.queues._replace(heat_c=idle_c))

    def _without_runs(self, queues: Queues, points: Ints, frame: Frame) -> tuple[Queues, Floats]:
        """Queues and utilities, ``[L]``, where only servers answer and the worker gets no run."""
        after, outcome, _ = advance(
            _proper(queues),
            points,
            frame,
            table=self._servers_only,
            demands=self._demands,
            world=self._world,
            uplinks=self._simulation.uplinks,
            lane=np.full(len(points), self._lane[0]),
            slow_belief=np.full(len(points), NO_DROPS),
        )
        sent = queues._replace(device_free_s=after.device_free_s, hops=after.hops)
        return sent, np.where(outcome.answered_by == SERVER, outcome.utility, 0.0)

    def _with_runs(
        self, queues: Queues, at: Picker, slow: Floats, frame: Frame, gained: Floats
    ) -> tuple[Queues, Floats, Bools, Bools]:
        """Queues and utilities, ``[L]``, where the worker runs the frames too, True where it can, and where it matters.

        ``queues`` are those after the frames, ``slow`` and ``gained`` their slow-downs and their utilities so far.
        """
        table, demands = self._table, self._demands
        local, proper = at(table.local), _proper(queues)
        accuracy = np.where(local, at(table.accuracy), at(table.finish_accuracy))
        takes_s = np.where(local, at(table.head_s), at(table.finish_s))
        can = np.isfinite(takes_s) & (accuracy >= demands.min_accuracy)
        takes_s = np.where(can, takes_s, 0.0)
        at_once = local | at(table.races)
        earliest, latest = self._due_s(queues.device_free_s, takes_s, at_once, frame)
        begin = idle_s(proper, earliest)
        begin = np.where(at_once, begin, np.maximum(begin, queues.finish_until_s))
        end = begin + takes_s * slow
        end = np.where(at_once, interrupted_s(begin, end, proper), end)
        last = np.maximum(latest, queues.worker_until_s)  # the latest begin, if no other finish is before it
        planned = np.maximum(queues.finish_from_s, queues.device_free_s)
        planned = np.where(queues.finish_until_s <= last, np.maximum(planned, last), planned)
        ran = queues._replace(
            worker_until_s=np.where(at_once, end, queues.worker_until_s),
            finish_from_s=np.where(at_once, queues.finish_from_s, planned),
            finish_until_s=np.where(at_once, queues.finish_until_s, end),
        )
        latency_s = np.maximum(end - frame.arrival_s - ROUNDING_S, 0.0)
        alone = demands.utility(accuracy, latency_s, self._world.utility)
        matters = (alone > gained) | (~at_once & (planned > queues.finish_from_s))
        return ran, np.maximum(gained, alone), can & (latest >= queues.device_free_s), matters

    def _due_s(self, head_end: Floats, takes_s: Floats, at_once: Bools, frame: Frame) -> tuple[Floats, Floats]:
        """Earliest and latest moment at which a run falls due, ``[L]``."""
        now_s = np.maximum(head_end, frame.arrival_s)
        last_s = frame.arrival_s + self._demands.deadline_s - self._world.guard_s
        latest = last_s - takes_s * self._beliefs.lowest
        earliest = last_s - takes_s * self._beliefs.highest
        hurried = np.minimum(earliest, now_s + takes_s * self._beliefs.lowest)
        earliest = np.maximum(np.where(self._demands.for_latency, hurried, earliest), now_s)
        return np.where(at_once, now_s, earliest), np.where(at_once, now_s, latest)

    def _slow_down(self, heat_c: Floats, jitter: Floats, frame: Frame) -> Floats:
        """Factor on compute times, as in `advance`."""
        noise = np.exp(self._world.jitter * jitter * frame.compute_noise)
        return np.asarray(frame.slow_down * self._world.cooling.slow_down(heat_c) * noise)

    def _learn(self, heat_c: Floats, frame: Frame) -> None:
        """Take the slow-downs that the device can meet in a frame into the beliefs.

        Its temperature is between ``heat_c`` and that of foreground and worker always busy. One load more allows for
        runs that the world counts before they begin.
        """
        machine, cooling = self._table.machine, self._world.cooling
        full_c = cooling.settled(frame.ambient_c, machine.idle_w + 2.0 * machine.run_w)
        hottest_c = np.maximum(self._first_c, full_c) + cooling.kelvin_per_watt * machine.run_w
        low, high = (self._slow_down(c, self._jitter, frame) for c in (heat_c, hottest_c))
        self._beliefs.learn(float(low.min()), float(high.max()))

    def _idle(self, heat_c: Floats, frame: Frame) -> Floats:
        """Temperature after a frame in which the device was idle."""
        return self._world.cooling.after(
            heat_c, frame.ambient_c, np.array([self._table.machine.idle_w]), self._demands.period_s
        )


def _proper(queues: Queues) -> Queues:
    """The same queues for the world's own functions. A merged stretch may end before it begins: it takes no time."""
    return queues._replace(finish_from_s=np.minimum(queues.finish_from_s, queues.finish_until_s))
