"""Frames under way: a state machine over values, without socket, thread or clock.

Every frame ends exactly once: by the server's answer, by the device's own, or as a miss. The device's own answers are
made by runs: whole local nets, the local halves of races, and fallbacks. They run one after the other, in the order in
which they fall due. The rules are those of `envs.world.pipeline`, for one frame at a time.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tidesplit.envs.world.pipeline import fallback_due_s, hopeless
from tidesplit.envs.world.vocabulary import Demand, Demands
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.log.record import AnsweredBy, Record

__all__ = ["Begun", "End", "Flight", "Schedule", "flight_of", "too_late"]


@dataclass(frozen=True)
class Flight:
    """A frame that begins to await its answer.

    Args:
        due_s: moment from which the device's own run may begin. Infinity: it is not due unless the message fails.
        run_s: believed time of that run. Infinity: the device cannot answer the frame.
        better: the side whose answer is the better one, so that the other's is held. None: the first answer counts.
    """

    number: int
    deadline_s: float
    due_s: float = math.inf
    run_s: float = math.inf
    better: Literal["server", "device"] | None = None


@dataclass(frozen=True)
class Begun:
    """A run that begins at `begin_s`."""

    number: int
    begin_s: float


@dataclass(frozen=True)
class End:
    """A frame's end at `at_s`."""

    number: int
    by: AnsweredBy
    at_s: float


@dataclass
class _Open:
    """A frame without an end. A run is `over` once it has ended with or without an answer."""

    flight: Flight
    begun: bool = False
    over: bool = False
    lost: bool = False
    device: bool = False  # True where the device's answer is in hand
    server: bool = False  # True where the server's answer is in hand


class Schedule:
    """Open frames, the device's runs for them, and their deadlines.

    A paced device makes good a lateness below `makes_good_s`: a run then begins when it could have begun.
    """

    def __init__(self, makes_good_s: float = 0.0) -> None:
        self._makes_good_s = makes_good_s
        self._open: dict[int, _Open] = {}
        self._runs: list[tuple[float, int]] = []
        self._deadlines: list[tuple[float, int]] = []
        self._running = False
        self._until_s = -math.inf  # believed end of the newest run
        self.free_s = 0.0  # end of the newest run that has ended

    @property
    def under_way(self) -> int:
        """Number of frames without an end."""
        return len(self._open)

    def begin(self, flight: Flight) -> None:
        """Record a frame that was sent, or whose whole net the device shall run."""
        self._open[flight.number] = _Open(flight)
        heapq.heappush(self._deadlines, (flight.deadline_s, flight.number))
        self._fall_due(flight, flight.due_s)

    def answered(self, number: int, now_s: float) -> End | None:
        """The server's answer is here. It is held while a better one of the device is being made."""
        frame = self._open.get(number)
        if frame is None:
            return None
        frame.server = now_s <= frame.flight.deadline_s
        waits = frame.flight.better == "device" and frame.begun and not frame.over
        return None if frame.server and waits else self._end(frame, now_s)

    def lost(self, number: int, now_s: float) -> End | None:
        """The message failed. The device's answer counts at once, and a run that has not begun is due now."""
        frame = self._open.get(number)
        if frame is None:
            return None
        frame.lost = True
        if frame.device:
            return self._end(frame, now_s)
        if not frame.begun:
            self._fall_due(frame.flight, now_s)
        return None

    def ran(self, number: int, now_s: float, good: bool = True) -> End | None:
        """The newest run has ended, `good` where it gave an answer. It is held while a better one may come."""
        self._running, self.free_s = False, now_s
        frame = self._open.get(number)
        if frame is None:
            return None
        frame.over, frame.device = True, good and now_s <= frame.flight.deadline_s
        holds = frame.flight.better == "server" and not frame.lost
        if (frame.device and not holds) or frame.server:
            return self._end(frame, now_s)
        return None

    def expired(self, now_s: float) -> End | None:
        """End a frame whose deadline has passed, by the best answer in hand. None: there is no such frame."""
        return self._end(self._open[self._deadlines[0][1]], now_s) if self.next_deadline_s() <= now_s else None

    def next_deadline_s(self) -> float:
        """Moment at which the next frame is to be ended; infinity if there is none.

        That is its deadline. A paced device waits a little longer for a run that ends in time on the emulated device.
        """
        while self._deadlines and self._deadlines[0][1] not in self._open:
            heapq.heappop(self._deadlines)
        if not self._deadlines:
            return math.inf
        deadline_s, number = self._deadlines[0]
        runs = self._open[number].begun and not self._open[number].over
        return deadline_s + (self._makes_good_s if runs and self._until_s <= deadline_s else 0.0)

    def take(self, now_s: float) -> Begun | None:
        """Begin the next run that is due, if no run is under way. One that would end too late does not begin."""
        while self.next_run_s() <= now_s and not self._running:
            due_s, number = heapq.heappop(self._runs)
            frame, could_s = self._open[number], max(due_s, self.free_s)
            begin_s = could_s if now_s - could_s < self._makes_good_s else now_s
            until_s = begin_s + frame.flight.run_s
            if until_s <= frame.flight.deadline_s:
                frame.begun = self._running = True
                self._until_s = until_s
                return Begun(number, begin_s)
        return None

    def next_run_s(self) -> float:
        """Moment at which the next run falls due; infinity if there is none."""
        while self._runs and self._void(self._runs[0][1]):
            heapq.heappop(self._runs)
        return self._runs[0][0] if self._runs else math.inf

    def idle(self, now_s: float) -> bool:
        """True where no run is under way and none that is due can end in time."""
        return not self._running and self.busy_s(now_s) == 0.0

    def busy_s(self, now_s: float) -> float:
        """Believed time until the run under way and those that are due have ended."""
        free_s = max(self._until_s, now_s) if self._running else now_s
        for number in dict.fromkeys(number for due_s, number in sorted(self._runs) if due_s <= now_s):
            if not self._void(number):
                flight = self._open[number].flight
                free_s += flight.run_s if free_s + flight.run_s <= flight.deadline_s else 0.0
        return free_s - now_s

    def _fall_due(self, flight: Flight, at_s: float) -> None:
        if math.isfinite(at_s) and math.isfinite(flight.run_s):
            heapq.heappush(self._runs, (at_s, flight.number))

    def _void(self, number: int) -> bool:
        """True where a run is not needed any more, or has begun."""
        return number not in self._open or self._open[number].begun

    def _end(self, frame: _Open, now_s: float) -> End:
        """End a frame by the better answer in hand. After the deadline no answer counts that was not in hand then."""
        del self._open[frame.flight.number]
        by: AnsweredBy = "server" if frame.server else "device" if frame.device else "miss"
        if frame.server and frame.device and frame.flight.better == "device":
            by = "device"
        return End(frame.flight.number, by, min(now_s, frame.flight.deadline_s))


def too_late(demand: Demand, waited_s: float, head_s: float) -> bool:
    """True where a frame is dropped at its turn. See `envs.world.pipeline.hopeless`."""
    return bool(hopeless(np.array([waited_s]), np.array([head_s]), Demands.of(demand))[0])


def flight_of(record: Record, table: PointTable, slow_down: float, end_s: float, guard_s: float) -> Flight:
    """The flight of a frame that is sent, or handed to the worker, at `end_s`.

    `slow_down` is the factor by which the device plans. `guard_s` is the reserve of a fallback before the deadline.
    """
    row, demand = record.row, record.demand
    deadline_s = record.arrival_s + demand.deadline_s
    if table.local[row]:
        return Flight(record.frame, deadline_s, end_s, float(table.head_s[row]) * slow_down)
    finish_s, accuracy = float(table.finish_s[row]) * slow_down, table.finish_accuracy[row]
    if accuracy < demand.min_accuracy or math.isinf(finish_s):
        return Flight(record.frame, deadline_s)
    if not table.races[row]:
        return Flight(record.frame, deadline_s, _fallback_s(record, end_s, finish_s, guard_s), finish_s)
    if demand.objective == "latency":
        return Flight(record.frame, deadline_s, end_s, finish_s)
    better: Literal["server", "device"] = "server" if table.accuracy[row] >= accuracy else "device"
    return Flight(record.frame, deadline_s, end_s, finish_s, better)


def _fallback_s(record: Record, head_end_s: float, finish_s: float, guard_s: float) -> float:
    """Moment at which the device finishes the frame by itself. See `envs.world.pipeline.fallback_due_s`."""
    foreseen_s = record.arrival_s + record.foreseen["latency_s"]
    arrival, end, finish, foreseen = (np.array([v]) for v in (record.arrival_s, head_end_s, finish_s, foreseen_s))
    due_s = fallback_due_s(arrival, end, finish, foreseen, np.array([True]), Demands.of(record.demand), guard_s)
    return float(due_s[0])
