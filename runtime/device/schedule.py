"""The end of each frame: a state machine over values, without socket, thread or clock.

Every frame is settled exactly once: by the server's answer, by the device itself, or as a miss when its deadline has
passed. The rules are those of `envs.world.pipeline`, for one frame at a time.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tidesplit.envs.world.pipeline import fallback_due_s, hopeless
from tidesplit.envs.world.vocabulary import Demand, Demands


@dataclass(frozen=True)
class Flight:
    """A frame that was sent, with its deadline and the moment of its fallback. Infinity: it has no fallback."""

    number: int
    deadline_s: float
    due_s: float


@dataclass(frozen=True, order=True)
class Task:
    """A task that falls due at `at_s`: to finish a frame, or to give it up."""

    at_s: float
    kind: Literal["finish", "miss"] = field(compare=False)
    number: int = field(compare=False)


class Schedule:
    """Open frames and the tasks that fall due for them."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._begun: set[int] = set()
        self._tasks: list[Task] = []

    def sent(self, flight: Flight) -> None:
        """Record a frame that was sent."""
        self._open.add(flight.number)
        if math.isfinite(flight.due_s):
            heapq.heappush(self._tasks, Task(flight.due_s, "finish", flight.number))
        heapq.heappush(self._tasks, Task(flight.deadline_s, "miss", flight.number))

    def lost(self, number: int, now_s: float, finishes: bool) -> None:
        """Record that a frame's message failed. If the device `finishes` it, that is due at once unless begun."""
        if number in self._open and number not in self._begun and finishes:
            heapq.heappush(self._tasks, Task(now_s, "finish", number))

    def settle(self, number: int) -> bool:
        """Settle a frame. Returns False where it was settled before."""
        if number not in self._open:
            return False
        self._open.remove(number)
        self._begun.discard(number)
        return True

    def next_s(self) -> float:
        """Moment at which the next task falls due; infinity if there is none."""
        while self._tasks and self._idle(self._tasks[0]):
            heapq.heappop(self._tasks)
        return self._tasks[0].at_s if self._tasks else math.inf

    def take(self, now_s: float) -> Task | None:
        """Take the task that is due now; None if there is none. The caller begins the fallback or settles the miss."""
        if self.next_s() > now_s:
            return None
        task = heapq.heappop(self._tasks)
        if task.kind == "finish":
            self._begun.add(task.number)
        return task

    def _idle(self, task: Task) -> bool:
        """True where a task is void: its frame is settled, or its fallback has begun."""
        return task.number not in self._open or (task.kind == "finish" and task.number in self._begun)

    @property
    def under_way(self) -> int:
        """Number of frames that are not settled."""
        return len(self._open)


def too_late(demand: Demand, waited_s: float, head_s: float) -> bool:
    """True where a frame is dropped at its turn. See `envs.world.pipeline.hopeless`."""
    return bool(hopeless(np.array([waited_s]), np.array([head_s]), Demands.of(demand))[0])


def due_s(
    demand: Demand, arrival_s: float, head_end_s: float, finish_s: float, foreseen_s: float, can: bool, guard_s: float
) -> float:
    """Moment at which the device finishes a frame by itself. See `envs.world.pipeline.fallback_due_s`."""
    arrival, end, finish, foreseen = (np.array([v]) for v in (arrival_s, head_end_s, finish_s, foreseen_s))
    due = fallback_due_s(arrival, end, finish, foreseen, np.array([can]), Demands.of(demand), guard_s)
    return float(due[0])
