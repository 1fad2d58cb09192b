"""A device without threads: the core, and a foreground, a worker and a timekeeper on a clock that jumps.

Work takes its time in the table unless the course says otherwise. Nothing sleeps, so moments are exact.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any

import numpy as np

from tests.runtime.deployed import points
from tidesplit.compression.codec.knobs import FINISH, race_id
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.table import PointTable
from tidesplit.profiling.points.tiers import table_of
from tidesplit.runtime.camera.picture import Picture
from tidesplit.runtime.choosing.deciding import FrameDecider
from tidesplit.runtime.core import events as ev
from tidesplit.runtime.core.core import Core
from tidesplit.runtime.core.sending import Failure, Reply
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.wire.answers import ServerTiming
from tidesplit.runtime.wire.output_tensors import AnswerForm

OFFLOAD, CUT, LOCAL = "p0-jpeg-q50", "p1-c0.50-r1.00-b2", "device-c0.25"
RACE, CUT_RACE = race_id(OFFLOAD, LOCAL), race_id(CUT, FINISH)
TABLE = table_of(points(9)[0], ("device", "server"), (OFFLOAD, CUT, LOCAL, RACE, CUT_RACE))
CLASSES = ("cat", "dog", "eel", "fox")
PICTURE = Picture(np.zeros((4, 4, 3), np.uint8), "black")
FEATURE, LOGITS = np.zeros(3, np.float32), np.array([0.0, 0.0, 0.0, 9.0], np.float32)


class Cycled:
    """Chooses these rows in turn."""

    name = "cycled"

    def __init__(self, rows: Sequence[int]) -> None:
        self.rows = cycle(rows)

    def predict(self, observation: Any) -> Any:
        return np.array([next(self.rows)])


@dataclass
class Course:
    """What chance decides: the time to an answer and its fate, the time of work, the lateness of a thread."""

    after_s: Callable[[], float] = lambda: math.inf  # infinity: never
    fails: Callable[[], bool] = lambda: False
    runs_s: Callable[[float], float] = lambda expected_s: expected_s
    run_fails: Callable[[], bool] = lambda: False
    late_s: Callable[[], float] = lambda: 0.0


@dataclass
class Virtual:
    """Plays `frames` frames whose points are chosen in turn. `story` has all actions with their moments."""

    rows: Sequence[str]
    frames: int = 1
    demand: Demand = field(default_factory=lambda: Demand(fps=30, deadline_s=0.1))
    course: Course = field(default_factory=Course)
    table: PointTable = TABLE
    paced: bool = False
    guarded: bool = False
    rests: bool = True
    controller: Any = None  # in place of the rows in turn

    def __post_init__(self) -> None:
        self.core = Core(
            self.table,
            self.demand,
            World().under(self.demand),
            AnswerForm.of_classes(CLASSES),
            np.random.default_rng(0),
            usual_c=50.0,
            paced=self.paced,
            rests=self.rests,
        )
        rows = [self.table.row(name) for name in self.rows]
        self._decider = FrameDecider(
            self.controller or Cycled(rows), self.table, self.demand, World().under(self.demand),
            self.core.beliefs.safeguard, guarded=self.guarded, account=self.core.beliefs.account,
        )  # fmt: skip
        self.story: list[tuple[float, ev.Action]] = []
        self.records: list[Record] = []
        self._events: list[tuple[float, int, Callable[[float], ev.Event]]] = []
        self._order, self._asked, self._woken = count(), 0, set[float]()
        self._waiting: dict[str, Callable[[float], ev.Event]] = {"worker": ev.WorkerReady, "timekeeper": ev.Tick}

    def play(self) -> list[Record]:
        """The records of all frames in order, once everything has happened."""
        self._next_frame(0.0)
        while self._events:
            now_s, _, event = heapq.heappop(self._events)
            self._handle(event(now_s), now_s)
        return sorted(self.records, key=lambda record: record.frame)

    def _at(self, at_s: float, event: Callable[[float], ev.Event]) -> None:
        if math.isfinite(at_s):
            heapq.heappush(self._events, (at_s, next(self._order), event))

    def _next_frame(self, now_s: float) -> None:
        if (number := self._asked) < self.frames:
            self._asked += 1
            arrival_s = number * self.demand.period_s
            self._at(max(arrival_s, now_s), lambda at_s: ev.FrameDue(at_s, number, PICTURE, arrival_s))

    def _handle(self, event: ev.Event, now_s: float) -> None:
        """Feed an event, carry out the actions, and let all who wait ask again."""
        self._carry_out(self.core.handle(event), now_s)
        for who, question in list(self._waiting.items()):
            if self._waiting.get(who) is question:
                self._ask(who, question, now_s)

    def _ask(self, who: str, question: Callable[[float], ev.Event], now_s: float) -> None:
        actions = self.core.handle(question(now_s))
        if isinstance(actions[-1], ev.WaitUntil):
            self._waiting[who] = question
            if (
                at_s := actions[-1].at_s
            ) not in self._woken:  # once a moment, or ticks would multiply from frame to frame
                self._woken.add(at_s)
                self._at(at_s + self.course.late_s(), ev.Tick)
        else:
            del self._waiting[who]
        self._carry_out(actions, now_s)

    def _carry_out(self, actions: list[ev.Action], now_s: float) -> None:
        for action in actions:
            self.story.append((now_s, action))
            match action:
                case ev.ChoosePoint():
                    decision = self._decider.decide(action.situation)
                    self._carry_out(self.core.handle(ev.PointChosen(now_s, action.number, decision)), now_s)
                    if decision.late or self.table.local[decision.row]:
                        self._next_frame(now_s)
                case ev.AskForHead(number):
                    self._waiting["foreground"] = lambda at_s, n=number: ev.HeadReady(at_s, n)  # type: ignore[misc]
                case ev.RunHead():
                    end_s = max(action.begin_s + self.course.runs_s(action.expected_s), now_s)
                    self._at(end_s, lambda at_s, n=action.number: ev.HeadDone(at_s, n, b"bytes", FEATURE))  # type: ignore[misc]
                case ev.SendFrame():
                    self._answer(action.number, action.sent_s, LOGITS, now_s)
                    self._next_frame(now_s)
                case ev.SendProbe():
                    self._answer(action.key, action.sent_s, None, now_s)
                case ev.RunNet():
                    logits, number = None if self.course.run_fails() else LOGITS, action.number
                    end_s = max(action.begin_s + self.course.runs_s(action.expected_s), now_s)
                    self._at(end_s, lambda at_s, n=number, x=logits: self._ended(at_s, n, x))  # type: ignore[misc]
                case ev.Settle(record):
                    self.records.append(record)

    def _ended(self, at_s: float, number: int, logits: Any) -> ev.Event:
        self._waiting["worker"] = ev.WorkerReady
        return ev.RunEnded(at_s, number, logits, None if logits is not None else "no memory")

    def _answer(self, key: int, sent_s: float, logits: Any, now_s: float) -> None:
        fails = self.course.fails()
        self._at(now_s + self.course.after_s(), lambda at_s: (
            ev.MessageFailed(at_s, key, sent_s, Failure("gone"))
            if fails else ev.MessageAnswered(at_s, key, Reply(logits, ServerTiming(at_s - 0.001, 0.0, 0.001)))
        ))  # fmt: skip
