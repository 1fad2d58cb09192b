"""The device's knowledge of its links: state machines without socket, clock or thread.

Answers to frames that crossed the second hop have its times. If none crossed it for a while, the device asks the middle
server for a probe. The probe's outcome comes with the next answer of the middle server to any message.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.physics import World
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.core.breaker import Breaker
from tidesplit.runtime.core.schedule import Flight
from tidesplit.runtime.core.sending import Reply
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.wire.answers import HopTimes, NextTiming, ServerTiming
from tidesplit.runtime.wire.estimator import Estimator, Rows, Settled

LOST_AFTER_S = 0.5  # a link keeps the order: a message without an answer is lost if one sent so much later has its own
ODD_AFTER_S = 0.1  # silence after which a probe is sent where one answer contradicts the others
PING_BYTES = 64.0  # probes of a broken link queue up in front of it, so they are small


def probe_after_s(estimator: Estimator, world: World) -> float:
    """Silence after which a probe is due. It is short after an odd answer, so that one hiccup is not believed long."""
    return ODD_AFTER_S if estimator.odd else world.probe_after_s


@dataclass
class _Frame:
    """A frame that is to cross the hop. `passed_on` is True once the middle server's receipt is there."""

    ready_s: float
    passed_on: bool = False


class FurtherHop:
    """The last messages on the second hop, as far as the device can know them. Keys are those of its own messages."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._estimator = Estimator(world.window)
        self._frames: dict[int, _Frame] = {}
        self._asked_s: dict[int, float] = {}  # moment of asking for each probe whose outcome is not known
        self._asked_by: dict[int, int] = {}  # probe that each unanswered message asked for
        self._asked = 0
        self._used_s = -math.inf  # moment at which the last message for this hop left the device

    def asks_for_probe(self, key: int, now_s: float) -> bool:
        """True where the message that is sent now shall ask for a probe, after a long silence. Counts the probe."""
        if now_s - self._used_s < probe_after_s(self._estimator, self._world):
            return False
        self._asked += 1
        probe, self._used_s = -self._asked, now_s
        self._asked_by[key], self._asked_s[probe] = probe, now_s
        self._asked_s.pop(probe + self._world.window, None)  # so old that the estimator has forgotten it
        self._estimator.sent(probe, now_s, Settled(self._world.probe_bytes))
        return True

    def sent(self, key: int, now_s: float, ready_s: float, settled: Settled) -> None:
        """Record a frame that has left the device and is foreseen to be ready for the hop at `ready_s`."""
        self._used_s, self._frames[key] = now_s, _Frame(ready_s)
        self._estimator.sent(key, ready_s, settled)

    def passed_on(self, key: int) -> bool:
        """Record the middle server's receipt for a frame. Returns True the first time."""
        frame = self._frames.get(key)
        if frame is None or frame.passed_on:
            return False
        frame.passed_on = True
        return True

    def failed(self, key: int) -> bool:
        """Record that a message failed. Returns True where it failed beyond the middle server."""
        probe = self._asked_by.pop(key, None)
        if probe is not None:
            self._asked_s.pop(probe, None)
            self._estimator.drop(probe)
        frame = self._frames.pop(key, None)
        if frame is not None and not frame.passed_on:
            self._estimator.drop(key)
        return frame is not None and frame.passed_on

    def answered(self, key: int, now_s: float, timing: NextTiming | None, newest: HopTimes | None) -> bool:
        """Record an answer. Returns True where there was a receipt for the message before.

        `timing` is that of the second hop, None where the message did not cross it. `newest` is the outcome of all
        probes that were asked for before the newest message on the hop was sent.
        """
        self._asked_by.pop(key, None)
        frame = self._frames.pop(key, None)
        if frame is not None and timing is not None:
            self._estimator.timed(key, now_s, timing.uplink_s, timing.rtt_s)
            self._works(min(frame.ready_s, now_s - timing.total_s))
        if newest is not None:
            self._learn(newest, now_s - newest.age_s)
        return frame is not None and frame.passed_on

    def rows(self) -> Rows:
        """The messages, see `Estimator.rows`."""
        return self._estimator.rows()

    def _learn(self, newest: HopTimes, known_s: float) -> None:
        sent_s = known_s - newest.rtt_s - newest.uplink_s
        over = [probe for probe, asked_s in self._asked_s.items() if asked_s <= sent_s]
        if over:
            self._estimator.timed(over[-1], known_s, newest.uplink_s, newest.rtt_s, newest.payload)
        for probe in over:
            del self._asked_s[probe]
        self._works(sent_s)

    def _works(self, sent_s: float) -> None:
        """Forget unanswered messages from before an answered one: the link is first in, first out, so they are lost."""
        self._estimator.forget_unanswered(sent_s)


@dataclass(frozen=True)
class Probe:
    """A message to send that is no frame. `probe_next` is True where it asks for a probe of the second hop."""

    key: int
    size: int
    probe_next: bool


@dataclass(frozen=True)
class Ahead:
    """A frame's message on a further hop, and the moment at which it is foreseen to be ready for it."""

    ready_s: float
    settled: Settled


class LinkKnowledge:
    """The last messages on each hop, and the breaker of the first one."""

    def __init__(self, world: World, hops: int, rng: np.random.Generator) -> None:
        self.breaker = Breaker(rng)
        self._world = world
        self.first = Estimator(world.window)  # of the first hop
        self._further = tuple(FurtherHop(world) for _ in range(1, hops))
        self._probes = 0

    def messages(self) -> tuple[Rows, ...]:
        """The last messages on each hop, see `Estimator.rows`."""
        return self.first.rows(), *(hop.rows() for hop in self._further)

    def greeting(self, now_s: float, timed: bool) -> Probe:
        """A tiny message before the first frame. The estimator learns from it if it is `timed`."""
        return self._probe(now_s, PING_BYTES, timed)

    def due_probe(self, now_s: float, resting: bool = False) -> Probe | None:
        """The probe to send now: of a broken link when its back-off is over, or of a link that was silent for long.

        A radio that is `resting` is woken by none but those that the simulated world sends too.
        """
        if not resting and self.breaker.wants_probe(now_s):
            self.breaker.probing()
            return self._probe(now_s, PING_BYTES)
        silent_s = now_s - self.first.last_sent_s
        after_s = self._world.probe_after_s if resting else probe_after_s(self.first, self._world)
        if self.breaker.blocked or silent_s < after_s:
            return None
        if self.first.unanswered and silent_s < LOST_AFTER_S:
            return None
        return self._probe(now_s, self._world.probe_bytes - self._world.overhead_bytes)

    def sent(self, key: int, now_s: float, settled: Settled, further: Sequence[Ahead] = ()) -> bool:
        """Record a frame that leaves the device now, with its message on each further hop that it crosses.

        Returns True where the frame shall ask for a probe of the second hop.
        """
        self.first.sent(key, now_s, settled)
        for hop, ahead in zip(self._further, further, strict=False):
            hop.sent(key, now_s, ahead.ready_s, ahead.settled)
        return not further and self._asks_for_probe(key, now_s)

    def passed_on(self, key: int, now_s: float, timing: ServerTiming) -> tuple[float, float] | None:
        """Record the middle server's receipt for a frame. Returns uplink time and round trip of the first hop."""
        news = [hop.passed_on(key) for hop in self._further]
        if not any(news):
            return None
        waited = timing.compute_s > 0.0  # a payload passed on unchanged does not wait
        return self.first.answered(key, now_s, timing.received_s, timing.wait_s, waited, timing.clock)

    def failed(self, key: int, now_s: float, reason: str, pause_s: float = 0.0, lasts: bool = False) -> None:
        """Record that a message failed, see `Breaker.failed`, which ignores failures beyond the middle server."""
        beyond = [hop.failed(key) for hop in self._further]
        if not any(beyond):
            self.breaker.failed(now_s, reason, pause_s, lasts)

    def reference_unknown(self, key: int) -> None:
        """Record a server's answer that it lacks a reference, or any video. The link works; the answer has no times."""
        for hop in self._further:
            hop.failed(key)
        self.first.drop(key)
        if self.breaker.succeeded():
            self.first.forget_unanswered()

    def answered(self, key: int, now_s: float, reply: Reply) -> tuple[float, float] | None:
        """Record an answer. Returns uplink time and round trip of the first hop; None where the receipt had them."""
        timed, sent_s = None, self.first.sent_s(key)
        receipts = [hop.answered(key, now_s, reply.next_timing, reply.newest) for hop in self._further]
        if not any(receipts):
            waited = reply.logits is not None  # the wait in a probe's answer is that of frames
            timed = self.first.answered(
                key, now_s, reply.timing.received_s, reply.timing.wait_s, waited, reply.timing.clock
            )
        self.first.forget_unanswered(math.inf if self.breaker.succeeded() else sent_s - LOST_AFTER_S)
        return timed

    def _probe(self, now_s: float, size: float, timed: bool = True) -> Probe:
        self._probes += 1
        key = -self._probes
        if timed:
            self.first.sent(key, now_s, Settled(size + self._world.overhead_bytes))
        return Probe(key, int(size), self._asks_for_probe(key, now_s))

    def _asks_for_probe(self, key: int, now_s: float) -> bool:
        asked = [hop.asks_for_probe(key, now_s) for hop in self._further]
        return any(asked)


def messages(
    record: Record, flight: Flight, now: Observation, table: PointTable, world: World
) -> tuple[Settled, list[Ahead]]:
    """A frame's message on the first hop, and on the second one where the frame crosses it.

    The last hop has the answer. A first hop before it has the receipt of the middle server, which then still needs to
    decode, run its part of the CNN and encode.
    """
    row, overhead = record.row, world.overhead_bytes
    tail_s = float(world.serving_s(table.server_s, table.images)[row])
    run_s = flight.run_s if math.isfinite(flight.run_s) else 0.0
    for before, hop, ahead in zip(now.seen.hops, table.hops[1:], now.foreseen.further, strict=False):
        if hop.sends[row]:
            size = record.sent_bytes if hop.relays[row] else float(hop.bytes_mean[row])
            back_s = 0.5 * float(before.rtt_s[0])  # from the middle server, which has the answer first
            ready_s = record.decided_at_s + float(ahead.ready_s[0, row])
            second = Ahead(ready_s, Settled(size + overhead, flight.due_s, run_s, tail_s + back_s))
            compute_s = float(world.serving_s(hop.compute_s, table.light)[row])
            return Settled(record.sent_bytes + overhead, tail_s=compute_s), [second]
    return Settled(record.sent_bytes + overhead, flight.due_s, run_s, tail_s), []
