"""What the device knows of the link behind the edge server, in three tiers: a state machine without socket or clock.

Of its own frames that went on, the device learns from their answers. Where none did for a while it asks the edge server
for a probe, whose outcome comes with whatever the edge server answers next.
"""

from __future__ import annotations

import math
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
        self._probes: deque[tuple[int, float]] = deque(maxlen=world.window)  # asked for, and when; outcome not known
        self._ready_s: dict[int, float] = {}
        self._asked = 0
        self._used_s = -math.inf  # when something for this link last left the device

    def wants_probe(self, now_s: float) -> bool:
        """Whether nothing went on for so long that the next message is to ask for a probe."""
        return now_s - self._used_s >= self._world.probe_after_s

    def asked_for_probe(self, now_s: float) -> int:
        """A message asks for one; its key."""
        self._asked += 1
        key, self._used_s = -self._asked, now_s
        self._probes.append((key, now_s))
        self._estimator.sent(key, now_s, Settled(self._world.probe_bytes))
        return key

    def sent(self, key: int, now_s: float, ready_s: float, settled: Settled) -> None:
        """A frame has left the device, and will be ready for the second link at `ready_s`, if all is as foreseen."""
        self._used_s, self._ready_s[key] = now_s, ready_s
        self._estimator.sent(key, ready_s, settled)

    def never_came(self, key: int) -> None:
        """A frame, or the message that asked for a probe, did not come to the edge server."""
        self._ready_s.pop(key, None)
        self._estimator.drop(key)
        self._probes = deque((p for p in self._probes if p[0] != key), maxlen=self._world.window)

    def answered(self, key: int, now_s: float, timing: NextTiming | None) -> None:
        """A frame that was to go on is over; `timing` is None where the tier behind did not answer it."""
        ready_s = self._ready_s.pop(key, now_s)
        if timing is not None:
            self._estimator.told(key, now_s, timing.uplink_s, timing.rtt_s)
            self._works(min(ready_s, now_s - timing.total_s))

    def told(self, now_s: float, newest: Crossing | None) -> None:
        """An answer of the edge server's own said what it knows: the outcome of those probes asked for before."""
        if newest is None:
            return
        known_s = now_s - newest.age_s
        sent_s = known_s - newest.rtt_s - newest.uplink_s
        over = [key for key, asked_s in self._probes if asked_s <= sent_s]
        if over:
            self._estimator.told(over[-1], known_s, newest.uplink_s, newest.rtt_s, newest.payload)
            self._probes = deque((p for p in self._probes if p[0] < over[-1]), maxlen=self._world.window)
        self._works(sent_s)

    def transfers(self) -> Transfers:
        """The messages as the observation takes them, shapes `[1, window]`."""
        return self._estimator.transfers()

    def _works(self, sent_s: float) -> None:
        """What was sent before a message that has been answered is lost, or was: the link is first in, first out."""
        self._estimator.forget_unanswered(sent_s)
