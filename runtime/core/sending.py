"""The interface between the device's loop and the client that sends its messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tidesplit.runtime.wire.answers import HopTimes, NextTiming, ServerTiming
from tidesplit.runtime.wire.stream_place import StreamPlace


@dataclass(frozen=True)
class Reply:
    """A server's answer.

    `logits` has all values of the answer, and is None in that to a probe. `next_timing` is there where the frame
    crossed the second hop. `newest` has the middle server's newest times of that hop.
    """

    logits: NDArray[np.float32] | None
    timing: ServerTiming
    next_timing: NextTiming | None = None
    newest: HopTimes | None = None


@dataclass(frozen=True)
class Failure:
    """The reason why there is no answer, in words.

    `reference_unknown` is True where a server answered that it lacks a payload's reference, and `no_video` where it
    cannot decode video. It has no other fault then. `pause_s` is the time for which the server asks the device not to
    send. `lasts` is True where waiting does not mend the reason.
    """

    reason: str
    reference_unknown: bool = False
    no_video: bool = False
    pause_s: float = 0.0
    lasts: bool = False


Done = Callable[[Reply | Failure], None]
Receipt = Callable[[ServerTiming], None]


class Client(Protocol):
    """Sends messages without waiting. It calls `done` once for each, on a thread of its own."""

    def infer(
        self, number: int, point_id: str, payload: bytes, limit_s: float, done: Done,
        receipt: Receipt | None = None, probe_next: bool = False, place: StreamPlace | None = None,
    ) -> None:  # fmt: skip
        """Send a frame's payload.

        After `limit_s` there is no answer. `receipt` is called when the middle server sends the frame on. With
        `probe_next` it is asked for a probe of the second hop. `place` is that of the payload in its stream, if any.
        """
        ...

    def probe(self, size: int, limit_s: float, done: Done, probe_next: bool = False) -> None:
        """Send `size` bytes without meaning."""
        ...
