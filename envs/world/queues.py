"""The state of device and links between two frames, and the runs of the device's worker. Shapes ``[B]``, seconds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.hop import HopQueue
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints, each


class References(NamedTuple):
    """State of S streams, shapes ``[B, S]``, seconds."""

    arrival_s: Floats  # arrival of the frame that is the reference; minus infinity where there is none
    broken_s: Floats  # moment from which the device knows that the stream is broken; infinity: never

    @classmethod
    def none(cls, lanes: int, streams: int) -> References:
        """No stream has begun."""
        return cls(np.full((lanes, streams), -np.inf), np.full((lanes, streams), np.inf))

    def age(self, arrival_s: Floats, decided_s: Floats, period_s: Floats) -> Floats:
        """Frames since the references, ``[B, S]``, infinity where a key is needed.

        The frame arrives at ``arrival_s`` and is decided at ``decided_s``, ``[B]`` each.
        """
        age = np.rint((arrival_s[:, None] - self.arrival_s) / period_s[:, None])
        return np.where(self.broken_s <= decided_s[:, None], np.inf, age)

    def after(self, lanes: Ints, streams: Ints, key: Bools, arrival_s: Floats, lost_s: Floats) -> References:
        """The state after these lanes have sent, each in one stream. The other arguments are the lanes', ``[L]``.

        A message's answer is missed from ``lost_s`` on, infinity where it comes in time. Behind a key, the messages
        before it do not matter.
        """
        arrivals, broken = self.arrival_s.copy(), self.broken_s.copy()
        arrivals[lanes, streams] = arrival_s
        broken[lanes, streams] = np.where(key, lost_s, np.minimum(broken[lanes, streams], lost_s))
        return References(arrivals, broken)


class Queues(NamedTuple):
    """State of the device, of every link and of every stream between two frames.

    The device has a foreground and a worker. The foreground decides, encodes pictures, runs heads and sends, until
    ``device_free_s``. The worker runs whole CNNs and races one after the other, until ``worker_until_s``. From
    ``finish_from_s`` to ``finish_until_s`` it finishes frames whose answer did not come. Finishes that wait for each
    other count as one stretch. They go first when they fall due.
    """

    device_free_s: Floats
    worker_until_s: Floats
    finish_from_s: Floats
    finish_until_s: Floats
    heat_c: Floats  # temperature of the processor
    hops: tuple[HopQueue, ...]
    references: References

    @classmethod
    def idle(cls, lanes: int, hops: int = 1, streams: int = 0) -> Queues:
        """Idle device, cold, idle links whose radio stays awake, and streams that have not begun."""
        links = tuple(HopQueue(np.zeros(lanes), np.full(lanes, -np.inf), np.full(lanes, np.inf)) for _ in range(hops))
        free, worker, begin, end, heat = np.zeros((5, lanes))
        return cls(free, worker, begin, end, heat, links, References.none(lanes, streams))

    def take(self, lanes: Ints) -> Queues:
        """The queues of these lanes."""
        return each(lambda column: column[lanes], self)


def turn_s(queues: Queues, arrival_s: Floats) -> Floats:
    """Moment at which a head may begin: its frame has arrived, and neither foreground nor worker is busy."""
    return idle_s(queues, decided_s(queues, arrival_s))


def decided_s(queues: Queues, arrival_s: Floats) -> Floats:
    """Moment of a frame's decision: it has arrived, and the foreground is free."""
    return np.maximum(arrival_s, queues.device_free_s)


def idle_s(queues: Queues, moment_s: Floats) -> Floats:
    """First moment from ``moment_s`` on at which the worker is idle."""
    free_s = np.maximum(moment_s, queues.worker_until_s)
    finishing = (queues.finish_from_s <= free_s) & (free_s < queues.finish_until_s)
    return np.where(finishing, queues.finish_until_s, free_s)


def interrupted_s(start_s: Floats, end_s: Floats, queues: Queues) -> Floats:
    """End of work from ``start_s`` to ``end_s``, with the finishes that fall due meanwhile."""
    interrupted = (queues.finish_from_s < end_s) & (queues.finish_until_s > start_s)
    return end_s + np.where(interrupted, queues.finish_until_s - np.maximum(queues.finish_from_s, start_s), 0.0)


class WorkerRun(NamedTuple):
    """A run of the worker for each frame, ``[B]``, seconds."""

    handed_s: Floats  # moment from which it may begin; infinity: never
    promising: Bools  # True where it does not seem too late, as the device believes
    duration_s: Floats  # its true time
    believed_s: Floats  # its time as the device believes
    waits: Bools  # True where it is a finish that waits for its moment
    local: Bools  # True where no answer can make it needless

    def on(self, queues: Queues, answered_s: Floats) -> tuple[Bools, Floats, Floats, Queues]:
        """Run it, unless the answer comes before it begins.

        Returns True where it begins, the moment of that or of giving it up, its end (infinity where it does not begin),
        and the queues after it.
        """
        may, from_s, until_s = np.isfinite(self.handed_s), queues.finish_from_s, queues.finish_until_s
        begin = idle_s(queues, np.where(may, self.handed_s, 0.0))
        begin = np.where(self.waits, np.maximum(begin, until_s), begin)
        runs = may & self.promising & (self.local | (answered_s > begin))
        end = begin + np.where(runs, self.duration_s, 0.0)
        end = np.where(self.waits, end, interrupted_s(begin, end, queues))
        finishes, at_once = runs & self.waits, runs & ~self.waits
        pending = np.maximum(until_s - np.maximum(from_s, queues.device_free_s), 0.0)
        later = queues._replace(
            worker_until_s=np.where(at_once, end, queues.worker_until_s),
            finish_from_s=np.where(finishes, begin - pending, from_s),
            finish_until_s=np.where(finishes, end, until_s),
        )
        settled = np.where(runs | self.local, begin, np.minimum(begin, answered_s))
        return runs, settled, np.where(runs, end, np.inf), later
