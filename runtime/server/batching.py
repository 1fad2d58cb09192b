"""Frames that wait for a worker: what is taken together, what has waited too long, how long a frame would wait now.

`Queue` and `WaitEstimate` are values over a clock passed in; `Batcher` is the shell around them: an event loop in
front, a pool of threads behind. Nothing waits to fill a batch: what is there when a worker falls idle is taken.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from tidesplit.runtime.wire.messages import RefusedError

__all__ = ["Batcher", "Computed", "Job", "Queue", "WaitEstimate", "Work"]

FORGET_S = 1.0  # after a second a wait says little about the next one: thirty frames of one camera have passed
SHARE = 0.2  # of the newest wait in the mean


@dataclass(eq=False)
class Job:
    """One frame's work. Jobs of one `key` may be computed together. Times are of one monotonic clock."""

    key: str
    item: Any
    arrived_s: float
    deadline_s: float
    gone: Callable[[], bool] = field(default=lambda: False)  # whether nobody waits for it any more
    settle: Callable[[Any], None] = field(default=lambda _: None)


class Queue:
    """First come, first served, bounded; jobs of the oldest one's key may overtake others to come along with it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._jobs: list[Job] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> bool:
        """Whether there was room, after those that nobody waits for have made theirs."""
        if len(self._jobs) >= self.limit:
            self._jobs = [waiting for waiting in self._jobs if not waiting.gone()]
        if len(self._jobs) >= self.limit:
            return False
        self._jobs.append(job)
        return True

    def take(self, now_s: float, limit_of: Callable[[str], int]) -> tuple[list[Job], list[Job]]:
        """The next batch, of one key, and the jobs found to be too late. Those that nobody waits for just go."""
        late = [job for job in self._jobs if not job.gone() and job.deadline_s <= now_s]
        alive = [job for job in self._jobs if not job.gone() and job.deadline_s > now_s]
        batch = [job for job in alive if job.key == alive[0].key][: limit_of(alive[0].key)] if alive else []
        taken = set(map(id, batch))
        self._jobs = [job for job in alive if id(job) not in taken]
        return batch, late


@dataclass
class WaitEstimate:
    """Mean of recent waits, recent ones weighing more, fading with age."""

    mean_s: float = 0.0
    at_s: float = -math.inf

    def expected_s(self, now_s: float) -> float:
        """Wait of a frame that came now."""
        return self.mean_s * math.exp(-max(0.0, now_s - self.at_s) / FORGET_S)

    def observe(self, now_s: float, wait_s: float) -> None:
        """One more frame has waited."""
        self.mean_s, self.at_s = (1 - SHARE) * self.expected_s(now_s) + SHARE * wait_s, now_s


@dataclass(frozen=True)
class Computed:
    """A frame's result; when its batch began and how long it took."""

    value: Any
    began_s: float
    compute_s: float


class Work(Protocol):
    """What the workers do, off the event loop."""

    def limit(self, key: str) -> int:
        """How many jobs of this key the work can compute together."""

    def run(self, key: str, items: Sequence[Any]) -> Sequence[Any]:
        """A result, or the exception in its place, for each item."""


class Batcher:
    """Hands waiting frames to `workers` threads. All methods but `_compute` run on the event loop."""

    def __init__(
        self,
        work: Work,
        workers: int,
        max_batch: int,
        max_waiting: int,
        observe: Callable[[str, int], None] = lambda _key, _size: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._work, self._max_batch, self._observe, self._clock = work, max_batch, observe, clock
        self._queue, self._wait = Queue(max_waiting), WaitEstimate()
        self._idle, self._workers = workers, workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="compute")

    @property
    def waiting(self) -> int:
        """Frames in the queue."""
        return len(self._queue)

    def expected_wait_s(self) -> float:
        """Wait of a frame that came now: none while a worker is idle."""
        return 0.0 if self._idle else self._wait.expected_s(self._clock())

    async def submit(self, key: str, item: Any, arrived_s: float, deadline_s: float) -> Computed:
        """The result of one frame. RefusedError where the queue is full, or the deadline passed before its turn."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Computed] = loop.create_future()
        job = Job(key, item, arrived_s, deadline_s, future.cancelled, lambda result: _settle(future, result))
        if not self._queue.put(job):
            raise RefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{len(self._queue)} frames wait already, the limit here"
            )
        self._start_idle_workers(loop)
        return await future

    def _start_idle_workers(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._idle and len(self._queue):
            batch, late = self._queue.take(self._clock(), lambda key: min(self._max_batch, self._work.limit(key)))
            for job in late:
                job.settle(_too_late(job, self._clock()))
            if batch:
                self._idle -= 1
                self._pool.submit(self._compute, loop, batch)

    def _compute(self, loop: asyncio.AbstractEventLoop, batch: list[Job]) -> None:
        """In a worker thread."""
        began_s = self._clock()
        try:
            results = self._work.run(batch[0].key, [job.item for job in batch])
        except Exception as error:  # whatever it is, each of these frames gets an answer
            results = [error] * len(batch)
        took_s = self._clock() - began_s
        done = [r if isinstance(r, Exception) else Computed(r, began_s, took_s) for r in results]
        loop.call_soon_threadsafe(self._finish, loop, batch, done, began_s)

    def _finish(self, loop: asyncio.AbstractEventLoop, batch: list[Job], done: list[Any], began_s: float) -> None:
        self._idle += 1
        self._observe(batch[0].key, len(batch))
        for job, result in zip(batch, done, strict=True):
            self._wait.observe(self._clock(), began_s - job.arrived_s)
            job.settle(result)
        self._start_idle_workers(loop)

    async def close(self) -> None:
        """Wait for the batches under way; nothing may be submitted any more."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
        await asyncio.sleep(0)  # lets the last results, already on their way to the loop, arrive


def _settle(future: asyncio.Future[Computed], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _too_late(job: Job, now_s: float) -> RefusedError:
    waited_ms = 1e3 * (now_s - job.arrived_s)
    return RefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, f"the deadline passed after {waited_ms:.0f} ms in the queue")
