"""What the device knows of the link behind the edge server, in three tiers: a state machine without socket or clock.

Of its own frames that went on, the device learns from their answers. Where none did for a while it asks the edge server
for a probe, whose outcome comes with whatever the edge server answers next.
"""

from __future__ import annotations

from collections import deque

from envs.vocabulary import Transfers
from envs.world import World
from runtime.answers import Crossing, NextTiming
from runtime.estimator import Estimator, Settled

__all__ = ["SecondLink"]


class SecondLink:
    """The last messages on the second link, as far as the device can know of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._estimator = Estimator(world.window)
        self._probes: deque[int] = deque(maxlen=world.window)  # keys of those whose outcome is not known
        self._sent_s: dict[int, float] = {}
        self._asked = 0
        self._seen = 0.0

    def wants_probe(self, now_s: float) -> bool:
        """Whether nothing went on for so long that the next message is to ask for a probe."""
        return now_s - self._estimator.last_sent_s >= self._world.probe_after_s

    def asked_for_probe(self, ready_s: float) -> None:
        """The edge server will have been asked then."""
        self._asked += 1
        self._probes.append(-self._asked)
        self._estimator.sent(-self._asked, ready_s, Settled(self._world.probe_bytes))

    def sent(self, key: int, ready_s: float, settled: Settled) -> None:
        """A frame will go on, and be ready for the second link then, if all is as foreseen."""
        self._sent_s[key] = ready_s
        self._estimator.sent(key, ready_s, settled)

    def answered(self, key: int, now_s: float, timing: NextTiming | None) -> None:
        """A frame that was to go on is over; `timing` is None where the edge server had to answer it by itself."""
        ready_s = self._sent_s.pop(key, now_s)
        if timing is not None:
            self._estimator.told(key, now_s, timing.uplink_s, timing.rtt_s)
            self._works(ready_s)

    def told(self, now_s: float, newest: Crossing | None) -> None:
        """An answer of the edge server's own said what it knows."""
        if newest is None or newest.number <= self._seen:
            return
        self._seen = newest.number
        known_s = now_s - newest.age_s
        if self._probes:
            self._estimator.told(self._probes.pop(), known_s, newest.uplink_s, newest.rtt_s)
            self._probes.clear()
        self._works(known_s - newest.rtt_s - newest.uplink_s)

    def transfers(self) -> Transfers:
        """The messages as the observation takes them, shapes `[1, window]`."""
        return self._estimator.transfers()

    def _works(self, sent_s: float) -> None:
        """What was sent before a message that has been answered is lost, or was: the link is first in, first out."""
        self._estimator.forget_unanswered(sent_s)
