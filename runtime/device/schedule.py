"""What becomes of each frame: a state machine over values, without socket, thread or clock.

Every frame is settled exactly once: by the server's answer, by the device itself, or as a miss when its deadline has
passed. The rules are the world's (`envs.world.pipeline`), one frame at a time.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tidesplit.envs.world.pipeline import fallback_due_s, hopeless
from tidesplit.envs.world.vocabulary import Demand, Demands

__all__ = ["AnsweredBy", "Flight", "Schedule", "Task", "due_s", "too_late"]

AnsweredBy = Literal["server", "device", "miss"]


@dataclass(frozen=True)
class Flight:
    """A frame that was sent. `due_s`: from when the device finishes it by itself; infinite: never."""

    number: int
    deadline_s: float
    due_s: float


@dataclass(frozen=True, order=True)
class Task:
    """What falls due next: to finish a frame, or to give it up."""

    at_s: float
    kind: Literal["finish", "miss"] = field(compare=False)
    number: int = field(compare=False)


class Schedule:
    """Frames under way and what falls due for them."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._begun: set[int] = set()
        self._tasks: list[Task] = []

    def sent(self, flight: Flight) -> None:
        """A frame's payload was given to the link."""
        self._open.add(flight.number)
        if math.isfinite(flight.due_s):
            heapq.heappush(self._tasks, Task(flight.due_s, "finish", flight.number))
        heapq.heappush(self._tasks, Task(flight.deadline_s, "miss", flight.number))

    def lost(self, number: int, now_s: float, finishes: bool) -> None:
        """A frame's message failed: the device finishes it at once if it can, and has not begun to."""
        if number in self._open and number not in self._begun and finishes:
            heapq.heappush(self._tasks, Task(now_s, "finish", number))

    def settle(self, number: int) -> bool:
        """An answer is there; False where the frame has one already, and this one counts for nothing."""
        if number not in self._open:
            return False
        self._open.remove(number)
        self._begun.discard(number)
        return True

    def next_s(self) -> float:
        """When the next task falls due; infinite if none will."""
        while self._tasks and self._idle(self._tasks[0]):
            heapq.heappop(self._tasks)
        return self._tasks[0].at_s if self._tasks else math.inf

    def take(self, now_s: float) -> Task | None:
        """The task that is due now. A finish is begun by taking it; a frame given up is for the caller to settle."""
        if self.next_s() > now_s:
            return None
        task = heapq.heappop(self._tasks)
        if task.kind == "finish":
            self._begun.add(task.number)
        return task

    def _idle(self, task: Task) -> bool:
        """Whether a task has become pointless: its frame is settled, or its finish has begun already."""
        return task.number not in self._open or (task.kind == "finish" and task.number in self._begun)

    @property
    def under_way(self) -> int:
        """Frames that are not settled."""
        return len(self._open)


def too_late(demand: Demand, waited_s: float, head_s: float) -> bool:
    """Whether a frame is dropped when its turn comes, see `envs.world.pipeline.hopeless`."""
    return bool(hopeless(np.array([waited_s]), np.array([head_s]), Demands.of(demand))[0])


def due_s(
    demand: Demand, arrival_s: float, head_end_s: float, finish_s: float, foreseen_s: float, can: bool, guard_s: float
) -> float:
    """When the device finishes a frame by itself, see `envs.world.pipeline.fallback_due_s`."""
    arrival, end, finish, foreseen = (np.array([v]) for v in (arrival_s, head_end_s, finish_s, foreseen_s))
    due = fallback_due_s(arrival, end, finish, foreseen, np.array([can]), Demands.of(demand), guard_s)
    return float(due[0])
