"""The device's knowledge of its links, as one state machine without socket, clock or thread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Transfers
from tidesplit.runtime.device.breaker import Breaker
from tidesplit.runtime.device.further_hops import FurtherHop, probe_after_s
from tidesplit.runtime.device.sending import Reply
from tidesplit.runtime.wire.answers import ServerTiming
from tidesplit.runtime.wire.estimator import Estimator, Settled

LOST_AFTER_S = 0.5  # a link keeps the order: a message without an answer is lost if one sent so much later has its own
PING_BYTES = 64.0  # probes of a broken link queue up in front of it, so they are small


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
        self._first = Estimator(world.window)
        self._further = tuple(FurtherHop(world) for _ in range(1, hops))
        self._probes = 0

    def transfers(self) -> tuple[Transfers, ...]:
        """The last messages on each hop, shapes `[1, window]`."""
        return self._first.transfers(), *(hop.transfers() for hop in self._further)

    def greeting(self, now_s: float, timed: bool) -> Probe:
        """A tiny message before the first frame. The estimator learns from it if it is `timed`."""
        return self._probe(now_s, PING_BYTES, timed)

    def due_probe(self, now_s: float) -> Probe | None:
        """The probe to send now: of a broken link when its back-off is over, or of a link that was silent for long."""
        if self.breaker.wants_probe(now_s):
            self.breaker.probing()
            return self._probe(now_s, PING_BYTES)
        silent_s = now_s - self._first.last_sent_s
        if self.breaker.blocked or silent_s < probe_after_s(self._first, self._world):
            return None
        if self._first.unanswered and silent_s < LOST_AFTER_S:
            return None
        return self._probe(now_s, self._world.probe_bytes - self._world.overhead_bytes)

    def sent(self, key: int, now_s: float, settled: Settled, further: Sequence[Ahead] = ()) -> bool:
        """Record a frame that leaves the device now, with its message on each further hop that it crosses.

        Returns True where the frame shall ask for a probe of the second hop.
        """
        self._first.sent(key, now_s, settled)
        for hop, ahead in zip(self._further, further, strict=False):
            hop.sent(key, now_s, ahead.ready_s, ahead.settled)
        return not further and self._asks_for_probe(key, now_s)

    def passed_on(self, key: int, now_s: float, timing: ServerTiming) -> tuple[float, float] | None:
        """Record the middle server's receipt for a frame. Returns uplink time and round trip of the first hop."""
        news = [hop.passed_on(key) for hop in self._further]
        if not any(news):
            return None
        waited = timing.compute_s > 0.0  # a payload passed on unchanged does not wait
        return self._first.answered(key, now_s, timing.received_s, timing.wait_s, waited)

    def failed(self, key: int, now_s: float, reason: str) -> None:
        """Record that a message failed. The breaker ignores failures beyond the middle server."""
        beyond = [hop.failed(key) for hop in self._further]
        if not any(beyond):
            self.breaker.failed(now_s, reason)

    def answered(self, key: int, now_s: float, reply: Reply) -> tuple[float, float] | None:
        """Record an answer. Returns uplink time and round trip of the first hop; None where the receipt had them."""
        timed, sent_s = None, self._first.sent_s(key)
        receipts = [hop.answered(key, now_s, reply.next_timing, reply.newest) for hop in self._further]
        if not any(receipts):
            waited = reply.logits is not None  # the wait in a probe's answer is that of frames
            timed = self._first.answered(key, now_s, reply.timing.received_s, reply.timing.wait_s, waited)
        self._first.forget_unanswered(math.inf if self.breaker.succeeded() else sent_s - LOST_AFTER_S)
        return timed

    def _probe(self, now_s: float, size: float, timed: bool = True) -> Probe:
        self._probes += 1
        key = -self._probes
        if timed:
            self._first.sent(key, now_s, Settled(size + self._world.overhead_bytes))
        return Probe(key, int(size), self._asks_for_probe(key, now_s))

    def _asks_for_probe(self, key: int, now_s: float) -> bool:
        asked = [hop.asks_for_probe(key, now_s) for hop in self._further]
        return any(asked)
