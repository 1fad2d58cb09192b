"""Workers for the frames that wait: batches, refusals of frames that would wait too long, and the wait to expect.

`Batcher` connects a `Queue` to an event loop and a pool of threads. No frame waits for a batch to fill: a worker takes
the frames that are there.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import grpc

from tidesplit.runtime.server.fair_queue import Job, Queue
from tidesplit.runtime.wire.messages import RefusedError

# A client whose frame was refused because of the load shall wait as long as a frame does now, within these limits.
LEAST_PUSHBACK_S, MOST_PUSHBACK_S = 0.1, 1.0
FORGET_S = 1.0  # time constant of the mean wait; thirty frames of one camera pass in it
HAND_OVER_S = 0.004  # a twentieth of a frame's usual deadline
SHARE = 0.2  # weight of the newest wait or time in its mean


@dataclass
class WaitEstimate:
    """Exponential mean of recent waits, which decays to zero while no frame comes."""

    mean_s: float = 0.0
    at_s: float = -math.inf

    def expected_s(self, now_s: float) -> float:
        """The wait that a frame can expect now."""
        return self.mean_s * math.exp(-max(0.0, now_s - self.at_s) / FORGET_S)

    def observe(self, now_s: float, wait_s: float) -> None:
        """Add the wait of one more frame."""
        self.mean_s, self.at_s = (1 - SHARE) * self.expected_s(now_s) + SHARE * wait_s, now_s


@dataclass(frozen=True)
class Computed:
    """A frame's result, with the start and the duration of its batch."""

    value: Any
    began_s: float
    compute_s: float


class Work(Protocol):
    """The computation that workers do, off the event loop."""

    def limit(self, key: str) -> int:
        """Jobs of this key that can be computed together."""

    def run(self, key: str, items: Sequence[Any]) -> Sequence[Any]:
        """For each item its result or an exception."""


class Batcher:
    """Lets `workers` threads compute the frames that wait. Methods without an underscore run on the event loop.

    A worker takes batches by itself until no frame waits, so that it never waits for the event loop. Each hand-over of
    results wakes the event loop, which costs about as much as a small tail where both share a core. So results leave
    together, but none waits for others longer than `HAND_OVER_S`.
    """

    def __init__(
        self,
        work: Work,
        workers: int,
        max_batch: int,
        max_waiting: int,
        observe: Callable[[str, int], None] = lambda _key, _size: None,
        clock: Callable[[], float] = time.perf_counter,
        longest_wait_s: float = math.inf,
    ) -> None:
        self._work, self._max_batch, self._observe, self._clock = work, max_batch, observe, clock
        self._lock = threading.Lock()  # of the queue and of `_idle`
        self._queue, self._wait = Queue(max_waiting, longest_wait_s), WaitEstimate()
        self._longest_wait_s = longest_wait_s
        self._frame_s: dict[str, float] = {}  # mean time of a frame by key, of the newest batches
        self._workers = self._idle = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="compute")

    @property
    def waiting(self) -> int:
        """Frames in the queue."""
        return len(self._queue)

    def expected_wait_s(self) -> float:
        """The wait that a frame can expect now; zero while a worker is idle."""
        return 0.0 if self._idle else self._wait.expected_s(self._clock())

    def pushback_s(self) -> float:
        """The time for which a client shall pause whose frame is refused because of the load."""
        return min(max(LEAST_PUSHBACK_S, self.expected_wait_s()), MOST_PUSHBACK_S)

    def make_room(self, client: str) -> bool:
        """Refuse a waiting frame of the client with most of them, for one of `client`. Returns False if unfair."""
        with self._lock:
            job = self._queue.displaced(client)
        if job is None:
            return False
        sentence = "the server is full, and this device has most of the frames that wait"
        job.settle(
            RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, sentence, limit="displaced", pushback_s=self.pushback_s())
        )
        return True

    async def submit(self, key: str, item: Any, arrived_s: float, deadline_s: float, client: str = "") -> Computed:
        """The result of one frame. RefusedError where it would wait too long, or the queue is full."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Computed] = loop.create_future()
        job = Job(key, item, arrived_s, deadline_s, future.cancelled, partial(_settle, future), client)
        with self._lock:
            wait_s = sum(self._frame_s.get(ahead, 0.0) for ahead in self._queue.ahead(client)) / self._workers
            placed = wait_s <= self._longest_wait_s and self._queue.put(job)
            begins = placed and self._idle > 0
            self._idle -= begins
            if wait_s > self._longest_wait_s:
                self._queue.owe(client)
        if wait_s > self._longest_wait_s:
            raise self._waits_long(wait_s)
        if not placed:
            raise RefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self.waiting} frames wait already, the limit here",
                limit="full", pushback_s=self.pushback_s(),
            )  # fmt: skip
        if begins:
            self._pool.submit(self._compute, loop)
        try:
            return await future
        finally:
            del job, future  # they hold a failure, whose traceback would hold them

    def _waits_long(self, wait_s: float) -> RefusedError:
        limit_ms = 1e3 * self._longest_wait_s
        sentence = f"a frame would wait for {1e3 * wait_s:.0f} ms, the limit here is {limit_ms:.0f} ms"
        return RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, sentence, limit="wait", pushback_s=self.pushback_s())

    def _too_late(self, job: Job, now_s: float) -> RefusedError:
        waited_s = now_s - job.arrived_s
        if now_s < job.deadline_s:
            return self._waits_long(waited_s)
        sentence = f"the deadline passed after {1e3 * waited_s:.0f} ms in the queue"
        return RefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, sentence)

    def _compute(self, loop: asyncio.AbstractEventLoop) -> None:
        """Compute batches until no frame waits, in a worker thread."""
        batch, done = self._next()
        first_s = math.inf  # end of the oldest batch that is not handed over yet
        while batch:
            began_s = self._clock()
            done.append(_Batch(batch, self._results(batch, began_s), began_s))
            now_s = self._clock()
            first_s = min(first_s, now_s)
            if now_s - first_s + (now_s - began_s) > HAND_OVER_S:  # the next batch may take as long
                loop.call_soon_threadsafe(self._finish, done)
                done, first_s = [], math.inf
            batch, late = self._next()
            done += late
        loop.call_soon_threadsafe(self._finish, done)

    def _next(self) -> tuple[list[Job], list[_Batch]]:
        """The next batch, and those that are too late. The worker is idle where there is no batch."""
        with self._lock:
            batch, late = self._queue.take(self._clock(), lambda key: min(self._max_batch, self._work.limit(key)))
            self._idle += not batch  # under the lock: a frame that comes from now on starts a worker
        now_s = self._clock()
        return batch, [_Batch([job], [self._too_late(job, now_s)], None) for job in late]

    def _results(self, batch: list[Job], began_s: float) -> list[Any]:
        try:
            results = self._work.run(batch[0].key, [job.item for job in batch])
        except Exception as error:  # each frame of the batch is answered with it
            results = [error] * len(batch)
        took_s = self._clock() - began_s
        mean_s = self._frame_s.setdefault(batch[0].key, took_s / len(batch))
        self._frame_s[batch[0].key] = (1 - SHARE) * mean_s + SHARE * took_s / len(batch)
        return [r if isinstance(r, Exception) else Computed(r, began_s, took_s) for r in results]

    def _finish(self, done: list[_Batch]) -> None:
        """Settle frames, on the event loop."""
        for batch in done:
            if batch.began_s is not None:
                self._observe(batch.jobs[0].key, len(batch.jobs))
            for job, result in zip(batch.jobs, batch.results, strict=True):
                if batch.began_s is not None:
                    self._wait.observe(self._clock(), batch.began_s - job.arrived_s)
                job.settle(result)

    async def close(self) -> None:
        """Wait for the frames that wait or are under way. No more frames may be submitted."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
        await asyncio.sleep(0)  # the last results are on their way to the event loop


@dataclass(frozen=True)
class _Batch:
    """Jobs with their results, in the same order. ``began_s`` is None where they were too late to be computed."""

    jobs: list[Job]
    results: list[Any]
    began_s: float | None


def _settle(future: asyncio.Future[Computed], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
