"""The values that simulator and device exchange: demands, outcomes and transfers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Objective = Literal["accuracy", "latency"]
Utility = Callable[[Floats, Floats, Floats], Floats]
"""A user's own worth of answers in time, from accuracy, latency and deadline in seconds, ``[B]``, 0 to 1."""
Columns = TypeVar("Columns", bound=tuple[Any, ...])


def each(act: Callable[..., Any], *rows: Columns) -> Columns:
    """Apply ``act`` to every array of named tuples of one shape, through tuples within them such as the hops."""
    columns = [each(act, *at) if isinstance(at[0], tuple) else act(*at) for at in zip(*rows, strict=True)]
    made: Any = type(rows[0])
    return made(*columns) if hasattr(made, "_fields") else made(columns)  # type: ignore[no-any-return]


class DemandError(ValueError):
    """The user's demand has a value out of range. The message has the value received and the range expected."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """The user's demand.

    The objective "accuracy" asks for as many right answers as possible within the deadline, like CNNPC's ``--T0``. The
    objective "latency" asks for answers as fast as possible at or above the accuracy floor, like CNNPC's ``--A0``.

    Raises:
        DemandError: a value out of range.
    """

    objective: Objective = "accuracy"
    fps: float = 30.0  # frames a second
    deadline_s: float = 0.100  # seconds from a frame's arrival to its answer
    min_accuracy: float = 0.0  # floor, 0 to 1
    max_watts: float | None = None  # budget of energy: mean watts of device and radio over minutes. None: no budget
    max_gb_month: float | None = None  # budget of data: 1e9 bytes sent in 30 days at this rate. None: no budget

    def __post_init__(self) -> None:
        if self.objective not in ("accuracy", "latency"):
            raise DemandError(f"objective {self.objective!r} received, 'accuracy' or 'latency' expected")
        if not 0.1 <= self.fps <= 1000.0:
            raise DemandError(f"{self.fps:g} frames a second received, 0.1 to 1000 expected")
        if not 0.001 <= self.deadline_s <= 60.0:
            raise DemandError(f"a deadline of {self.deadline_s * 1e3:g} ms received, 1 to 60000 ms expected")
        if not 0.0 <= self.min_accuracy <= 1.0:
            raise DemandError(f"an accuracy of at least {self.min_accuracy:g} received, 0 to 1 expected")
        if self.max_watts is not None and not 0.0 < self.max_watts <= 1000.0:
            raise DemandError(f"at most {self.max_watts:g} watts received, a budget above 0 and up to 1000 expected")
        if self.max_gb_month is not None and not 0.0 < self.max_gb_month <= 1e6:
            raise DemandError(f"at most {self.max_gb_month:g} GB a month received, above 0 and up to 1e6 expected")

    @property
    def budgeted(self) -> bool:
        """True where there is a budget of energy or data."""
        return self.max_watts is not None or self.max_gb_month is not None

    @property
    def period_s(self) -> float:
        """Seconds from one frame to the next."""
        return 1.0 / self.fps

    def changed(
        self,
        fps: float | None,
        deadline_ms: float | None,
        min_accuracy: float | None,
        max_watts: float | None = None,
        max_gb_month: float | None = None,
    ) -> Demand:
        """The demand with these options of a command line. None leaves a value as it is, infinity lifts a budget.

        Raises:
            DemandError: a value makes no sense.
        """
        return replace(
            self,
            fps=self.fps if fps is None else fps,
            deadline_s=self.deadline_s if deadline_ms is None else deadline_ms / 1e3,
            min_accuracy=self.min_accuracy if min_accuracy is None else min_accuracy,
            max_watts=_budget(self.max_watts, max_watts),
            max_gb_month=_budget(self.max_gb_month, max_gb_month),
        )


def _budget(before: float | None, asked: float | None) -> float | None:
    return before if asked is None else None if asked == np.inf else asked


class Demands(NamedTuple):
    """One demand a lane, columns ``[B]``, seconds.

    Budgets act through prices, the utility that a joule and a byte cost at the moment. Without a budget they are 0.
    """

    period_s: Floats
    deadline_s: Floats
    min_accuracy: Floats
    for_latency: Bools
    joule_price: Floats
    byte_price: Floats

    @classmethod
    def of(cls, *demands: Demand) -> Demands:
        """Columns of these demands, one lane each."""
        return cls(
            period_s=np.array([d.period_s for d in demands]),
            deadline_s=np.array([d.deadline_s for d in demands]),
            min_accuracy=np.array([d.min_accuracy for d in demands]),
            for_latency=np.array([d.objective == "latency" for d in demands]),
            joule_price=np.zeros(len(demands)),
            byte_price=np.zeros(len(demands)),
        )

    def take(self, lanes: Ints) -> Demands:
        """The demands of these lanes."""
        return Demands(*(column[lanes] for column in self))  # type: ignore[arg-type]

    def utility(self, accuracy: Floats, latency_s: Floats, own: Utility | None = None) -> Floats:
        """Worth of frames answered ``latency_s`` after their arrival, ``[B]``, 0 to 1.

        It is the expected accuracy, or for the objective "latency" the share of the deadline that is left, or what
        ``own`` gives. An answer after the deadline or below the accuracy floor is worth 0. Otherwise a controller that
        ignores the floor would be the fastest.
        """
        left = 1.0 - latency_s / self.deadline_s
        good = (left >= 0.0) & (accuracy >= self.min_accuracy)
        usual = np.where(self.for_latency, left, accuracy)
        return np.where(good, usual if own is None else own(accuracy, latency_s, self.deadline_s), 0.0)

    def cost(self, joules: Floats, sent_bytes: Floats) -> Floats:
        """Utility that so many joules and bytes cost, ``[B]``."""
        return self.joule_price * joules + self.byte_price * sent_bytes


MONTH_S = 30 * 86_400.0


def gb_per_month(bytes_a_frame: float, period_s: float) -> float:
    """Data of 30 days without a pause, 1e9 bytes."""
    return bytes_a_frame / period_s * MONTH_S / 1e9


def byte_rate_of(gb_month: float) -> float:
    """Bytes a second at which 30 days make so many GB."""
    return gb_month * 1e9 / MONTH_S


SERVER, DEVICE, MISS = 0, 1, 2
"""Who answered a frame. Every frame has exactly one of these values."""


class Crossed(NamedTuple):
    """A frame's traffic on one hop, shapes ``[B]``."""

    sent_bytes: Floats  # also those of a probe
    uplink_s: Floats  # time from ready until the last byte of the frame's own message has left
    compute_s: Floats  # time of the server before the hop to make the bytes ready; 0 on the first hop


class Run(NamedTuple):
    """The worker's run for a frame, shapes ``[B]``, seconds."""

    handed_s: Floats  # moment at which it is given to the worker; infinity: never
    settled_s: Floats  # moment at which it begins, or at which the answer makes it needless
    end_s: Floats  # its end without the finishes that interrupt it; minus infinity where it does not begin
    takes_s: Floats  # its duration as the device believes it
    slow_down: Floats  # factor that the device measures at its end; 0 where the head has shown it before, or none


class Outcome(NamedTuple):
    """The outcome of one frame a lane, shapes ``[B]``, seconds."""

    answered_by: Ints  # SERVER, DEVICE or MISS
    dropped: Bools  # True where the head was not begun because it would have ended too late; every drop is a miss
    latency_s: Floats  # time from arrival to answer; of a miss the deadline
    accuracy: Floats  # expected accuracy of the answer; of a miss 0
    utility: Floats  # see `Demands.utility`
    cost: Floats  # utility that its bytes, and the energy drawn above idle in this frame period, cost
    waited_s: Floats  # time from arrival until the frame's turn
    head_s: Floats  # time of the head, with the fallbacks that interrupted it
    server_s: Floats  # wait at the first server, and decode and tail at the server that answers
    fell_back: Bools  # True where the device began to finish a frame that it sent
    slow_down: Floats  # factor that the frame's compute times met; 0 where no CNN ran on the device
    heat_c: Floats  # temperature of the processor at the decision
    device_j: Floats  # energy of the device until the next frame, idle time included
    radio_j: Floats  # energy of the radio for the frame's messages, see `Radio.joules`
    run: Run
    hops: tuple[Crossed, ...]


def flat_columns(outcome: Outcome) -> dict[str, NDArray[Any]]:
    """An outcome's columns by name, for logs. Those of the second hop begin with ``hop2_``."""
    columns = outcome._asdict()
    del columns["run"]
    for number, hop in enumerate(columns.pop("hops"), start=1):
        columns |= {(name if number == 1 else f"hop{number}_{name}"): column for name, column in hop._asdict().items()}
    return columns


class Transfers(NamedTuple):
    """The last R messages of each lane on one hop, newest first, shapes ``[B, R]``, seconds and bytes.

    A slot that was never used has minus infinity as ``sent_s`` and ``answered_s``. The device learns ``uplink_s``,
    ``rtt_s`` and ``wait_s`` from the answer, so they count only after ``answered_s``; until then they are finite. It
    decides ``due_s``, ``finish_s`` and ``tail_s`` itself when it sends.
    """

    sent_s: Floats  # moment at which the message was ready for the link
    answered_s: Floats  # moment of its answer; infinity if there is none
    payload: Floats  # bytes with overhead
    uplink_s: Floats  # time of the bytes on the link
    rtt_s: Floats
    wait_s: Floats  # wait at the server
    due_s: Floats  # moment at which the device begins to finish the frame; infinity if it never does
    finish_s: Floats  # time that finishing takes
    tail_s: Floats  # time of the server's decode and tail

    @classmethod
    def none(cls, lanes: int, window: int) -> Transfers:
        """No message in any slot."""
        columns = np.zeros((len(cls._fields), window, lanes))  # the lanes of a slot are neighbours, for speed
        columns[:2] = -np.inf
        return cls(*columns.transpose(0, 2, 1))

    def push(self, where: Bools, *newest: Floats) -> Transfers:
        """Return the transfers with a new message in the lanes ``where``, one value ``[B]`` for each field.

        In these lanes the oldest message is forgotten.
        """
        columns = (
            np.where(where, np.concatenate((new[None], old.T[:-1])), old.T).T
            for new, old in zip(newest, self, strict=True)
        )
        return Transfers(*columns)
