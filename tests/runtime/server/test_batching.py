"""Batches and late jobs as tables; then the batcher, with work that waits for a signal."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from tidesplit.runtime.server.batching import Batcher, WaitEstimate
from tidesplit.runtime.server.fair_queue import Job, Queue
from tidesplit.runtime.wire.messages import RefusedError

TAKEN = [
    # jobs as (key, deadline), limit, time -> keys taken, late, left
    ([], 4, 0.0, [], 0, 0),
    ([("a", 9), ("b", 9), ("a", 9)], 4, 0.0, ["a", "a"], 0, 1),
    ([("a", 9), ("a", 9), ("a", 9)], 2, 0.0, ["a", "a"], 0, 1),
    ([("a", 1), ("b", 9), ("a", 9)], 4, 1.0, ["b"], 1, 1),
    ([("a", 1), ("b", 1)], 4, 2.0, [], 2, 0),
]


def job(key: str, deadline_s: float = 9.0) -> Job:
    return Job(key, None, 0.0, deadline_s)


@pytest.mark.parametrize(("jobs", "limit", "now_s", "keys", "late", "left"), TAKEN)
def test_batches(jobs: Any, limit: int, now_s: float, keys: list[str], late: int, left: int) -> None:
    queue = Queue(limit=8)
    assert all(queue.put(job(key, deadline)) for key, deadline in jobs)
    batch, too_late = queue.take(now_s, lambda _: limit)
    assert [j.key for j in batch] == keys
    assert (len(too_late), len(queue)) == (late, left)


@pytest.mark.parametrize(
    ("came_s", "taken", "late"),
    [
        ([0.0, 0.95], [0.95], 1), ([0.0, 0.1], [0.0, 0.1], 0), ([0.0, 0.5, 0.99], [0.99], 2),
        ([0.95, 0.99], [0.95, 0.99], 0),
    ],
)  # fmt: skip
def test_who_waited_too_long_is_given_up_for_others(came_s: list[float], taken: list[float], late: int) -> None:
    """After 0.1 s of waiting, at the time 1.0. Where nobody else waits, such a frame is computed all the same."""
    queue = Queue(limit=8, longest_wait_s=0.1)
    assert all(queue.put(Job("a", None, at_s, 9.0)) for at_s in came_s)
    batch, too_late = queue.take(1.0, lambda _: 8)
    assert ([job.arrived_s for job in batch], len(too_late), len(queue)) == (taken, late, 0)


def test_queue_is_bounded_and_abandoned_jobs_make_room() -> None:
    queue = Queue(limit=2)
    gone = Job("a", None, 0.0, 9.0, gone=lambda: True)
    assert [queue.put(job("a")), queue.put(gone), queue.put(job("a")), queue.put(job("a"))] == [True, True, True, False]
    batch, late = queue.take(0.0, lambda _: 8)
    assert (len(batch), late) == (2, [])


def test_expected_wait_fades() -> None:
    wait = WaitEstimate()
    assert wait.expected_s(5.0) == 0.0
    for _ in range(200):
        wait.observe(5.0, 0.1)
    assert wait.expected_s(5.0) == pytest.approx(0.1)
    assert wait.expected_s(6.0) == pytest.approx(0.1 / math.e)


class Gate:
    """Work that waits until it is let go, and records its batches."""

    def __init__(self, limit: int = 100) -> None:
        self.batches: list[tuple[str, list[Any]]] = []
        self.let_go, self.begun = threading.Event(), threading.Event()
        self._limit = limit

    def limit(self, key: str) -> int:
        return self._limit

    def run(self, key: str, items: Sequence[Any]) -> list[Any]:
        self.batches.append((key, list(items)))
        self.begun.set()
        assert self.let_go.wait(20.0)
        if key == "broken":
            raise MemoryError("no memory")
        return [ValueError(item) if item == "bad" else f"{item}!" for item in items]


async def begun(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.begun.wait, 20.0)


def submit(batcher: Batcher, key: str, item: Any, limit_s: float = 60.0) -> asyncio.Task[Any]:
    now_s = time.perf_counter()
    return asyncio.ensure_future(batcher.submit(key, item, now_s, now_s + limit_s))


@pytest.mark.parametrize(("limit", "sizes"), [(100, [1, 3, 1]), (2, [1, 2, 1, 1]), (1, [1, 1, 1, 1, 1])])
def test_waiting_frames_are_computed_together(limit: int, sizes: list[int]) -> None:
    async def run() -> None:
        gate = Gate(limit)
        batcher = Batcher(gate, workers=1, max_batch=8, max_waiting=8)
        tasks = [submit(batcher, "a", "0")]
        await begun(gate)
        tasks += [submit(batcher, key, item) for key, item in (("a", "1"), ("b", "2"), ("a", "bad"), ("a", "3"))]
        await asyncio.sleep(0)
        assert batcher.waiting == 4
        gate.let_go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [r if isinstance(r, Exception) else r.value for r in (results[0], results[2], results[4])] == [
            "0!", "2!", "3!",
        ]  # fmt: skip
        assert isinstance(results[3], ValueError)
        assert sorted(len(items) for _, items in gate.batches) == sorted(sizes)
        await batcher.close()

    asyncio.run(run())


def test_late_and_cancelled_are_not_computed_and_a_full_queue_says_so() -> None:
    async def run() -> None:
        gate = Gate()
        batcher = Batcher(gate, workers=1, max_batch=8, max_waiting=2)
        first = submit(batcher, "a", "first")
        await begun(gate)
        late, left = submit(batcher, "a", "late", 0.001), submit(batcher, "a", "left")
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="2 frames wait already") as full:
            await submit(batcher, "a", "too many")
        assert full.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        left.cancel()
        await asyncio.sleep(0.02)
        gate.let_go.set()
        assert (await first).value == "first!"
        with pytest.raises(RefusedError, match="the deadline passed") as caught:
            await late
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert [items for _, items in gate.batches] == [["first"]]
        await batcher.close()

    asyncio.run(run())


def test_failed_work_fails_only_its_own_frames() -> None:
    async def run() -> None:
        gate = Gate()
        gate.let_go.set()
        batcher = Batcher(gate, workers=2, max_batch=8, max_waiting=8)
        with pytest.raises(MemoryError):
            await submit(batcher, "broken", "x")
        assert (await submit(batcher, "a", "y")).value == "y!"
        assert batcher.expected_wait_s() == 0.0
        await batcher.close()

    asyncio.run(run())


class Clocked:
    """Work of so long for each frame, on a clock of its own."""

    def __init__(self, frame_s: float) -> None:
        self.now_s, self._frame_s = 0.0, frame_s
        self.first = threading.Event()

    def limit(self, key: str) -> int:
        return 1

    def run(self, key: str, items: Sequence[Any]) -> list[Any]:
        assert self.first.wait(20.0)
        self.now_s += self._frame_s
        return list(items)


def test_short_batches_are_handed_over_together_and_none_waits_long() -> None:
    """The worker hands over after three batches: a fourth would keep the first result for 4.5 ms."""

    async def run() -> None:
        work, handed = Clocked(0.0015), []
        batcher = Batcher(work, workers=1, max_batch=8, max_waiting=8, clock=lambda: work.now_s)
        finish = batcher._finish

        def noted(done: Any) -> None:
            handed.append(sum(len(batch.jobs) for batch in done))
            finish(done)

        batcher._finish = noted  # type: ignore[method-assign]
        tasks = [asyncio.ensure_future(batcher.submit("a", str(k), 0.0, 60.0)) for k in range(8)]
        await asyncio.sleep(0)
        work.first.set()
        assert [done.value for done in await asyncio.gather(*tasks)] == [str(k) for k in range(8)]
        assert handed == [3, 3, 2]
        await batcher.close()

    asyncio.run(run())


def test_a_frame_that_would_wait_too_long_is_refused_at_once() -> None:
    """A frame takes 40 ms here, and may wait for 100 ms. So a flood gets three places, and another client its own."""

    async def run() -> None:
        work = Clocked(frame_s=0.04)
        batcher = Batcher(work, 1, max_batch=8, max_waiting=64, clock=lambda: work.now_s, longest_wait_s=0.1)
        work.first.set()
        await batcher.submit("a", "known", 0.0, 60.0)  # from now on the time of a frame is known
        work.first.clear()
        flood = [asyncio.ensure_future(batcher.submit("a", str(k), work.now_s, 60.0, "flood")) for k in range(8)]
        await asyncio.sleep(0.05)  # the worker has taken the first one
        other = asyncio.ensure_future(batcher.submit("a", "other", work.now_s, 60.0, "other"))
        await asyncio.sleep(0)
        refused = [task.exception() for task in flood if task.done()]
        assert len(refused) in (4, 5), "three wait, one is computed; which is known to the worker only"
        for error in refused:
            assert isinstance(error, RefusedError)
            assert (error.code, error.limit) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "wait")
            assert error.pushback_s >= 0.1
            assert str(error) == "a frame would wait for 120 ms, the limit here is 100 ms"
        assert not other.done()
        work.first.set()
        assert (await other).value == "other"
        await asyncio.gather(*flood, return_exceptions=True)
        await batcher.close()

    asyncio.run(run())
