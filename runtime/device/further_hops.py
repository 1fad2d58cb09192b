"""The device's knowledge of the hop behind the middle server: a state machine without socket or clock.

Answers to frames that crossed that hop have its times. If none crossed it for a while, the device asks the middle
server for a probe. The probe's outcome comes with the next answer of the middle server to any message.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Transfers
from tidesplit.runtime.wire.answers import HopTimes, NextTiming
from tidesplit.runtime.wire.estimator import Estimator, Settled

ODD_AFTER_S = 0.1  # silence after which a probe is sent where one answer contradicts the others


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

    def transfers(self) -> Transfers:
        """The messages in the form of the observation, shapes `[1, window]`."""
        return self._estimator.transfers()

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
