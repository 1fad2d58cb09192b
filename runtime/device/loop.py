"""The device's loop: real frames through decision, head, link and the device's own runs. All threads share one lock.

The caller's thread is the foreground. It takes frames in order: it decides, encodes, runs the heads of cuts and sends.
Whole nets, halves of races and fallbacks run in the background, see `Worker`. Answers arrive on the client's threads.
The rules are in `FrameDecider`, `Schedule` and `LinkKnowledge`, which have no thread.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from tidesplit.compression.codec.knobs import stream_of
from tidesplit.envs.world.observation import Controller, Situation
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Floats
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.camera.picture import Picture
from tidesplit.runtime.camera.stream import CameraStream
from tidesplit.runtime.core.arrivals import Arrivals
from tidesplit.runtime.core.breaker import Breaker
from tidesplit.runtime.core.deciding import Decision, FrameDecider
from tidesplit.runtime.core.energy import Meter
from tidesplit.runtime.core.knowledge import LinkKnowledge, Probe, messages
from tidesplit.runtime.core.refused_video import RefusedVideo
from tidesplit.runtime.core.safeguard import Safeguard, undrawn
from tidesplit.runtime.core.schedule import flight_of
from tidesplit.runtime.core.sending import Client, Done, Failure, Reply
from tidesplit.runtime.core.sent_streams import SentStreams
from tidesplit.runtime.core.slow_down import SlowDown
from tidesplit.runtime.device.engine import Engine, HeadResult
from tidesplit.runtime.device.pacer import Pacer, wait
from tidesplit.runtime.device.thermometer import Thermometer, usual_c
from tidesplit.runtime.device.worker import Logits, OpenFrame, Worker
from tidesplit.runtime.log.record import AnsweredBy, Record
from tidesplit.runtime.wire.answers import ServerTiming

ANSWER_LIMIT_S = 2.0  # a later answer counts as lost; an earlier one still has news of the link
PROBE_LIMIT_S = 1.0  # ten round trips of a good link
SLOW_SOURCE_S = 0.004  # a source that takes longer to give a picture did not have it yet
GREETINGS = 3  # the quickest of a few is near enough to the delay of the empty link


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
        self._streams = SentStreams(self.table.streams.names, self.demand.period_s)
        self._refused_video = RefusedVideo.of(self.table.ids)
        self._slow_down, self._safeguard = SlowDown(), Safeguard(self.demand.period_s)
        self._decider = FrameDecider(
            self.controller, self.table, self.demand, self.world, self._safeguard, guarded=self.guarded,
            refused_video=self._refused_video,
        )  # fmt: skip
        self._pacer = Pacer(self.now_s, self.paced)
        self._lock = threading.Condition()
        self._worker = Worker(self._pacer, self._lock, self._settle, self._ran, self.engine.cnn.classes)
        self._thermometer, self._usual_c = Thermometer(), usual_c(self.world, self.table.machine)
        self._meter = Meter(self.table.machine, self.world, 0.0)
        self._arrivals = Arrivals(0.0, self.demand.period_s)
        self._free_s = 0.0  # end of the newest work of the foreground
        self._last_row = -1

    @property
    def breaker(self) -> Breaker:
        """The breaker of the first hop."""
        return self._links.breaker

    def now_s(self) -> float:
        """The device's clock, in seconds since it was made."""
        return time.perf_counter() - self._epoch

    def run(self, pictures: Iterator[Picture], frames: int | None = None) -> None:
        """Take frames at the demand's rate, at most `frames`, until there are no more pictures. Then settle all."""
        self._greet()
        self._meter = Meter(self.table.machine, self.world, self.now_s())
        self.started()
        self._arrivals = Arrivals(self.now_s(), self.demand.period_s)
        with self._worker:
            for number, (picture, arrival_s) in enumerate(self._coming(pictures)):
                self._take(number, picture, arrival_s)
                if number + 1 == frames:
                    break

    def _coming(self, pictures: Iterator[Picture]) -> Iterator[tuple[Picture, float]]:
        """Pictures, each with its arrival. A camera is asked for none that came before the rate allows one."""
        while True:
            asked_s = self.now_s()
            if (picture := next(pictures, None)) is None:
                return
            if picture.taken_s is not None:
                arrival_s = self._arrivals.live(picture.taken_s - self._epoch)
            else:
                got_s = self.now_s()
                arrival_s = self._arrivals.stored(got_s if got_s - asked_s >= SLOW_SOURCE_S else None)
            if isinstance(pictures, CameraStream):
                pictures.after(self._arrivals.soonest_s + self._epoch)
            yield picture, arrival_s

    def _greet(self) -> None:
        """Connect before the first frame, and learn the delay of the empty link from tiny messages.

        The first message is not timed, because it waits for the connection and for a server that never answered yet.
        """
        for number in range(1 + GREETINGS):
            answered = threading.Event()
            with self._lock:
                probe = self._links.greeting(now_s := self.now_s(), timed=number > 0)

            def done(
                got: Reply | Failure, key: int = probe.key, sent_s: float = now_s, answered: threading.Event = answered
            ) -> None:
                self._answered(key, got, sent_s)
                answered.set()

            self._probe(probe, done)
            answered.wait(PROBE_LIMIT_S)

    def _take(self, number: int, picture: Picture, arrival_s: float) -> None:
        """One frame's turn: decide, then send the payload, or let the worker run the whole net."""
        if (early := arrival_s - self.now_s()) > 0.0:
            wait(early)
        now_s = self._pacer.begin_s(max(arrival_s, self._free_s))
        record, decision = self._decide(number, picture, arrival_s, now_s)
        local = bool(self.table.local[record.row])
        if record.dropped or local:
            self._maybe_probe()
        if record.dropped:
            self._safeguard.dropped()
            self._settle(record, "miss", self.now_s())
            return
        self._safeguard.ran()
        self._last_row = record.row
        if local:
            flight = flight_of(record, self.table, decision.slow_down, now_s, self.world.guard_s)
            self._worker.begin(OpenFrame(record, flight, partial(self._whole, record, picture), self._head_s(record)))
        else:
            self._send(record, decision, *self._head(record, picture, now_s))
        self._worker.wake()

    def _decide(self, number: int, picture: Picture, arrival_s: float, now_s: float) -> tuple[Record, Decision]:
        def one(value: float) -> Floats:
            return np.array([value])

        with self._lock:
            transfers, worker_s = self._links.transfers(), self._worker.busy_s(now_s)
            slow_down, blocked, reason = self._slow_down.at(now_s), self.breaker.blocked, self.breaker.reason
            reference_age = self._streams.ages(arrival_s, now_s)
        situation = Situation(
            one(now_s), one(now_s - arrival_s), transfers, one(slow_down), np.array([self._last_row]),
            one(worker_s), one(self._usual_c if (heat_c := self._thermometer.at(now_s)) is None else heat_c),
            np.array([blocked]), reference_age,
        )  # fmt: skip
        begin = time.perf_counter()
        decision = self._decider.decide(situation)
        record = Record.of(number, picture, self.demand, self.table, decision.believed, decision.row)
        record.out_of_range = undrawn(decision.believed, decision.given)
        record.by_rule, record.dropped = decision.by_rule, decision.late
        record.arrival_s, record.waited_s, record.breaker = arrival_s, now_s - arrival_s, self.breaker.state
        record.picture_age_s = None if picture.taken_s is None else now_s + self._epoch - picture.taken_s
        record.temperature_c = heat_c
        record.decided_s, record.decided_at_s, record.error = time.perf_counter() - begin, now_s, reason or None
        return record, decision

    def _head_s(self, record: Record) -> float:
        return float(self.table.head_s[record.row])

    def _head(self, record: Record, picture: Picture, now_s: float) -> tuple[HeadResult, float]:
        """Encode the picture, or run the head once the worker is idle. Returns the result and the end."""
        interrupted = not self.table.light[record.row]
        begun_s = self._pacer.begin_s(max(now_s, self._worker.wait_until_idle())) if interrupted else now_s
        taken_s = self._pacer.taken_s()
        self._place(record)
        result = self.engine.head(record.decision, picture.pixels, record.place is None or record.place.key)
        until = partial(self._pacer.head_end_s, taken_s=taken_s) if interrupted else self._pacer.end_s
        self._free_s = end_s = until(begun_s, self._head_s(record))
        record.head_s = end_s - begun_s
        self._ran(end_s, self._head_s(record), record.head_s, light=not interrupted)
        return result, end_s

    def _place(self, record: Record) -> None:
        """Give the payload that is about to be encoded its place in its stream, if the point sends in one.

        From a failure that becomes known later, the payload cannot be protected any more.
        """
        with self._lock:
            record.placed_s = now_s = self.now_s()
            if stream := stream_of(record.decision):
                age = self._streams.age(stream, record.arrival_s, now_s)
                record.reference_age = age if math.isfinite(age) else None
                record.place = self._streams.send(stream, record.arrival_s, now_s)

    def _whole(self, record: Record, picture: Picture) -> Logits:
        """Run the whole CNN. Runs on the worker's thread."""
        logits = self.engine.head(record.decision, picture.pixels).logits
        assert logits is not None
        return logits

    def _ran(self, end_s: float, expected_s: float, actual_s: float, *, light: bool = False) -> None:
        """Count a run's energy, and learn from the run unless it is paced."""
        with self._lock:
            self._meter.ran(actual_s, light=light)
            if not self.paced:
                self._slow_down.ran(end_s, expected_s, actual_s)

    def _send(self, record: Record, decision: Decision, result: HeadResult, end_s: float) -> None:
        assert result.payload is not None
        record.sent_bytes = len(result.payload)
        flight = flight_of(record, self.table, decision.slow_down, end_s, self.world.guard_s)
        first, further = messages(record, flight, decision.believed, self.table, self.world)
        finish = partial(self.engine.finish, record.decision, result.feature)
        with self._lock:
            probe_next = self._links.sent(record.frame, end_s, first, further)
            self._worker.begin(OpenFrame(record, flight, finish, float(self.table.finish_s[record.row])))
        self.client.infer(
            record.frame, record.decision, result.payload, ANSWER_LIMIT_S,
            lambda got: self._answered(record.frame, got, record.placed_s),
            (lambda timing: self._passed_on(record.frame, timing)) if further else None, probe_next, record.place,
        )  # fmt: skip

    def _passed_on(self, key: int, timing: ServerTiming) -> None:
        """Take the middle server's receipt for a frame that it sends on. Runs on a thread of the client."""
        with self._lock:
            timed, record = self._links.passed_on(key, self.now_s(), timing), self._worker.record(key)
            if record is not None and timed is not None:
                record.uplink_s, record.rtt_s = timed

    def _maybe_probe(self) -> None:
        """Send a probe if one is due."""
        with self._lock:
            if (probe := self._links.due_probe(now_s := self.now_s())) is not None:
                self._meter.sent(now_s, 0.0, probe.size)
        if probe is not None:
            self._probe(probe, lambda got: self._answered(probe.key, got, now_s))

    def _probe(self, probe: Probe, done: Done) -> None:
        self.client.probe(probe.size, PROBE_LIMIT_S, done, probe.probe_next)

    def _answered(self, key: int, got: Reply | Failure, sent_s: float) -> None:
        """Take the answer to the message of `sent_s`, or its failure. Runs on a thread of the client."""
        now_s = self.now_s()
        with self._lock:
            record = self._worker.record(key)
            if isinstance(got, Failure):
                self._streams.failed(sent_s, now_s, got.reference_unknown)
                if got.no_video:
                    self._refused_video.refused(now_s)
                if got.reference_unknown or got.no_video:
                    self._links.reference_unknown(key)
                else:
                    self._links.failed(key, now_s, got.reason, got.pause_s, got.lasts)
                if record is not None:
                    self._worker.lost(key, now_s, got.reason)
                return
            timed = self._links.answered(key, now_s, got)
            if record is None or got.logits is None:
                return
            if timed is not None:
                record.uplink_s, record.rtt_s = timed
            record.server_s = got.timing.wait_s + got.timing.compute_s
            record.hop2_s = None if got.next_timing is None else got.next_timing.total_s
            self._worker.answered(key, now_s, got.logits)

    def _joules(self, record: Record) -> float | None:
        """Estimated energy since the frame before. A message without an answer took the time that was believed."""
        if record.sent_bytes:
            uplink_s = record.sent_bytes / record.state["goodput"] if record.uplink_s is None else record.uplink_s
            self._meter.sent(record.arrival_s + record.waited_s + record.head_s, uplink_s, record.sent_bytes)
        return self._meter.take(self.demand.period_s)

    def _settle(self, record: Record, by: AnsweredBy, at_s: float) -> None:
        """End a frame and log it. An answer after the deadline is a miss."""
        record.settle(by, at_s, self.table)
        with self._lock:
            record.joules = self._joules(record)
            self._safeguard.settled(at_s, record.decided_at_s, record.by_rule, record.answered_by == "miss")
        self.log(record)
