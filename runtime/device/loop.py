"""The edge loop: real frames through decision, head, link and fallback. Three kinds of thread share one lock.

The caller's thread takes frames in order: it decides, runs heads and sends. A second one finishes frames whose answer
does not come, and gives up those whose deadline has passed. Answers arrive on the client's threads. What is decided in
each case is told by `Schedule`, `Estimator` and `Breaker`, which know of no thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.observation import Controller, Situation, observe
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Demands, Floats
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.device.breaker import Breaker
from tidesplit.runtime.device.engine import Engine, Pacer, wait
from tidesplit.runtime.device.further_hops import FurtherHop, NoFurtherHop
from tidesplit.runtime.device.record import Record, Settlement
from tidesplit.runtime.device.schedule import AnsweredBy, Flight, Schedule, due_s, too_late
from tidesplit.runtime.device.source import Picture
from tidesplit.runtime.wire.answers import HopTimes, NextTiming, ServerTiming
from tidesplit.runtime.wire.estimator import Estimator, Settled

__all__ = ["Client", "Device", "Done", "Failure", "Receipt", "Reply"]

ANSWER_LIMIT_S = 2.0  # an answer this late still tells how the link is; then it counts as lost
PROBE_LIMIT_S = 1.0  # ten round trips of a good link
# Lateness that pacing makes good: a device as busy as its period would carry every hiccup of this machine along until
# its next drop. More means that this machine is too slow for the pace.
CATCH_UP_S = 0.05
GREETINGS = 3  # the quickest of a few is near enough to one way of the empty link
PING_BYTES = 64.0  # probes of a link that is gone pile up in front of it: they carry next to nothing


@dataclass(frozen=True)
class Reply:
    """What a server answered: `logits` `[classes]`, None to a probe, and what it says of the time.

    `onward`: the tier behind it, where the frame went on; `newest`: what the server knows of the link to it.
    """

    logits: NDArray[np.float32] | None
    timing: ServerTiming
    onward: NextTiming | None = None
    newest: HopTimes | None = None


@dataclass(frozen=True)
class Failure:
    """Why there is no answer, in words."""

    reason: str


Done = Callable[[Reply | Failure], None]
Receipt = Callable[[ServerTiming], None]


class Client(Protocol):
    """Sends without waiting; `done` is called once for each, on a thread of the client's."""

    def infer(
        self, number: int, point_id: str, payload: bytes, limit_s: float, done: Done,
        receipt: Receipt | None = None, probe_next: bool = False,
    ) -> None:  # fmt: skip
        """Send a frame's payload. `receipt` is called when a middle tier sends it on, `probe_next`: see `Request`."""
        ...

    def probe(self, size: int, limit_s: float, done: Done, probe_next: bool = False) -> None:
        """Send `size` bytes that mean nothing."""
        ...


@dataclass
class _Open:
    """A frame whose answer is awaited."""

    record: Record
    feature: NDArray[np.float32]
    can_finish: bool


@dataclass
class Device:
    """One camera device. `log` is called once a frame, when it is settled, from whichever thread settles it.

    `paced`: head and finish take as long as the table says (emulated) instead of as long as they take. `started` is
    called when the first frame arrives.
    """

    controller: Controller
    table: PointTable
    demand: Demand
    engine: Engine
    client: Client
    log: Callable[[Record], None]
    world: World = field(default_factory=World)
    paced: bool = False
    seed: int = 0
    started: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._epoch = time.perf_counter()
        self._estimator = Estimator(self.world.window)
        further = len(self.table.hops) > 1
        self._further: FurtherHop = FurtherHop(self.world) if further else NoFurtherHop(self.world)
        self.breaker = Breaker(np.random.default_rng(self.seed))
        self._schedule = Schedule()
        self._pacer = Pacer(self.now_s)
        self._lock = threading.Condition()
        self._open: dict[int, _Open] = {}
        self._start_s = self._free_s = 0.0
        self._slow_down = 1.0
        self._last_row = -1
        self._probes = 0
        self._finishing = False
        self._closing = False

    def now_s(self) -> float:
        """The device's clock: seconds since it was made."""
        return time.perf_counter() - self._epoch

    def run(self, pictures: Iterator[Picture], frames: int | None = None) -> None:
        """Take frames at the demand's rate until there are no more pictures, or so many were taken; settle all."""
        finisher = threading.Thread(target=self._finish_frames, name="finisher", daemon=True)
        self._greet()
        self.started()
        self._start_s = self.now_s()
        finisher.start()
        try:
            for number, picture in enumerate(pictures):
                self._take(number, picture)
                if number + 1 == frames:
                    break
        finally:
            with self._lock:
                self._closing = True
                self._lock.notify_all()
            finisher.join()

    def _greet(self) -> None:
        """Connect before the first frame, and learn one way of the empty link from messages of next to no bytes.

        What the first one took is not counted: it waits for the connection, and for a server that never answered yet.
        """
        for number in range(1 + GREETINGS):
            answered = threading.Event()
            key = self._key()
            with self._lock:
                probe_next = self._further.asks_for_probe(key, self.now_s())  # a middle server greets the next one
                if number:
                    self._estimator.sent(key, self.now_s(), Settled(PING_BYTES + self.world.overhead_bytes))

            def done(got: Reply | Failure, key: int = key, answered: threading.Event = answered) -> None:
                self._answered(key, got)
                answered.set()

            self.client.probe(int(PING_BYTES), PROBE_LIMIT_S, done, probe_next)
            answered.wait(PROBE_LIMIT_S)

    def _key(self) -> int:
        """A number for a message that is no frame."""
        self._probes += 1
        return -self._probes

    def _take(self, number: int, picture: Picture) -> None:
        """One frame's turn: decide, run the head, answer or send."""
        arrival_s = self._start_s + number * self.demand.period_s
        if (early := arrival_s - self.now_s()) > 0.0:
            wait(early)
        self._wait_for_finishes()
        now_s, taken_s = self._turn_s(arrival_s), self._pacer.taken_s()
        record, row = self._decide(number, picture, arrival_s, now_s)
        work_s = float(self.table.head_s[row])
        dropped = too_late(self.demand, now_s - arrival_s, work_s * self._slow_down)
        if dropped or self.table.local[row]:
            self._maybe_probe(self.now_s())
        if dropped:
            self._settle_now(record, "miss")
            return
        result = self.engine.head(record.decision, picture.pixels)
        if self.paced:
            self._free_s = self._pacer.work(now_s, work_s, taken_s)
        end_s = self.now_s()
        record.head_s = end_s - now_s
        if not self.paced:
            self._slow_down = record.head_s / work_s
        self._last_row = row
        if result.payload is None:
            assert result.logits is not None
            record.conclude(result.logits, self.engine.cnn.classes)
            in_time = end_s - arrival_s <= self.demand.deadline_s
            self._settle_now(record, "device" if in_time else "miss")
            return
        self._send(record, row, result.payload, result.feature, end_s)

    def _turn_s(self, arrival_s: float) -> float:
        """The moment of a frame's turn: now; paced, when it would be on a device that loses no time in between."""
        now_s = self.now_s()
        due_s = max(arrival_s, self._free_s)
        return due_s if self.paced and now_s - due_s < CATCH_UP_S else now_s

    def _wait_for_finishes(self) -> None:
        """Frames that the device finishes go before new ones, as in the world."""
        with self._lock:
            while self._finishing:
                self._lock.wait(0.5)

    def _decide(self, number: int, picture: Picture, arrival_s: float, now_s: float) -> tuple[Record, int]:
        def one(value: float) -> Floats:
            return np.array([value])

        with self._lock:
            transfers = (self._estimator.transfers(), *self._further.transfers())
            blocked, reason = self.breaker.blocked, self.breaker.reason
        situation = Situation(
            one(now_s), one(now_s - arrival_s), transfers, one(self._slow_down), np.array([self._last_row]),
            np.array([blocked]),
        )  # fmt: skip
        observation = observe(situation, self.table, Demands.of(self.demand), self.world)
        begin = time.perf_counter()
        row = int(self.controller.predict(observation)[0])
        record = Record.of(number, picture, self.demand, self.table, observation, row)
        record.arrival_s, record.waited_s, record.breaker = arrival_s, now_s - arrival_s, self.breaker.state
        record.decided_s, record.decided_at_s, record.error = time.perf_counter() - begin, now_s, reason or None
        return record, row

    def _send(self, record: Record, row: int, payload: bytes, feature: NDArray[np.float32], end_s: float) -> None:
        table, demand = self.table, self.demand
        finish_s = float(table.finish_s[row]) * self._slow_down
        accurate = bool(table.finish_accuracy[row] >= demand.min_accuracy)
        can = accurate and bool(np.isfinite(table.finish_s[row]))
        due = due_s(
            demand, record.arrival_s, end_s, finish_s, record.arrival_s + record.foreseen["latency_s"], can,
            self.world.guard_s,
        )  # fmt: skip
        size = len(payload) + self.world.overhead_bytes
        answer = (due, finish_s if can else 0.0, float(table.server_s[row]))
        onward = next((hop for hop in table.hops[1:] if hop.sends[row]), None)
        # Where a frame goes on, the first hop has the middle server's receipt, the second the answer.
        settled = Settled(size, *answer) if onward is None else Settled(size, tail_s=float(onward.compute_s[row]))
        record.sent_bytes = len(payload)
        with self._lock:
            self._open[record.frame] = _Open(record, feature, can)
            self._schedule.sent(Flight(record.frame, record.arrival_s + demand.deadline_s, due))
            self._estimator.sent(record.frame, end_s, settled)
            if onward is not None:
                body = len(payload) if onward.relays[row] else float(onward.bytes_mean[row])
                back_s = 0.5 * record.state["rtt_s"]  # from the middle server, which has the answer first
                second = Settled(body + self.world.overhead_bytes, due, answer[1], answer[2] + back_s)
                ready_s = record.decided_at_s + record.foreseen["hop2_ready_s"]
                self._further.sent(record.frame, end_s, ready_s, second)
            probe_next = onward is None and self._further.asks_for_probe(record.frame, end_s)
            self._lock.notify_all()
        self.client.infer(
            record.frame, record.decision, payload, ANSWER_LIMIT_S, lambda got: self._answered(record.frame, got),
            None if onward is None else lambda timing: self._passed_on(record.frame, timing), probe_next,
        )  # fmt: skip

    def _passed_on(self, key: int, timing: ServerTiming) -> None:
        """Take the middle server's receipt for a frame that it sends on. On a thread of the client's."""
        with self._lock:
            if self._further.passed_on(key):
                opened, now_s = self._open.get(key), self.now_s()
                waited = timing.compute_s > 0.0  # what is passed on as it is does not wait
                timed = self._estimator.answered(key, now_s, timing.received_s, timing.wait_s, waited)
                if opened is not None and timed is not None:
                    opened.record.uplink_s, opened.record.rtt_s = timed

    def _maybe_probe(self, now_s: float) -> None:
        """After a long silence, or to find out whether a link that failed is back."""
        with self._lock:
            silent = now_s - self._estimator.last_sent_s >= self.world.probe_after_s
            if self.breaker.wants_probe(now_s):
                self.breaker.probing()
                size = PING_BYTES
            elif not self.breaker.blocked and silent and self._estimator.unanswered == 0:
                size = self.world.probe_bytes - self.world.overhead_bytes
            else:
                return
            key = self._key()
            self._estimator.sent(key, now_s, Settled(size + self.world.overhead_bytes))
            probe_next = self._further.asks_for_probe(key, now_s)
        self.client.probe(int(size), PROBE_LIMIT_S, lambda got: self._answered(key, got), probe_next)

    def _answered(self, key: int, got: Reply | Failure) -> None:
        """On a thread of the client's: a message was answered, or failed."""
        now_s = self.now_s()
        with self._lock:
            opened = self._open.get(key)
            if isinstance(got, Failure):
                if not self._further.failed(key):  # else the device's own link is well
                    self.breaker.failed(now_s, got.reason)
                if opened is not None:
                    opened.record.error = got.reason
                    self._schedule.lost(key, now_s, opened.can_finish)
                    self._lock.notify_all()
                return
            took = got.timing
            timed = None
            # What was sent on had its receipt, which has told of the first link already.
            if not self._further.answered(key, now_s, got.onward, got.newest):
                waited = got.logits is not None  # a probe's answer tells what frames wait
                timed = self._estimator.answered(key, now_s, took.received_s, took.wait_s, waited)
            if self.breaker.succeeded():
                self._estimator.forget_unanswered()
            if opened is None or got.logits is None or not self._schedule.settle(key):
                return
            record = opened.record
            if timed is not None:
                record.uplink_s, record.rtt_s = timed
            record.server_s = took.wait_s + took.compute_s
            record.onward_s = None if got.onward is None else got.onward.total_s
            in_time = now_s <= record.arrival_s + self.demand.deadline_s
            record.conclude(got.logits, self.engine.cnn.classes)
            self._settle_open(key, "server" if in_time else "miss", now_s)

    def _finish_frames(self) -> None:
        """The finisher's loop; ends when the device closes and nothing is under way."""
        while True:
            with self._lock:
                while (task := self._schedule.take(self.now_s())) is None:
                    if self._closing and not self._schedule.under_way:
                        return
                    self._lock.wait(min(max(self._schedule.next_s() - self.now_s(), 0.0), 0.5))
                if task.kind == "miss":
                    if self._schedule.settle(task.number):
                        self._settle_open(task.number, "miss", self.now_s())
                    continue
                opened = self._open[task.number]
                self._finishing = True
            self._finish(task.number, opened)

    def _finish(self, number: int, opened: _Open) -> None:
        begun_s = self.now_s()
        record = opened.record
        self._pacer.finish_begins(begun_s)
        logits: NDArray[np.float32] | None = None
        try:
            logits = self.engine.finish(record.decision, opened.feature)
            if self.paced:
                wait(begun_s + float(self.table.finish_s[self.table.row(record.decision)]) - self.now_s())
        except Exception as error:  # of ONNX Runtime, without a public class: the frame is missed, the next ones go on
            record.error = f"the device could not finish the frame: {error}"
        finally:
            self._pacer.finish_ends()
        with self._lock:
            self._finishing = False
            self._free_s = max(self._free_s, self.now_s()) if self.paced else 0.0
            self._lock.notify_all()
            record.finish_s = self.now_s() - begun_s
            if logits is not None and self._schedule.settle(number):
                record.conclude(logits, self.engine.cnn.classes)
                in_time = self.now_s() <= record.arrival_s + self.demand.deadline_s
                self._settle_open(number, "device" if in_time else "miss", self.now_s())

    def _settle_open(self, number: int, by: AnsweredBy, now_s: float) -> None:
        record = self._open.pop(number).record
        self._write(record, by, now_s)

    def _settle_now(self, record: Record, by: AnsweredBy) -> None:
        self._write(record, by, self.now_s())

    def _write(self, record: Record, by: AnsweredBy, now_s: float) -> None:
        record.settle(Settlement(by, now_s - record.arrival_s), self.demand, self.table)
        self.log(record)
