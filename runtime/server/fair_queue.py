"""The queue of frames that wait for a worker: whose turn it is, which go together, and which are too late.

Values only: the time is passed in.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Job", "Queue"]


@dataclass(eq=False)
class Job:
    """One frame's work. Jobs of one `key` may be computed together. Times are on one monotonic clock.

    `client` sent the frame. `turn` is the queue's: jobs with a lower one go first. `gone` returns True once the client
    no longer waits. `settle` takes the result or the exception.
    """

    key: str
    item: Any
    arrived_s: float
    deadline_s: float
    gone: Callable[[], bool] = field(default=lambda: False)
    settle: Callable[[Any], None] = field(default=lambda _: None)
    client: str = ""
    turn: float = field(default=0.0, init=False)


class Queue:
    """A bounded queue, fair to clients. One client's jobs keep their order, and clients take turns.

    A batch is the next job and later ones of the same key. Turns are start-time fair queueing: a client's jobs have
    turns one apart, from that of the newest batch on. So a client that sent nothing for a while saves up no turns.
    No job is taken after `longest_wait_s` while others wait: an answer to them may still be of use. A client that is
    owed a turn goes first, if none of its jobs wait. Otherwise cameras of one rate would be refused again and again.
    """

    def __init__(self, limit: int, longest_wait_s: float = math.inf) -> None:
        self.limit, self._longest_wait_s = limit, longest_wait_s
        self._jobs: list[Job] = []  # by turn
        self._turn = 0.0  # of the newest batch
        self._next_turn: dict[str, float] = {}  # by client, where it is later than that
        self._owed: set[str] = set()  # clients whose newest job was refused because of its wait

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> bool:
        """Add a job. Returns False where the queue is full, even after abandoned jobs are removed."""
        if len(self._jobs) >= self.limit:
            self._jobs = [waiting for waiting in self._jobs if not waiting.gone()]
        if len(self._jobs) >= self.limit:
            return False
        job.turn = self._turn_of(job.client)
        self._next_turn[job.client] = job.turn + 1.0
        self._owed.discard(job.client)
        insort(self._jobs, job, key=lambda other: other.turn)
        return True

    def ahead(self, client: str) -> list[str]:
        """Keys of the jobs that go before a new one of this client."""
        turn = self._turn_of(client)
        return [job.key for job in self._jobs if job.turn <= turn]

    def owe(self, client: str) -> None:
        """A job of this client was refused because of its wait."""
        if len(self._owed) < self.limit:  # clients can be made up
            self._owed.add(client)

    def _turn_of(self, client: str) -> float:
        if client in self._owed and all(job.client != client for job in self._jobs):
            return self._turn - 1.0
        return max(self._turn, self._next_turn.get(client, 0.0))

    def displaced(self, client: str) -> Job | None:
        """Remove the newest job of the client with most jobs, to make room for a job of `client`.

        Returns None where that would not be fairer: no client has two jobs more.
        """
        alive = [job for job in self._jobs if not job.gone()]
        counts = Counter(job.client for job in alive)
        most, number = counts.most_common(1)[0] if counts else (client, 0)
        if number < counts[client] + 2:
            return None
        found = next(job for job in reversed(alive) if job.client == most)
        self._jobs.remove(found)
        self._next_turn[most] = found.turn
        return found

    def take(self, now_s: float, limit_of: Callable[[str], int]) -> tuple[list[Job], list[Job]]:
        """The next batch and the jobs that are too late. Abandoned jobs are dropped."""
        wanted = [job for job in self._jobs if not job.gone()]
        alive = [job for job in wanted if job.deadline_s > now_s]
        in_time = [job for job in alive if job.arrived_s + self._longest_wait_s > now_s]
        alive = in_time or alive
        kept = set(map(id, alive))
        late = [job for job in wanted if id(job) not in kept]
        batch = [job for job in alive if job.key == alive[0].key][: limit_of(alive[0].key)] if alive else []
        taken = set(map(id, batch))
        self._jobs = [job for job in alive if id(job) not in taken]
        for job in late:
            self.owe(job.client)
        if batch:
            self._turn = max(self._turn, batch[0].turn)
        self._next_turn = {name: turn for name, turn in self._next_turn.items() if turn > self._turn}
        return batch, late
