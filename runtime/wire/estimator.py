"""What the device's messages have told of the link: a state machine over values, without socket or clock.

It keeps the last messages in the form of `Transfers`, from which the observation is built exactly as
in training. The server stamps each message's arrival with a clock of its own; the smallest difference between that
stamp and the moment of sending is one way of an empty link (and how far the clocks are apart); what a message took
beyond it is the time its bytes needed.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from tidesplit.envs.world.vocabulary import Transfers

__all__ = ["Estimator", "Settled"]

OFFSETS = 600  # twenty seconds of messages at 30 a second
LARGER_BYTES = 200.0  # a message so much larger takes measurably longer
SMALL_BYTES = 1_600.0  # a probe, or less: on all but the slowest links their bytes take next to no time
UNEVEN_S = 0.004  # threads and systems hand a message on some milliseconds late; more is the link's doing
BASE_S = 30.0  # clocks that drift by 50 ppm, as cheap crystals do, are 1.5 ms apart after so long


@dataclass(frozen=True)
class Settled:
    """What the device settles as it sends a message, see `Transfers`; seconds on its clock, bytes with overhead."""

    payload: float
    due_s: float = math.inf
    finish_s: float = 0.0
    tail_s: float = 0.0


@dataclass
class _Message:
    key: int
    sent_s: float
    settled: Settled
    answered_s: float = math.inf
    uplink_s: float = 0.0
    rtt_s: float = 0.0
    wait_s: float = 0.0


class Estimator:
    """The last `window` messages, newest first."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._messages: deque[_Message] = deque(maxlen=window)
        # Moment of sending, the server's stamp less that, bytes.
        self._offsets: deque[tuple[float, float, float]] = deque(maxlen=OFFSETS)
        self._left_s = -math.inf  # when the last byte that the server has stamped had left the device

    @property
    def last_sent_s(self) -> float:
        """When something was last sent; minus infinity if never."""
        return self._messages[0].sent_s if self._messages else -math.inf

    @property
    def unanswered(self) -> int:
        """Messages among the last `window` whose answer is not there."""
        return sum(math.isinf(m.answered_s) for m in self._messages)

    def sent(self, key: int, now_s: float, settled: Settled) -> None:
        """A message was given to the link."""
        self._messages.appendleft(_Message(key, now_s, settled))

    def answered(
        self, key: int, now_s: float, received_s: float, wait_s: float, waited: bool = True
    ) -> tuple[float, float] | None:
        """An answer came; returns what its message's uplink and its round trip took, None if it is known no more.

        `received_s`: the server's stamp of the message's arrival, on the server's own clock. The round trip is all that
        the profile's server time does not explain, as in the world: a server slower than its profile shows in it.
        Without `waited` the message did not wait itself: `wait_s` is what the server says of others.
        """
        message = next((m for m in self._messages if m.key == key), None)
        if message is None:
            return None  # so late that `window` others were sent since
        base_s = self._base_s(message, received_s)
        left_s = min(message.sent_s + (received_s - message.sent_s - base_s), now_s)  # whatever the clock there says
        message.uplink_s = max(left_s - max(message.sent_s, self._left_s), 0.0)
        message.rtt_s = max(now_s - left_s - waited * wait_s - message.settled.tail_s, 0.0)
        message.wait_s = wait_s
        message.answered_s = now_s
        self._left_s = max(self._left_s, left_s)
        return message.uplink_s, message.rtt_s

    def _base_s(self, message: _Message, received_s: float) -> float:
        """Offset of a message of no bytes over an empty link: the smallest of late, less what its own bytes took.

        How long a byte takes at best is told by larger messages: the flattest slope from the smallest offset to theirs.
        The luckiest message of many is quicker than one usually is, and what others lack of that luck is not their
        bytes' doing: what small ones are usually later by, a few milliseconds at most, belongs to the empty link.
        """
        self._offsets.append((message.sent_s, received_s - message.sent_s, message.settled.payload))
        while self._offsets[0][0] < message.sent_s - BASE_S:
            self._offsets.popleft()
        _, offset, payload = np.array(self._offsets).T
        least = int(np.argmin(offset))
        more = payload - payload[least]
        slopes = (offset - offset[least])[more >= LARGER_BYTES] / more[more >= LARGER_BYTES]
        slope = max(float(slopes.min()), 0.0) if slopes.size else 0.0
        beyond = offset - offset[least] - slope * more
        usual = float(np.median(beyond[payload <= SMALL_BYTES])) if (payload <= SMALL_BYTES).any() else 0.0
        return float(offset[least] - slope * payload[least]) + min(max(usual, 0.0), UNEVEN_S)

    def told(self, key: int, now_s: float, uplink_s: float, rtt_s: float, payload: float | None = None) -> None:
        """Somebody else timed a message, and knows its bytes if they differ: a middle tier, of what it sent on."""
        message = next((m for m in self._messages if m.key == key), None)
        if message is not None:
            message.uplink_s, message.rtt_s, message.answered_s = uplink_s, rtt_s, now_s
            if payload is not None:
                message.settled = replace(message.settled, payload=payload)

    def drop(self, key: int) -> None:
        """A message never came to the link."""
        self._messages = deque((m for m in self._messages if m.key != key), maxlen=self.window)

    def forget_unanswered(self, before_s: float = math.inf) -> None:
        """The link is back: what was lost with it, sent before that moment, says nothing of how it is now."""
        kept = [m for m in self._messages if math.isfinite(m.answered_s) or m.sent_s >= before_s]
        self._messages = deque(kept, maxlen=self.window)

    def transfers(self) -> Transfers:
        """The messages as the observation takes them, shapes `[1, window]`."""
        table = Transfers.none(1, self.window)
        for slot, m in enumerate(self._messages):
            s = m.settled
            row = (m.sent_s, m.answered_s, s.payload, m.uplink_s, m.rtt_s, m.wait_s, s.due_s, s.finish_s, s.tail_s)
            for column, value in zip(table, row, strict=True):
                column[0, slot] = value
        return table
