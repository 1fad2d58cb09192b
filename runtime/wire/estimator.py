"""The estimator times messages on one link: a state machine over values, without socket or clock.

It keeps the last messages in the form of `Transfers`, so that the observation is built exactly as in training.

The server stamps each arrival on its own clock. The smallest difference between a stamp and the moment of sending is
the delay of the empty link plus the offset of the clocks. The time that a message took beyond it is that of its bytes.
Behind a balancer several servers stamp, each by a clock of its own. Offsets are kept by clock.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from tidesplit.envs.world.vocabulary import Transfers

Rows = list[tuple[float, ...]]  # messages of one link with the fields of `Transfers`, newest first
CLOCKS = 8  # servers whose offsets are kept; those of the least recently heard one go first
OFFSETS = 600  # differences that are kept: twenty seconds of messages at 30 a second
LARGER_BYTES = 200.0  # a message that is larger by this takes measurably longer
SMALL_BYTES = 1_600.0  # a probe or less: on all but the slowest links the time of its bytes is negligible
UNEVEN_S = 0.004  # threads delay a message by up to some milliseconds; a longer delay comes from the link
ODD, ODD_S = 4.0, 0.05  # an odd answer took so many times, and so much, longer than the quickest one
UNUSED = (-math.inf, -math.inf, *(0.0 for _ in Transfers._fields[2:]))  # slot without a message
BASE_S = 30.0  # age at which differences are dropped: cheap crystals drift by 50 ppm, 1.5 ms in this time


@dataclass(frozen=True)
class Settled:
    """Fields of `Transfers` that the device settles itself when it sends a message."""

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
    """The last `window` messages on one link, newest first. Keys are the caller's names for messages."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._messages: deque[_Message] = deque(maxlen=window)
        # Moment of sending, difference between the server's stamp and that moment, bytes.
        self._offsets: dict[float, deque[tuple[float, float, float]]] = {}  # by clock, the last one last
        self._left_s = -math.inf  # moment at which the last stamped message had left the device

    @property
    def last_sent_s(self) -> float:
        """Moment of the last sending; minus infinity if there was none."""
        return self._messages[0].sent_s if self._messages else -math.inf

    @property
    def unanswered(self) -> int:
        """Number of messages without an answer."""
        return sum(math.isinf(m.answered_s) for m in self._messages)

    @property
    def odd(self) -> bool:
        """True where one answer took far longer than another. Only new messages can show which one is usual."""
        took = [m.uplink_s + m.rtt_s + m.wait_s for m in self._messages if math.isfinite(m.answered_s)]
        return bool(took) and max(took) > max(ODD * min(took), min(took) + ODD_S)

    def sent_s(self, key: int) -> float:
        """Moment of sending of a message; minus infinity for a forgotten one."""
        return next((m.sent_s for m in self._messages if m.key == key), -math.inf)

    def sent(self, key: int, now_s: float, settled: Settled) -> None:
        """Record a message that is ready for the link at `now_s`."""
        self._messages.appendleft(_Message(key, now_s, settled))

    def answered(
        self, key: int, now_s: float, received_s: float, wait_s: float, waited: bool = True, clock: float = 0.0
    ) -> tuple[float, float] | None:
        """Record an answer. Returns uplink time and round trip of its message, or None for a forgotten one.

        The round trip is the time that the profile's server time does not explain, as in the world. So a server slower
        than its profile shows in it.

        `received_s` is the server's stamp of the message's arrival, on the clock of that name. Without `waited`,
        `wait_s` is the wait of other messages, and this one did not wait.
        """
        message = next((m for m in self._messages if m.key == key), None)
        if message is None:
            return None  # `window` others were sent since
        offsets = self._of_clock(clock)
        base_s = _base_s(offsets, message, received_s)
        if received_s - base_s > now_s + UNEVEN_S:  # it would have come after its answer: the clock jumped
            offsets.clear()
            base_s = _base_s(offsets, message, received_s)
        # Never in the future, even if the server's clock jumps.
        left_s = min(message.sent_s + (received_s - message.sent_s - base_s), now_s)
        message.uplink_s = max(left_s - max(message.sent_s, self._left_s), 0.0)
        message.rtt_s = max(now_s - left_s - waited * wait_s - message.settled.tail_s, 0.0)
        message.wait_s = wait_s
        message.answered_s = now_s
        self._left_s = max(self._left_s, left_s)
        return message.uplink_s, message.rtt_s

    def _of_clock(self, clock: float) -> deque[tuple[float, float, float]]:
        """The differences of one server's clock."""
        self._offsets[clock] = self._offsets.pop(clock, deque(maxlen=OFFSETS))
        if len(self._offsets) > CLOCKS:
            del self._offsets[next(iter(self._offsets))]
        return self._offsets[clock]

    def timed(self, key: int, now_s: float, uplink_s: float, rtt_s: float, payload: float | None = None) -> None:
        """Record an answer with the times, and the bytes if given, that the middle server measured."""
        message = next((m for m in self._messages if m.key == key), None)
        if message is not None:
            message.uplink_s, message.rtt_s, message.answered_s = uplink_s, rtt_s, now_s
            if payload is not None:
                message.settled = replace(message.settled, payload=payload)

    def drop(self, key: int) -> None:
        """Forget a message that did not reach the link."""
        self._messages = deque((m for m in self._messages if m.key != key), maxlen=self.window)

    def forget_unanswered(self, before_s: float = math.inf) -> None:
        """Forget unanswered messages sent before that moment: they were lost while the link was broken."""
        kept = [m for m in self._messages if math.isfinite(m.answered_s) or m.sent_s >= before_s]
        self._messages = deque(kept, maxlen=self.window)

    def rows(self) -> Rows:
        """The messages as rows with the fields of `Transfers`, `window` of them."""
        rows: Rows = []
        for m in self._messages:
            s = m.settled
            rows.append(
                (m.sent_s, m.answered_s, s.payload, m.uplink_s, m.rtt_s, m.wait_s, s.due_s, s.finish_s, s.tail_s)
            )
        return rows + [UNUSED] * (self.window - len(rows))


def transfers_of(rows: Rows) -> Transfers:
    """Messages in the form of the simulator's observation, shapes `[1, R]`."""
    return Transfers(*np.array(rows).T[:, None])


def _base_s(offsets: deque[tuple[float, float, float]], message: _Message, received_s: float) -> float:
    """Difference between stamp and sending for a message of no bytes on an empty link.

    It starts from the smallest recent difference, less the time of that message's own bytes. The time of a byte is
    the flattest slope from there to the larger messages.

    The minimum is biased low. The median delay of small messages above it (capped at 4 ms) is scheduling noise, so
    it is added to the base.
    """
    offsets.append((message.sent_s, received_s - message.sent_s, message.settled.payload))
    while offsets[0][0] < message.sent_s - BASE_S:
        offsets.popleft()
    _, offset, payload = np.array(offsets).T
    least = int(np.argmin(offset))
    more = payload - payload[least]
    slopes = (offset - offset[least])[more >= LARGER_BYTES] / more[more >= LARGER_BYTES]
    slope = max(float(slopes.min()), 0.0) if slopes.size else 0.0
    beyond = offset - offset[least] - slope * more
    usual = float(np.median(beyond[payload <= SMALL_BYTES])) if (payload <= SMALL_BYTES).any() else 0.0
    return float(offset[least] - slope * payload[least]) + min(max(usual, 0.0), UNEVEN_S)
