"""What the device knows of the link behind the edge server, in three tiers: a state machine without socket or clock.

Of its own frames that went on, the device learns from their answers. Where none did for a while it asks the edge server
for a probe, whose outcome comes with whatever the edge server answers next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Transfers
from tidesplit.runtime.wire.answers import HopTimes, NextTiming
from tidesplit.runtime.wire.estimator import Estimator, Settled

__all__ = ["SecondLink"]


@dataclass
class _Frame:
    """A frame that is to go on: when it was foreseen to be ready, and whether the edge server said that it has it."""

    ready_s: float
    passed_on: bool = False


class SecondLink:
    """The last messages on the second link, as far as the device can know of them. Keys: the device's own messages."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._estimator = Estimator(world.window)
        self._frames: dict[int, _Frame] = {}
        self._asked_s: dict[int, float] = {}  # probes whose outcome is not known: when they were asked for
        self._asked_by: dict[int, int] = {}  # messages under way that asked for one, and its key
        self._asked = 0
        self._used_s = -math.inf  # when something for this link last left the device

    def asks_for_probe(self, key: int, now_s: float) -> bool:
        """Whether nothing went on for so long that the message about to be sent is to ask for a probe; then it does."""
        if now_s - self._used_s < self._world.probe_after_s:
            return False
        self._asked += 1
        probe, self._used_s = -self._asked, now_s
        self._asked_by[key], self._asked_s[probe] = probe, now_s
        self._asked_s.pop(probe + self._world.window, None)  # too long ago for the estimator to know it
        self._estimator.sent(probe, now_s, Settled(self._world.probe_bytes))
        return True

    def sent(self, key: int, now_s: float, ready_s: float, settled: Settled) -> None:
        """A frame has left the device, and will be ready for the second link at `ready_s`, if all is as foreseen."""
        self._used_s, self._frames[key] = now_s, _Frame(ready_s)
        self._estimator.sent(key, ready_s, settled)

    def passed_on(self, key: int) -> bool:
        """The edge server says that it has a frame and sends it on; whether that is news."""
        frame = self._frames.get(key)
        news = frame is not None and not frame.passed_on
        if frame is not None:
            frame.passed_on = True
        return news

    def failed(self, key: int) -> bool:
        """A message of the device's failed; whether that was behind the edge server. If not, nothing came here."""
        probe = self._asked_by.pop(key, None)
        if probe is not None:
            self._asked_s.pop(probe, None)
            self._estimator.drop(probe)
        frame = self._frames.pop(key, None)
        if frame is not None and not frame.passed_on:
            self._estimator.drop(key)
        return frame is not None and frame.passed_on

    def answered(self, key: int, now_s: float, timing: NextTiming | None, newest: HopTimes | None) -> bool:
        """A message of the device's was answered; whether the edge server had sent it on before.

        `timing`: of the tier behind, None where that did not answer it. `newest`: what the edge server knows; it is the
        outcome of those probes that were asked for before it crossed.
        """
        self._asked_by.pop(key, None)
        frame = self._frames.pop(key, None)
        if frame is not None and timing is not None:
            self._estimator.told(key, now_s, timing.uplink_s, timing.rtt_s)
            self._works(min(frame.ready_s, now_s - timing.total_s))
        if newest is not None:
            self._learn(newest, now_s - newest.age_s)
        return frame is not None and frame.passed_on

    def transfers(self) -> Transfers:
        """The messages as the observation takes them, shapes `[1, window]`."""
        return self._estimator.transfers()

    def _learn(self, newest: HopTimes, known_s: float) -> None:
        sent_s = known_s - newest.rtt_s - newest.uplink_s
        over = [probe for probe, asked_s in self._asked_s.items() if asked_s <= sent_s]
        if over:
            self._estimator.told(over[-1], known_s, newest.uplink_s, newest.rtt_s, newest.payload)
        for probe in over:
            del self._asked_s[probe]
        self._works(sent_s)

    def _works(self, sent_s: float) -> None:
        """What was sent before a message that has been answered is lost, or was: the link is first in, first out."""
        self._estimator.forget_unanswered(sent_s)
