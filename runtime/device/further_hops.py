"""What the device knows of the hop behind the middle server: a state machine without socket or clock.

Answers to its own frames that went on tell the device about that hop. Where none did for a while, it asks the middle
server for a probe. The outcome comes with the next answer of the middle server, whatever that answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Transfers
from tidesplit.runtime.wire.answers import HopTimes, NextTiming
from tidesplit.runtime.wire.estimator import Estimator, Settled

__all__ = ["FurtherHop", "NoFurtherHop"]


@dataclass
class _Frame:
    """A frame that is to go on: its foreseen moment of being ready, and whether the middle server has confirmed it."""

    ready_s: float
    passed_on: bool = False


class FurtherHop:
    """The last messages on the second hop, as far as the device can know of them. Keys: the device's own messages."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._estimator = Estimator(world.window)
        self._frames: dict[int, _Frame] = {}
        self._asked_s: dict[int, float] = {}  # probes whose outcome is not known: when they were asked for
        self._asked_by: dict[int, int] = {}  # messages under way that asked for one, and its key
        self._asked = 0
        self._used_s = -math.inf  # when a message for this hop last left the device

    def asks_for_probe(self, key: int, now_s: float) -> bool:
        """True where the message about to be sent is to ask for a probe, since nothing went on for long. Counts it."""
        if now_s - self._used_s < self._world.probe_after_s:
            return False
        self._asked += 1
        probe, self._used_s = -self._asked, now_s
        self._asked_by[key], self._asked_s[probe] = probe, now_s
        self._asked_s.pop(probe + self._world.window, None)  # too long ago for the estimator to know it
        self._estimator.sent(probe, now_s, Settled(self._world.probe_bytes))
        return True

    def sent(self, key: int, now_s: float, ready_s: float, settled: Settled) -> None:
        """Record a frame that has left the device and is foreseen to be ready for the second hop at `ready_s`."""
        self._used_s, self._frames[key] = now_s, _Frame(ready_s)
        self._estimator.sent(key, ready_s, settled)

    def passed_on(self, key: int) -> bool:
        """Record the middle server's receipt for a frame. Returns True the first time."""
        frame = self._frames.get(key)
        news = frame is not None and not frame.passed_on
        if frame is not None:
            frame.passed_on = True
        return news

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
        """Record an answer. Returns True where the middle server had sent the message on before.

        `timing`: of the second hop, None where the message did not cross it. `newest`: the last message that the middle
        server knows of. It is the outcome of all probes that were asked for before it crossed.
        """
        self._asked_by.pop(key, None)
        frame = self._frames.pop(key, None)
        if frame is not None and timing is not None:
            self._estimator.told(key, now_s, timing.uplink_s, timing.rtt_s)
            self._works(min(frame.ready_s, now_s - timing.total_s))
        if newest is not None:
            self._learn(newest, now_s - newest.age_s)
        return frame is not None and frame.passed_on

    def transfers(self) -> tuple[Transfers, ...]:
        """The messages as the observation takes them, one entry for each further hop, shapes `[1, window]`."""
        return (self._estimator.transfers(),)

    def _learn(self, newest: HopTimes, known_s: float) -> None:
        sent_s = known_s - newest.rtt_s - newest.uplink_s
        over = [probe for probe, asked_s in self._asked_s.items() if asked_s <= sent_s]
        if over:
            self._estimator.told(over[-1], known_s, newest.uplink_s, newest.rtt_s, newest.payload)
        for probe in over:
            del self._asked_s[probe]
        self._works(sent_s)

    def _works(self, sent_s: float) -> None:
        """Forget messages sent before an answered one: they are lost, since the link is first in, first out."""
        self._estimator.forget_unanswered(sent_s)


class NoFurtherHop(FurtherHop):
    """Two tiers: no message goes on, so there is nothing to ask for and nothing to know."""

    def asks_for_probe(self, key: int, now_s: float) -> bool:  # noqa: ARG002  # the base class's signature
        """Never."""
        return False

    def transfers(self) -> tuple[Transfers, ...]:
        """Nothing."""
        return ()
