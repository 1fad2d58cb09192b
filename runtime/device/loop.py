"""The device's loop: real frames through decision, head, link and the device's own runs.

All rules are those of `Core`, which has no thread. Here are the threads that feed it events and carry out its actions.
The caller's thread is the foreground. It takes frames in order: it decides, encodes, runs the heads of cuts and sends.
Whole nets, halves of races and fallbacks run in the background, see `Worker`. Answers arrive on the client's threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from tidesplit.envs.budget.prices import USUAL_PRICES
from tidesplit.envs.world.observation import Controller
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.camera.picture import Picture
from tidesplit.runtime.camera.stream import CameraStream
from tidesplit.runtime.choosing.deciding import FrameDecider
from tidesplit.runtime.core import events as ev
from tidesplit.runtime.core.breaker import Breaker
from tidesplit.runtime.core.core import Core
from tidesplit.runtime.core.sending import Client, Failure, Reply
from tidesplit.runtime.device.arrivals import Arrivals
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.pacer import Pacer, wait
from tidesplit.runtime.device.shared_core import SharedCore
from tidesplit.runtime.device.thermometer import Thermometer, usual_c
from tidesplit.runtime.device.worker import Worker
from tidesplit.runtime.log.record import Record
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
    first_prices: tuple[float, float] = USUAL_PRICES  # of a joule and of a byte, at which it begins under budgets
    rests: bool = True  # under a budget of energy the radio may rest
    started: Callable[[], None] = lambda: None  # called just before the first frame arrives

    def __post_init__(self) -> None:
        self._epoch = time.perf_counter()
        self._pacer, self._thermometer = Pacer(self.now_s, self.paced), Thermometer()
        self.core = Core(
            self.table, self.demand, self.world, self.engine.cnn.form, np.random.default_rng(self.seed),
            usual_c(self.world, self.table.machine), self.paced, self.first_prices, self.rests,
        )  # fmt: skip
        self.shared = SharedCore(self.core, self.now_s, self.log)
        self._decider = FrameDecider(
            self.controller, self.table, self.demand, self.world, self.core.beliefs.safeguard, guarded=self.guarded,
            refused_video=self.core.beliefs.refused_video, account=self.core.beliefs.account,
        )  # fmt: skip
        self._worker = Worker(self.shared, self._pacer, self._compute)
        self._arrivals = Arrivals(0.0, self.demand.period_s)

    @property
    def breaker(self) -> Breaker:
        """The breaker of the first hop."""
        return self.core.beliefs.links.breaker

    def now_s(self) -> float:
        """The device's clock, in seconds since it was made."""
        return time.perf_counter() - self._epoch

    def run(self, pictures: Iterator[Picture], frames: int | None = None) -> None:
        """Take frames at the demand's rate, at most `frames`, until there are no more pictures. Then settle all."""
        self._greet()
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
            (probe,) = self.shared.tell(ev.Greeting(self.now_s(), timed=number > 0))
            assert isinstance(probe, ev.SendProbe)
            answered = threading.Event()
            self._probe(probe, answered.set)
            answered.wait(PROBE_LIMIT_S)

    def _take(self, number: int, picture: Picture, arrival_s: float) -> None:
        """One frame's turn in the foreground."""
        if (early := arrival_s - self.now_s()) > 0.0:
            wait(early)
        now_s, taken_s = self.now_s(), None if picture.taken_s is None else picture.taken_s - self._epoch
        self._tell(ev.FrameDue(now_s, number, picture, arrival_s, taken_s, self._thermometer.at(now_s)))

    def _tell(self, event: ev.Event) -> None:
        """Feed an event, and carry out what follows from it on this thread."""
        self._carry_out(self.shared.tell(event))

    def _carry_out(self, actions: list[ev.Action]) -> None:
        for action in actions:
            match action:
                case ev.ChoosePoint():
                    begin = time.perf_counter()
                    decision = self._decider.decide(action.situation)
                    took_s = time.perf_counter() - begin
                    self._tell(ev.PointChosen(self.now_s(), action.number, decision, took_s))
                case ev.AskForHead():
                    self._carry_out(self.shared.ask(partial(ev.HeadReady, number=action.number)))
                case ev.RunHead():
                    self._head(action)
                case ev.SendFrame():
                    self._send(action)
                case ev.SendProbe():
                    self._probe(action)
                case ev.Wake():
                    self.shared.wake()
                case ev.Settle() | ev.RunNet() | ev.WaitUntil():
                    pass  # logged already; of the background

    def _head(self, run: ev.RunHead) -> None:
        """Run a head and encode its payload. Only those of cuts are interrupted by the worker's runs."""
        taken_s = self._pacer.taken_s()
        result = self.engine.head(run.point_id, run.pixels, run.key)
        until = partial(self._pacer.head_end_s, taken_s=taken_s) if run.interrupted else self._pacer.end_s
        end_s = until(run.begin_s, run.expected_s)
        assert result.payload is not None
        self._tell(ev.HeadDone(end_s, run.number, result.payload, result.feature))

    def _compute(self, run: ev.RunNet) -> ev.Logits:
        """A run's logits. Runs on the worker's thread."""
        if not run.local:
            return self.engine.finish(run.point_id, run.x)
        logits = self.engine.head(run.point_id, run.x).logits
        assert logits is not None
        return logits

    def _send(self, sent: ev.SendFrame) -> None:
        def passed_on(timing: ServerTiming) -> None:
            self._tell(ev.PassedOn(self.now_s(), sent.number, timing))

        self.client.infer(
            sent.number, sent.point_id, sent.payload, ANSWER_LIMIT_S,
            partial(self._answered, sent.number, sent.sent_s), passed_on if sent.receipt else None, sent.probe_next,
            sent.place,
        )  # fmt: skip

    def _probe(self, probe: ev.SendProbe, then: Callable[[], None] = lambda: None) -> None:
        def done(got: Reply | Failure) -> None:
            self._answered(probe.key, probe.sent_s, got)
            then()

        self.client.probe(probe.size, PROBE_LIMIT_S, done, probe.probe_next)

    def _answered(self, key: int, sent_s: float, got: Reply | Failure) -> None:
        """Take the answer to a message, or its failure. Runs on a thread of the client."""
        if isinstance(got, Failure):
            self._tell(ev.MessageFailed(self.now_s(), key, sent_s, got))
        else:
            self._tell(ev.MessageAnswered(self.now_s(), key, got))
