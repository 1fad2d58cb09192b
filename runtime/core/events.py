"""What happens to a device, and what it then has to do: the whole vocabulary between its core and its threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.compression.codec.pixels import Pixels
from tidesplit.runtime.camera.picture import Picture
from tidesplit.runtime.choosing.deciding import Decision
from tidesplit.runtime.choosing.device_situation import DeviceSituation
from tidesplit.runtime.core.sending import Failure, Reply
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.wire.answers import ServerTiming
from tidesplit.runtime.wire.stream_place import StreamPlace

__all__ = [
    "Action", "AskForHead", "ChoosePoint", "Event", "FrameDue", "Greeting", "HeadDone", "HeadReady", "Logits",
    "MessageAnswered", "MessageFailed", "PassedOn", "PointChosen", "RunEnded", "RunHead", "RunNet", "SendFrame",
    "SendProbe", "Settle", "Tick", "WaitUntil", "Wake", "WorkerReady",
]  # fmt: skip

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Greeting:
    """A tiny message is to be sent before the first frame. The device learns the link from it if it is `timed`."""

    now_s: float
    timed: bool


@dataclass(frozen=True, slots=True)
class FrameDue:
    """A frame that arrived at `arrival_s` gets its turn.

    `taken_s` is the moment of a live picture. `heat_c` is the processor's temperature, None where it is not known.
    """

    now_s: float
    number: int
    picture: Picture
    arrival_s: float
    taken_s: float | None = None
    heat_c: float | None = None


@dataclass(frozen=True, slots=True)
class PointChosen:
    """The frame's decision is made. It took `decided_s`."""

    now_s: float
    number: int
    decision: Decision
    decided_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HeadReady:
    """The frame's head could run."""

    now_s: float
    number: int


@dataclass(frozen=True, slots=True)
class HeadDone:
    """The frame's payload is ready at `end_s`. `feature` is the input of the device's own run."""

    end_s: float
    number: int
    payload: bytes
    feature: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MessageAnswered:
    """The answer to a frame, or to a probe, whose key is negative."""

    now_s: float
    key: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class MessageFailed:
    """The message of `sent_s` has no answer."""

    now_s: float
    key: int
    sent_s: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class PassedOn:
    """The middle server's receipt for a frame that it sends on."""

    now_s: float
    key: int
    timing: ServerTiming


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The worker could run something."""

    now_s: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The worker's run has ended. Without `logits`, `error` is the reason."""

    end_s: float
    number: int
    logits: Logits | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    now_s: float


@dataclass(frozen=True, slots=True)
class ChoosePoint:
    """Let the policy decide. `PointChosen` must follow."""

    number: int
    situation: DeviceSituation


@dataclass(frozen=True, slots=True)
class AskForHead:
    """Say `HeadReady`, until there is a `RunHead`."""

    number: int


@dataclass(frozen=True, slots=True)
class RunHead:
    """Run a point's head and encode its payload, as a `key` or relative to the last one. `HeadDone` must follow.

    The work begins at `begin_s` and takes `expected_s` on the table's device. Runs of the worker move the end of an
    `interrupted` one.
    """

    number: int
    point_id: str
    pixels: Pixels
    key: bool
    begin_s: float
    expected_s: float
    interrupted: bool


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send a payload. It counts as sent at `sent_s`. `receipt` is True where the middle server is to say `PassedOn`."""

    number: int
    point_id: str
    payload: bytes
    sent_s: float
    receipt: bool
    probe_next: bool
    place: StreamPlace | None


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Send `size` bytes without meaning at `sent_s`."""

    key: int
    size: int
    probe_next: bool
    sent_s: float


@dataclass(frozen=True, slots=True)
class RunNet:
    """Run a `local` point's net on the pixels `x`, or finish a point from its feature `x`. `RunEnded` must follow."""

    number: int
    point_id: str
    local: bool
    x: Any
    begin_s: float
    expected_s: float


@dataclass(frozen=True, slots=True)
class Settle:
    """A frame has its end. Log it."""

    record: Record


@dataclass(frozen=True, slots=True)
class Wake:
    """Something is due at another moment than before. Let all who wait ask again."""


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Ask again at this moment, or after a `Wake`."""

    at_s: float


Event = (
    Greeting | FrameDue | PointChosen | HeadReady | HeadDone | MessageAnswered | MessageFailed | PassedOn | WorkerReady
    | RunEnded | Tick
)  # fmt: skip
Action = ChoosePoint | AskForHead | RunHead | SendFrame | SendProbe | RunNet | Settle | Wake | WaitUntil
