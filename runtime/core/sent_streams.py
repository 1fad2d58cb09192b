"""The streams that a device sends: sequence numbers, references, ages, keys. A state machine without socket or clock.

A stream's reference is the last payload that was sent in it, whether its answer has come or not. After a failure of any
message the server may be another one, or may lack what was under way. So all streams then begin again with a key.
Failures of messages that had left before are part of the same break, and ask for no second key.

Behind a balancer that sends a device's messages now here and now there, every reference is unknown. A second break of
this kind soon after the first holds all streams off: for a time, which doubles from break to break, every payload is a
key. The policy sees it coming, because the age of every reference is then infinite. The memory of such breaks fades.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tidesplit.runtime.wire.stream_place import StreamPlace

__all__ = ["SentStreams"]

FORGOTTEN_S = 30.0  # half the time after which a server forgets a stream, see `runtime.server.held_streams`
FIRST_S, LONGEST_S = 1.0, 16.0  # of the hold: a look every 16 s costs a balanced device some three frames
FADE_S = 10.0  # time in which the hold that a break would cause halves
SHORTEST_S = 0.25  # a hold below this is none


@dataclass
class _Sent:
    """The last payload of a stream."""

    sequence: int = -1
    arrival_s: float = 0.0
    sent_s: float = -math.inf


class SentStreams:
    """All streams of a table. Times are on the device's clock.

    Args:
        names: the order of the columns of `ages`.
        period_s: time between two frames.
    """

    def __init__(self, names: Iterable[str], period_s: float) -> None:
        self._streams = {name: _Sent() for name in names}
        self._period_s = period_s
        self._broken_s = -math.inf  # moment of the newest break
        self._held_until_s = -math.inf
        self._trouble_s = 0.0  # hold that the next break would have caused just after the last hold

    def ages(self, arrival_s: float, now_s: float) -> list[float]:
        """Frames from each stream's reference to the frame that arrived at `arrival_s`.

        Infinity where the stream's next payload is a key.
        """
        return [self.age(name, arrival_s, now_s) for name in self._streams]

    def age(self, name: str, arrival_s: float, now_s: float) -> float:
        """The age of one stream's reference."""
        stream = self._streams[name]
        if self._needs_key(stream, now_s):
            return math.inf
        return float(max(1, round((arrival_s - stream.arrival_s) / self._period_s)))

    def send(self, name: str, arrival_s: float, now_s: float) -> StreamPlace:
        """The place of the next payload of a stream, which counts as sent at `now_s`. It has to be sent."""
        stream = self._streams[name]
        reference = None if self._needs_key(stream, now_s) else stream.sequence
        stream.sequence += 1
        stream.arrival_s, stream.sent_s = arrival_s, now_s
        return StreamPlace(name, stream.sequence, reference)

    def failed(self, sent_s: float, now_s: float, reference_unknown: bool = False) -> None:
        """A message that was sent at `sent_s` failed."""
        if sent_s <= self._broken_s:
            return
        self._broken_s = now_s
        if not reference_unknown:
            return
        hold_s = self._trouble_s * 0.5 ** (max(now_s - self._held_until_s, 0.0) / FADE_S) if self._trouble_s else 0.0
        hold_s = 0.0 if hold_s < SHORTEST_S else hold_s
        self._held_until_s = now_s + hold_s
        self._trouble_s = min(max(2.0 * hold_s, FIRST_S), LONGEST_S)

    def _needs_key(self, stream: _Sent, now_s: float) -> bool:
        gone = stream.sent_s <= self._broken_s or now_s - stream.sent_s > FORGOTTEN_S
        return gone or now_s < self._held_until_s
