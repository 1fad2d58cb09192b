"""The device's core: all of its knowledge and rules as one object without thread, clock or socket.

`Core.handle` takes an event and returns actions. Who carries them out, and on which thread, is the rim's matter (see
`runtime.device`). Events come one at a time. Moments are seconds on the device's clock.
"""

from __future__ import annotations

import numpy as np

from tidesplit.envs.budget.prices import USUAL_PRICES
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.core import events as ev
from tidesplit.runtime.core.device_beliefs import DeviceBeliefs
from tidesplit.runtime.core.events import Action, Event
from tidesplit.runtime.core.frame_life import FrameState, Happening, LifeError, Lives
from tidesplit.runtime.core.knowledge import Probe, messages
from tidesplit.runtime.core.open_frame import FrameTurn, OpenFrame
from tidesplit.runtime.core.schedule import End, Schedule, flight_of
from tidesplit.runtime.wire.output_tensors import AnswerForm

__all__ = ["CATCH_UP_S", "Core"]

# Lateness that pacing makes up for. A device as busy as its period would carry every hiccup of this machine along until
# its next drop. If it is later, this machine is too slow for the pace.
CATCH_UP_S = 0.05
OVERDUE_S = 0.001  # until the next look at a run that should have ended by now


class Core:
    """One device.

    Args:
        table: of this device.
        form: of the CNN's answers.
        rng: spreads the breaker's back-off.
        usual_c: temperature that is believed where none is known.
        paced: True where work takes its time in the table. Then lateness is made good, and no run tells the slow-down.
        first_prices: of a joule and of a byte, at which it begins under budgets.
        rests: under a budget of energy the radio may rest.
    """

    def __init__(
        self, table: PointTable, demand: Demand, world: World, form: AnswerForm, rng: np.random.Generator,
        usual_c: float = 50.0, paced: bool = False, first_prices: tuple[float, float] = USUAL_PRICES,
        rests: bool = True,
    ) -> None:  # fmt: skip
        self._table, self._demand, self._world, self._form = table, demand, world, form
        self.beliefs = DeviceBeliefs(table, demand, world, rng, usual_c, not paced, first_prices, rests)
        self._lives, self._frames = Lives(), dict[int, OpenFrame]()
        self._schedule = Schedule(self._lives, CATCH_UP_S if paced else 0.0)
        self._turns: dict[int, FrameTurn] = {}
        self._run: ev.RunNet | None = None
        self._free_s = 0.0  # end of the newest work of the foreground

    @property
    def under_way(self) -> int:
        """Number of frames that were sent, or whose whole net shall run, and that have no end."""
        return self._schedule.under_way

    def handle(self, event: Event) -> list[Action]:
        """Take an event. Returns what is to be done, in this order.

        Raises:
            LifeError: a frame's state does not allow the event.
        """
        match event:
            case ev.FrameDue():
                return self._due(event)
            case ev.PointChosen():
                return self._chosen(event)
            case ev.HeadReady():
                return self._head_ready(event)
            case ev.HeadDone():
                return self._head_done(event)
            case ev.MessageAnswered():
                return self._answered(event)
            case ev.MessageFailed():
                return self._failed(event)
            case ev.PassedOn():
                return self._passed_on(event)
            case ev.WorkerReady():
                return self._worker_ready(event)
            case ev.RunEnded():
                return self._run_ended(event)
            case ev.Tick():
                return self._tick(event)
            case ev.Greeting():
                return [_send(self.beliefs.greeting(event.now_s, event.timed), event.now_s)]

    def _due(self, event: ev.FrameDue) -> list[Action]:
        """A frame's turn. Its point is chosen by what is known now."""
        self._lives.begin(event.number)
        at_s = self._schedule.begin_s(max(event.arrival_s, self._free_s), event.now_s)
        breaker, busy_s = self.beliefs.links.breaker, self._schedule.busy_s(at_s)
        self._turns[event.number] = FrameTurn(
            event, at_s, breaker.state, breaker.reason or None, self.beliefs.resting
        )  # fmt: skip
        return [ev.ChoosePoint(event.number, self.beliefs.situation(event.arrival_s, at_s, busy_s, event.heat_c))]

    def _chosen(self, event: ev.PointChosen) -> list[Action]:
        self._must_be(event.number, FrameState.TURN, event)
        turn = self._turns.pop(event.number)
        record, number = turn.record(event, self._demand, self._table), event.number
        self._frames[number] = OpenFrame(record, event.decision, turn.due.picture.pixels)
        self.beliefs.chosen(record)
        if not record.dropped and not self._table.local[record.row]:
            self._lives.after(number, Happening.ENCODED_NEXT)
            return [ev.AskForHead(number)]
        probe = self.beliefs.due_probe(event.now_s)
        actions: list[Action] = [] if probe is None else [_send(probe, event.now_s)]
        if record.dropped:
            self._lives.after(number, Happening.DROPPED)
            return [*actions, self._settle(End(number, "miss", event.now_s))]
        self._lives.after(number, Happening.LOCAL)
        self._schedule.begin(flight_of(record, self._table, event.decision.slow_down, turn.at_s, self._world.guard_s))
        return [*actions, ev.Wake()]

    def _head_ready(self, event: ev.HeadReady) -> list[Action]:
        """Run the head: that of a picture at once, that of a cut when the worker is idle."""
        self._must_be(event.number, FrameState.HEAD, event)
        frame, now_s = self._frames[event.number], event.now_s
        record, interrupted = frame.record, not self._table.light[frame.record.row]
        frame.begin_s = record.decided_at_s
        if interrupted:
            if not self._schedule.idle(now_s):
                return [ev.WaitUntil(now_s + max(self._schedule.busy_s(now_s), OVERDUE_S))]
            frame.begin_s = self._schedule.begin_s(max(frame.begin_s, self._schedule.free_s), now_s)
        self.beliefs.place(record, now_s)
        key, head_s = record.place is None or record.place.key, float(self._table.head_s[record.row])
        return [ev.RunHead(record.frame, record.decision, frame.x, key, frame.begin_s, head_s, interrupted)]

    def _head_done(self, event: ev.HeadDone) -> list[Action]:
        self._must_be(event.number, FrameState.HEAD, event)
        frame, end_s = self._frames[event.number], event.end_s
        record, head_s, frame.x = frame.record, float(self._table.head_s[frame.record.row]), event.feature
        self._free_s, record.head_s, record.sent_bytes = end_s, end_s - frame.begin_s, len(event.payload)
        self.beliefs.encoded(record)
        self.beliefs.ran(end_s, head_s, record.head_s, light=bool(self._table.light[record.row]))
        flight = flight_of(record, self._table, frame.decision.slow_down, end_s, self._world.guard_s)
        first, further = messages(record, flight, frame.decision.believed, self._table, self._world)
        probe_next = self.beliefs.links.sent(record.frame, end_s, first, further)
        self._lives.after(event.number, Happening.SENT)
        self._schedule.begin(flight)
        sent = ev.SendFrame(
            record.frame, record.decision, event.payload, record.placed_s, bool(further), probe_next, record.place
        )
        return [sent, ev.Wake()]

    def _answered(self, event: ev.MessageAnswered) -> list[Action]:
        reply, frame = event.reply, self._awaiting(event.key, event)
        timed = self.beliefs.links.answered(event.key, event.now_s, reply)
        if frame is None or reply.logits is None:
            return []
        frame.timed(timed)
        frame.answered(reply, reply.logits)
        return self._ended(self._schedule.answered(event.key, event.now_s))

    def _failed(self, event: ev.MessageFailed) -> list[Action]:
        frame = self._awaiting(event.key, event)
        self.beliefs.failed(event.key, event.now_s, event.sent_s, event.failure)
        if frame is None:
            return []
        frame.record.error = event.failure.reason
        return [*self._ended(self._schedule.lost(event.key, event.now_s)), ev.Wake()]

    def _passed_on(self, event: ev.PassedOn) -> list[Action]:
        frame = self._awaiting(event.key, event)
        timed = self.beliefs.links.passed_on(event.key, event.now_s, event.timing)
        if frame is not None:
            frame.timed(timed)
        return []

    def _worker_ready(self, event: ev.WorkerReady) -> list[Action]:
        begun = self._schedule.take(event.now_s)
        if begun is None:
            return [ev.WaitUntil(self._schedule.next_run_s())]
        frame = self._frames[begun.number]
        record, local = frame.record, bool(self._table.local[frame.record.row])
        expected_s = float((self._table.head_s if local else self._table.finish_s)[record.row])
        self._run = ev.RunNet(record.frame, record.decision, local, frame.x, begun.begin_s, expected_s)
        return [self._run]

    def _run_ended(self, event: ev.RunEnded) -> list[Action]:
        run, self._run = self._run, None
        if run is None or run.number != event.number:
            raise LifeError(f"frame {event.number} has no run under way: RunEnded is not allowed")
        took_s, good = event.end_s - run.begin_s, event.logits is not None
        if good:
            self.beliefs.ran(event.end_s, run.expected_s, took_s)
        if (frame := self._frames.get(event.number)) is not None:
            frame.ran(took_s, event.logits, event.error)
        return [*self._ended(self._schedule.ran(event.number, event.end_s, good)), ev.Wake()]

    def _tick(self, event: ev.Tick) -> list[Action]:
        """End the frames whose deadlines have passed."""
        ends: list[Action] = []
        while (end := self._schedule.expired(event.now_s)) is not None:
            ends.append(self._settle(end))
        return [*ends, ev.WaitUntil(self._schedule.next_deadline_s())]

    def _must_be(self, number: int, state: FrameState, event: Event) -> None:
        if (found := self._lives.of(number)) != state:
            raise _not_allowed(number, found, event)

    def _awaiting(self, key: int, event: Event) -> OpenFrame | None:
        """The open frame of a message; None for a probe, and after the frame's end."""
        if key < 0 or (state := self._lives.of(key)) is None:
            return None
        if state in (FrameState.TURN, FrameState.HEAD):
            raise _not_allowed(key, state, event)
        return self._frames[key]

    def _ended(self, end: End | None) -> list[Action]:
        return [] if end is None else [self._settle(end)]

    def _settle(self, end: End) -> Action:
        frame = self._frames.pop(end.number)
        frame.settle(end.by, end.at_s, self._table, self._form)
        self.beliefs.settled(frame.record, end.at_s)
        return ev.Settle(frame.record)


def _not_allowed(number: int, state: FrameState | None, event: Event) -> LifeError:
    return LifeError(f"frame {number} is {state or 'over'}: {type(event).__name__} is not allowed")


def _send(probe: Probe, sent_s: float) -> ev.SendProbe:
    return ev.SendProbe(probe.key, probe.size, probe.probe_next, sent_s)
