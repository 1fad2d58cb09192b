"""What the simulator and the device share: demand, outcome, transfers. NumPy alone; the observation is built beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Objective = Literal["accuracy", "latency"]
Columns = TypeVar("Columns", bound=tuple[Any, ...])


def each(act: Callable[..., Any], *rows: Columns) -> Columns:
    """Apply ``act`` to every array of named tuples that are built alike. Tuples in them, as of hops, are entered."""
    columns = [each(act, *at) if isinstance(at[0], tuple) else act(*at) for at in zip(*rows, strict=True)]
    made: Any = type(rows[0])
    return made(*columns) if hasattr(made, "_fields") else made(columns)  # type: ignore[no-any-return]


class DemandError(ValueError):
    """A demand that makes no sense; the sentence says what was received and what was expected."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What the user asks for.

    ``accuracy``: as many right answers as possible within the deadline (CNNPC's T0). ``latency``: as fast as possible
    at or above an accuracy floor (CNNPC's A0); the deadline is then how long a frame is waited for at all.
    """

    objective: Objective = "accuracy"
    fps: float = 30.0
    deadline_s: float = 0.100
    min_accuracy: float = 0.0

    def __post_init__(self) -> None:
        if self.objective not in ("accuracy", "latency"):
            raise DemandError(f"objective {self.objective!r} received, 'accuracy' or 'latency' expected")
        if not 0.1 <= self.fps <= 1000.0:
            raise DemandError(f"{self.fps:g} frames a second received, 0.1 to 1000 expected")
        if not 0.001 <= self.deadline_s <= 60.0:
            raise DemandError(f"a deadline of {self.deadline_s * 1e3:g} ms received, 1 to 60000 ms expected")
        if not 0.0 <= self.min_accuracy <= 1.0:
            raise DemandError(f"an accuracy of at least {self.min_accuracy:g} received, 0 to 1 expected")

    @property
    def period_s(self) -> float:
        """Time from one frame to the next."""
        return 1.0 / self.fps


class Demands(NamedTuple):
    """The demands of a batch as columns, shapes ``[B]``."""

    period_s: Floats
    deadline_s: Floats
    min_accuracy: Floats
    for_latency: Bools

    @classmethod
    def of(cls, *demands: Demand) -> Demands:
        """One lane a demand."""
        return cls(
            period_s=np.array([d.period_s for d in demands]),
            deadline_s=np.array([d.deadline_s for d in demands]),
            min_accuracy=np.array([d.min_accuracy for d in demands]),
            for_latency=np.array([d.objective == "latency" for d in demands]),
        )

    def take(self, lanes: Ints) -> Demands:
        """The demands of these lanes."""
        return Demands(*(column[lanes] for column in self))  # type: ignore[arg-type]

    def utility(self, accuracy: Floats, latency_s: Floats) -> Floats:
        """Worth of frames answered ``latency_s`` after they arrived; nothing once the deadline has passed.

        Expected accuracy, or the share of the deadline left over: both lie between 0 and 1. An answer below the floor
        is worth nothing either: else a controller that ignores the mask would be the fastest of all.
        """
        left = 1.0 - latency_s / self.deadline_s
        good = (left >= 0.0) & (accuracy >= self.min_accuracy)
        return np.where(good, np.where(self.for_latency, left, accuracy), 0.0)


SERVER, DEVICE, MISS = 0, 1, 2
"""Who answered a frame: every frame has exactly one of these."""


class Crossed(NamedTuple):
    """A frame's part on one hop, shapes ``[B]``.

    ``sent_bytes``: put on the link, probes too. ``uplink_s``: from ready to the last byte on the link. ``compute_s``:
    the server before the hop took so long to make the bytes ready; 0 on the first hop, where it is ``Outcome.head_s``.
    """

    sent_bytes: Floats
    uplink_s: Floats
    compute_s: Floats


class Outcome(NamedTuple):
    """The end of one frame a lane, shapes ``[B]``. A miss has accuracy 0 and the deadline as its latency.

    ``dropped``: the head was never begun, since it would have ended after the deadline. Every drop is a miss too.
    ``server_s``: wait at the machine behind the first hop, and decode and tail at the machine that answers.
    """

    answered_by: Ints
    dropped: Bools
    latency_s: Floats
    accuracy: Floats
    utility: Floats
    waited_s: Floats
    head_s: Floats
    server_s: Floats
    fell_back: Bools
    hops: tuple[Crossed, ...]


def flat_columns(outcome: Outcome) -> dict[str, NDArray[Any]]:
    """An outcome's columns by name, for logs. Those of a hop follow, from the second on as ``hop2_sent_bytes``."""
    columns = outcome._asdict()
    for number, hop in enumerate(columns.pop("hops"), start=1):
        columns |= {(name if number == 1 else f"hop{number}_{name}"): column for name, column in hop._asdict().items()}
    return columns


class Transfers(NamedTuple):
    """The last R messages sent by each lane, newest first, shapes ``[B, R]``, seconds on the lane's clock.

    Never sent: ``sent_s`` is minus infinity and ``answered_s`` too. What an answer tells (``uplink_s``: time its bytes
    took on the wire, ``rtt_s``, ``wait_s`` at the server) may be looked at only once ``answered_s`` has passed. What
    the device itself settled as it sent is known from then on: ``due_s``, at which it begins to finish the frame unless
    it is answered (infinite: never), the ``finish_s`` this takes, and the ``tail_s`` that the server needs.
    """

    sent_s: Floats
    answered_s: Floats
    payload: Floats
    uplink_s: Floats
    rtt_s: Floats
    wait_s: Floats
    due_s: Floats
    finish_s: Floats
    tail_s: Floats

    @classmethod
    def none(cls, lanes: int, window: int) -> Transfers:
        """Nothing was sent yet."""
        columns = np.zeros((len(cls._fields), window, lanes))  # a slot's lanes side by side: they are computed together
        columns[:2] = -np.inf
        return cls(*columns.transpose(0, 2, 1))

    def push(self, where: Bools, *newest: Floats) -> Transfers:
        """Add a message (one value ``[B]`` a field) in the lanes ``where``; the oldest is forgotten."""
        pushed, kept = np.empty((len(self), *self.payload.T.shape)), ~where
        for new, old, onto in zip(newest, self, pushed, strict=True):
            onto[0] = new
            onto[1:] = old.T[:-1]
            np.copyto(onto, old.T, where=kept)
        return Transfers(*pushed.transpose(0, 2, 1))
