"""The device's loop: real frames through decision, head, link and fallback. Three kinds of thread share one lock.

The caller's thread takes frames in order: it decides, runs heads and sends. The finisher's thread runs fallbacks, and
gives up frames whose deadline has passed. Answers arrive on the client's threads. The rules are in `Schedule` and
`LinkKnowledge`, which have no thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.observation import Controller, Observation, Situation, observe
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Demands, Floats
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.camera.picture import Picture
from tidesplit.runtime.device.arrivals import Arrivals
from tidesplit.runtime.device.breaker import Breaker
from tidesplit.runtime.device.engine import Engine, Pacer, wait
from tidesplit.runtime.device.knowledge import Ahead, LinkKnowledge, Probe
from tidesplit.runtime.device.safeguard import Safeguard, as_drawn, quickest, rule, undrawn
from tidesplit.runtime.device.schedule import Flight, Schedule, due_s, too_late
from tidesplit.runtime.device.sending import Client, Done, Failure, Reply
from tidesplit.runtime.device.slow_down import SlowDown
from tidesplit.runtime.log.record import AnsweredBy, Record
from tidesplit.runtime.wire.answers import ServerTiming
from tidesplit.runtime.wire.estimator import Settled

ANSWER_LIMIT_S = 2.0  # a later answer counts as lost; an earlier one still has news of the link
PROBE_LIMIT_S = 1.0  # ten round trips of a good link
# Lateness that pacing makes up for. A device as busy as its period would carry every hiccup of this machine along until
# its next drop. If it is later, this machine is too slow for the pace.
CATCH_UP_S = 0.05
SLOW_SOURCE_S = 0.004  # a source that takes longer to give a picture did not have it yet
GREETINGS = 3  # the quickest of a few is near enough to the delay of the empty link


@dataclass
class _Open:
    """A frame that awaits its answer."""

    record: Record
    feature: NDArray[np.float32]
    can_finish: bool


@dataclass
class Device:
    """One camera device."""

    controller: Controller
    table: PointTable  # of this device
    demand: Demand
    engine: Engine
    client: Client
    log: Callable[[Record], None]  # called once for each frame, on the thread that settles it
    world: World = field(default_factory=World)
    paced: bool = False  # True: head and fallback take the time of the table (emulated)
    seed: int = 0  # of the breaker's random generator
    guarded: bool = True  # False: the controller decides every frame, also where all of its frames fail
    started: Callable[[], None] = lambda: None  # called just before the first frame arrives

    def __post_init__(self) -> None:
        self._epoch = time.perf_counter()
        self._links = LinkKnowledge(self.world, len(self.table.hops), np.random.default_rng(self.seed))
        self._schedule = Schedule()
        self._pacer = Pacer(self.now_s)
        self._lock = threading.Condition()
        self._open: dict[int, _Open] = {}
        self._arrivals = Arrivals(0.0, self.demand.period_s)
        self._free_s = 0.0
        self._slow_down = SlowDown()
        self._safeguard = Safeguard(self.demand.period_s)
        self._last_row = -1
        self._finishing = False
        self._closing = False

    @property
    def breaker(self) -> Breaker:
        """The breaker of the first hop."""
        return self._links.breaker

    def now_s(self) -> float:
        """The device's clock, in seconds since it was made."""
        return time.perf_counter() - self._epoch

    def run(self, pictures: Iterator[Picture], frames: int | None = None) -> None:
        """Take frames at the demand's rate, at most `frames`, until there are no more pictures. Then settle all."""
        finisher = threading.Thread(target=self._finish_frames, name="finisher", daemon=True)
        self._greet()
        self.started()
        self._arrivals = Arrivals(self.now_s(), self.demand.period_s)
        finisher.start()
        try:
            for number, (picture, came_s) in enumerate(self._coming(pictures)):
                self._take(number, picture, self._arrivals.next_s(came_s))
                if number + 1 == frames:
                    break
        finally:
            with self._lock:
                self._closing = True
                self._lock.notify_all()
            finisher.join()

    def _coming(self, pictures: Iterator[Picture]) -> Iterator[tuple[Picture, float | None]]:
        """Pictures, each with the moment at which it came, None for one that was there already.

        A camera is asked as late as possible, because the picture that it then gives is newer.
        """
        live = False
        while True:
            if live:
                wait(self._arrivals.soonest_s - self.now_s())
            asked_s = self.now_s()
            if (picture := next(pictures, None)) is None:
                return
            got_s = self.now_s()
            live = picture.taken_s is not None
            if picture.taken_s is not None:
                yield picture, picture.taken_s - self._epoch
            else:
                yield picture, got_s if got_s - asked_s >= SLOW_SOURCE_S else None

    def _greet(self) -> None:
        """Connect before the first frame, and learn the delay of the empty link from tiny messages.

        The first message is not timed, because it waits for the connection and for a server that never answered yet.
        """
        for number in range(1 + GREETINGS):
            answered = threading.Event()
            with self._lock:
                probe = self._links.greeting(self.now_s(), timed=number > 0)

            def done(got: Reply | Failure, key: int = probe.key, answered: threading.Event = answered) -> None:
                self._answered(key, got)
                answered.set()

            self._probe(probe, done)
            answered.wait(PROBE_LIMIT_S)

    def _take(self, number: int, picture: Picture, arrival_s: float) -> None:
        """One frame's turn: decide, run the head, answer or send."""
        if (early := arrival_s - self.now_s()) > 0.0:
            wait(early)
        self._wait_for_finishes()
        now_s, taken_s = self._turn_s(arrival_s), self._pacer.taken_s()
        record, observation = self._decide(number, picture, arrival_s, now_s)
        work_s = float(self.table.head_s[record.row])
        if record.dropped or self.table.local[record.row]:
            self._maybe_probe()
        if record.dropped:
            self._safeguard.dropped()
            self._settle(record, "miss", self.now_s())
            return
        self._safeguard.ran()
        result = self.engine.head(record.decision, picture.pixels)
        if self.paced:
            self._free_s = self._pacer.work(now_s, work_s, taken_s)
        end_s = self.now_s()
        record.head_s = end_s - now_s
        if not self.paced:
            self._slow_down.ran(end_s, work_s, record.head_s)
        self._last_row = record.row
        if result.payload is None:
            assert result.logits is not None
            record.conclude(result.logits, self.engine.cnn.classes)
            self._settle(record, "device", end_s)
            return
        self._send(record, observation, result.payload, result.feature, end_s)

    def _turn_s(self, arrival_s: float) -> float:
        """The moment of a frame's turn: now, or if paced, its moment on a device that loses no time in between."""
        now_s = self.now_s()
        due_s = max(arrival_s, self._free_s)
        return due_s if self.paced and now_s - due_s < CATCH_UP_S else now_s

    def _wait_for_finishes(self) -> None:
        """Let fallbacks go before new frames, as in the world."""
        with self._lock:
            while self._finishing:
                self._lock.wait(0.5)

    def _decide(self, number: int, picture: Picture, arrival_s: float, now_s: float) -> tuple[Record, Observation]:
        def one(value: float) -> Floats:
            return np.array([value])

        with self._lock:
            transfers = self._links.transfers()
            blocked, reason = self.breaker.blocked, self.breaker.reason
        slow_down, waited_s = self._slow_down.at(now_s), now_s - arrival_s
        situation = Situation(
            one(now_s), one(waited_s), transfers, one(slow_down), np.array([self._last_row]), np.array([blocked])
        )
        observation = self._observe(situation)
        begin = time.perf_counter()
        row, given, by_rule = self._choose(situation, observation)
        late = self._too_late(row, waited_s, slow_down)
        if late and self.guarded and self._safeguard.starved():
            # Only a run can show that the frame would not have been late after all.
            row, by_rule = quickest(observation), True
            late = self._too_late(row, waited_s, min(slow_down, 1.0))
        record = Record.of(number, picture, self.demand, self.table, observation, row)
        record.out_of_range, record.by_rule, record.dropped = undrawn(observation, given), by_rule, late
        record.arrival_s, record.waited_s, record.breaker = arrival_s, waited_s, self.breaker.state
        record.decided_s, record.decided_at_s, record.error = time.perf_counter() - begin, now_s, reason or None
        return record, observation

    def _observe(self, situation: Situation) -> Observation:
        return observe(situation, self.table, Demands.of(self.demand), self.world)

    def _choose(self, situation: Situation, believed: Observation) -> tuple[int, Observation, bool]:
        """The row of the frame's point, the observation that it was chosen by, and True where the rule chose it."""
        if not self.guarded:
            return int(self.controller.predict(believed)[0]), believed, False
        if self._safeguard.rules(float(situation.now_s[0])):
            return rule(believed, self.demand, self.world.guard_s), believed, True
        drawn = as_drawn(situation, self.world)
        given = believed if drawn is situation else self._observe(drawn)
        return int(self.controller.predict(given)[0]), given, False

    def _too_late(self, row: int, waited_s: float, slow_down: float) -> bool:
        return too_late(self.demand, waited_s, float(self.table.head_s[row]) * slow_down)

    def _send(
        self, record: Record, now: Observation, payload: bytes, feature: NDArray[np.float32], end_s: float
    ) -> None:
        row, table, demand = record.row, self.table, self.demand
        finish_s = float(table.finish_s[row]) * float(now.seen.slow_down[0])
        can = bool(table.finish_accuracy[row] >= demand.min_accuracy and np.isfinite(table.finish_s[row]))
        foreseen_s = record.arrival_s + float(now.foreseen.latency_s[0, row])
        due = due_s(demand, record.arrival_s, end_s, finish_s, foreseen_s, can, self.world.guard_s)
        record.sent_bytes = len(payload)
        first, further = self._messages(record, now, due, finish_s if can else 0.0)
        with self._lock:
            self._open[record.frame] = _Open(record, feature, can)
            self._schedule.sent(Flight(record.frame, record.arrival_s + demand.deadline_s, due))
            probe_next = self._links.sent(record.frame, end_s, first, further)
            self._lock.notify_all()
        self.client.infer(
            record.frame, record.decision, payload, ANSWER_LIMIT_S, lambda got: self._answered(record.frame, got),
            (lambda timing: self._passed_on(record.frame, timing)) if further else None, probe_next,
        )  # fmt: skip

    def _messages(self, record: Record, now: Observation, due: float, finish_s: float) -> tuple[Settled, list[Ahead]]:
        """The frame's message on the first hop, and on the second one where the frame crosses it.

        The last hop has the answer. A first hop before it has the receipt of the middle server, which then still needs
        to decode, run its part of the CNN and encode.
        """
        row, overhead, tail_s = record.row, self.world.overhead_bytes, float(self.table.server_s[record.row])
        for before, hop, ahead in zip(now.seen.hops, self.table.hops[1:], now.foreseen.further, strict=False):
            if hop.sends[row]:
                size = record.sent_bytes if hop.relays[row] else float(hop.bytes_mean[row])
                back_s = 0.5 * float(before.rtt_s[0])  # from the middle server, which has the answer first
                ready_s = record.decided_at_s + float(ahead.ready_s[0, row])
                second = Ahead(ready_s, Settled(size + overhead, due, finish_s, tail_s + back_s))
                return Settled(record.sent_bytes + overhead, tail_s=float(hop.compute_s[row])), [second]
        return Settled(record.sent_bytes + overhead, due, finish_s, tail_s), []

    def _passed_on(self, key: int, timing: ServerTiming) -> None:
        """Take the middle server's receipt for a frame that it sends on. Runs on a thread of the client."""
        with self._lock:
            timed, opened = self._links.passed_on(key, self.now_s(), timing), self._open.get(key)
            if opened is not None and timed is not None:
                opened.record.uplink_s, opened.record.rtt_s = timed

    def _maybe_probe(self) -> None:
        """Send a probe if one is due."""
        with self._lock:
            probe = self._links.due_probe(self.now_s())
        if probe is not None:
            self._probe(probe, lambda got: self._answered(probe.key, got))

    def _probe(self, probe: Probe, done: Done) -> None:
        self.client.probe(probe.size, PROBE_LIMIT_S, done, probe.probe_next)

    def _answered(self, key: int, got: Reply | Failure) -> None:
        """Take the answer to a message, or its failure. Runs on a thread of the client."""
        now_s = self.now_s()
        with self._lock:
            opened = self._open.get(key)
            if isinstance(got, Failure):
                self._links.failed(key, now_s, got.reason)
                if opened is not None:
                    opened.record.error = got.reason
                    self._schedule.lost(key, now_s, opened.can_finish)
                    self._lock.notify_all()
                return
            timed = self._links.answered(key, now_s, got)
            if opened is None or got.logits is None or not self._schedule.settle(key):
                return
            record = opened.record
            if timed is not None:
                record.uplink_s, record.rtt_s = timed
            record.server_s = got.timing.wait_s + got.timing.compute_s
            record.hop2_s = None if got.next_timing is None else got.next_timing.total_s
            record.conclude(got.logits, self.engine.cnn.classes)
            self._settle(record, "server", now_s)

    def _finish_frames(self) -> None:
        """The finisher's loop. It ends when the device closes and no frame is open."""
        while True:
            with self._lock:
                while (task := self._schedule.take(self.now_s())) is None:
                    if self._closing and not self._schedule.under_way:
                        return
                    self._lock.wait(min(max(self._schedule.next_s() - self.now_s(), 0.0), 0.5))
                if task.kind == "miss":
                    if self._schedule.settle(task.number):
                        self._settle(self._open[task.number].record, "miss", self.now_s())
                    continue
                opened = self._open[task.number]
                self._finishing = True
            self._finish(opened.record, opened.feature)

    def _finish(self, record: Record, feature: NDArray[np.float32]) -> None:
        begun_s = self.now_s()
        self._pacer.finish_begins(begun_s)
        logits: NDArray[np.float32] | None = None
        try:
            logits = self.engine.finish(record.decision, feature)
            if self.paced:
                wait(begun_s + float(self.table.finish_s[record.row]) - self.now_s())
        except Exception as error:  # ONNX Runtime has no public class. The frame is missed, the next ones go on.
            record.error = f"the device could not finish the frame: {error}"
        finally:
            self._pacer.finish_ends()
        with self._lock:
            end_s = self.now_s()
            self._finishing = False
            self._free_s = max(self._free_s, end_s) if self.paced else 0.0
            self._lock.notify_all()
            record.finish_s = end_s - begun_s
            if logits is not None and self._schedule.settle(record.frame):
                record.conclude(logits, self.engine.cnn.classes)
                self._settle(record, "device", end_s)

    def _settle(self, record: Record, by: AnsweredBy, at_s: float) -> None:
        """End a frame and log it. An answer after the deadline is a miss."""
        self._open.pop(record.frame, None)
        record.settle(by, at_s, self.table)
        with self._lock:
            self._safeguard.settled(at_s, record.decided_at_s, record.by_rule, record.answered_by == "miss")
        self.log(record)
