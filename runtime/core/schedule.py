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

from tidesplit.envs.world.pipeline import fallback_due_s
from tidesplit.envs.world.vocabulary import Demands
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.core.frame_life import ENDS, FrameState, Happening, Lives
from tidesplit.runtime.log.record import AnsweredBy, Record

__all__ = ["Begun", "End", "Flight", "Schedule", "flight_of"]

RUNS = (FrameState.RACING, FrameState.RUNNING, FrameState.SERVER_HELD)  # states in which the frame's run is under way


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


class Schedule:
    """Open frames, the device's runs for them, and their deadlines. Their states are in `lives`.

    A paced device makes good a lateness below `makes_good_s`: work then begins when it could have begun.
    """

    def __init__(self, lives: Lives, makes_good_s: float = 0.0) -> None:
        self._lives, self._makes_good_s = lives, makes_good_s
        self._open: dict[int, Flight] = {}
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
        self._open[flight.number] = flight
        heapq.heappush(self._deadlines, (flight.deadline_s, flight.number))
        self._fall_due(flight, flight.due_s)

    def answered(self, number: int, now_s: float) -> End | None:
        """The server's answer to an open frame is here. It is kept while a better one of the device is being made."""
        flight = self._open[number]
        if now_s > flight.deadline_s:
            return self.lost(number, now_s)
        waits = flight.better == "device" and self._lives.of(number) == FrameState.RACING
        return self._after(number, Happening.WORSE_ANSWERED if waits else Happening.ANSWERED, now_s)

    def lost(self, number: int, now_s: float) -> End | None:
        """An open frame's message failed. The device's answer counts at once. A run that has not begun is due now."""
        end = self._after(number, Happening.FAILED, now_s)
        if end is None and self._may_begin(number):
            self._fall_due(self._open[number], now_s)
        return end

    def ran(self, number: int, now_s: float, good: bool = True) -> End | None:
        """The newest run has ended, `good` where it gave an answer. It is held while a better one may come."""
        self._running, self.free_s = False, now_s
        flight = self._open.get(number)
        if flight is None:
            return None
        if not good or now_s > flight.deadline_s:
            return self._after(number, Happening.RUN_FAILED, now_s)
        waits = flight.better == "server" and self._lives.of(number) == FrameState.RACING
        return self._after(number, Happening.WORSE_RAN if waits else Happening.RAN, now_s)

    def expired(self, now_s: float) -> End | None:
        """End a frame whose deadline has passed, by the best answer in hand. None: there is no such frame."""
        if self.next_deadline_s() > now_s:
            return None
        return self._after(self._deadlines[0][1], Happening.EXPIRED, now_s)

    def next_deadline_s(self) -> float:
        """Moment at which the next frame is to be ended; infinity if there is none.

        That is its deadline. A paced device waits a little longer for a run that ends in time on the emulated device.
        """
        while self._deadlines and self._deadlines[0][1] not in self._open:
            heapq.heappop(self._deadlines)
        if not self._deadlines:
            return math.inf
        deadline_s, number = self._deadlines[0]
        runs = self._lives.of(number) in RUNS and self._until_s <= deadline_s
        return deadline_s + (self._makes_good_s if runs else 0.0)

    def take(self, now_s: float) -> Begun | None:
        """Begin the next run that is due, if no run is under way. One that would end too late does not begin."""
        while self.next_run_s() <= now_s and not self._running:
            due_s, number = heapq.heappop(self._runs)
            flight, begin_s = self._open[number], self.begin_s(max(due_s, self.free_s), now_s)
            until_s = begin_s + flight.run_s
            if until_s <= flight.deadline_s:
                self._lives.after(number, Happening.BEGUN)
                self._running, self._until_s = True, until_s
                return Begun(number, begin_s)
        return None

    def begin_s(self, could_s: float, now_s: float) -> float:
        """Begin of work that could begin at `could_s`: now, or if paced, as on a device that loses no time."""
        return could_s if now_s - could_s < self._makes_good_s else now_s

    def next_run_s(self) -> float:
        """Moment at which the next run falls due; infinity if there is none."""
        while self._runs and not self._may_begin(self._runs[0][1]):
            heapq.heappop(self._runs)
        return self._runs[0][0] if self._runs else math.inf

    def idle(self, now_s: float) -> bool:
        """True where no run is under way and none that is due can end in time."""
        return not self._running and self.busy_s(now_s) == 0.0

    def busy_s(self, now_s: float) -> float:
        """Believed time until the run under way and those that are due have ended."""
        free_s = max(self._until_s, now_s) if self._running else now_s
        for number in dict.fromkeys(number for due_s, number in sorted(self._runs) if due_s <= now_s):
            if self._may_begin(number):
                flight = self._open[number]
                free_s += flight.run_s if free_s + flight.run_s <= flight.deadline_s else 0.0
        return free_s - now_s

    def _fall_due(self, flight: Flight, at_s: float) -> None:
        if math.isfinite(at_s) and math.isfinite(flight.run_s):
            heapq.heappush(self._runs, (at_s, flight.number))

    def _may_begin(self, number: int) -> bool:
        """True where a run is needed and has not begun."""
        return self._lives.of(number) in (FrameState.SENT, FrameState.LOCAL)

    def _after(self, number: int, happening: Happening, now_s: float) -> End | None:
        """Take an event of a frame's life. Returns its end, if it is one."""
        by = ENDS.get(self._lives.after(number, happening))
        return None if by is None else End(number, by, min(now_s, self._open.pop(number).deadline_s))


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
