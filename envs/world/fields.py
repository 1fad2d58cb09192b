"""The columns of an observation: their names, their types, and their order in the arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from numpy.typing import NDArray

Column = NDArray[Any]
NEEDS_KEY = 64.0
"""Stands for the age of a reference that a stream does not have. Older references than 63 frames count as 63."""


class HopSeen(NamedTuple):
    """Belief about one hop, columns ``[B]``. Goodput is a message's bytes over its uplink time, in bytes a second."""

    goodput: Column  # mean of the remembered messages
    goodput_last: Column  # of the newest answered message
    goodput_low: Column  # of the slowest message
    goodput_age_s: Column  # age of the newest answer
    goodput_spread: Column  # standard deviation of the seconds a byte, relative to their mean
    rtt_s: Column  # mean round trip
    in_flight: Column  # number of unanswered messages
    in_flight_bytes: Column  # their bytes
    stalled_s: Column  # time by which the answer to the oldest of them is overdue
    since_sent_s: Column  # time since the last sending
    queue_s: Column  # time until the link has carried the messages in flight


class Seen(NamedTuple):
    """The state, columns ``[B]``, seconds."""

    waited_s: Column  # time from the frame's arrival until its turn
    deadline_s: Column  # of the demand
    period_s: Column  # of the demand
    for_latency: Column  # 1 for the objective "latency", else 0
    joule_price: Column  # utility that a joule costs; 0 without a budget
    byte_price: Column  # utility that a byte costs; 0 without a budget
    server_wait_s: Column  # believed wait at the first server
    finish_pending_s: Column  # work of the fallbacks for messages on all hops
    finish_due_s: Column  # time until the first of them
    slow_down: Column  # factor on the device's compute times, as last measured
    worker_s: Column  # time until the worker has done the runs that it was given
    heat_c: Column  # temperature of the processor
    awake_s: Column  # time for which the radio stays awake without another message; 0 where it sleeps
    hops: tuple[HopSeen, ...]


class HopForeseen(NamedTuple):
    """Forecast of each point's traffic on a hop beyond the first, columns ``[B, A]``; seconds and bytes."""

    sends: Column  # 1 where the point's bytes cross the hop, else 0
    payload: Column  # bytes with overhead
    compute_s: Column  # time of the server before the hop to make the bytes ready
    ready_s: Column  # time from now until the bytes are ready for the hop
    queue_s: Column  # time that the link will still be busy when the next frame arrives


class Foreseen(NamedTuple):
    """Forecast of each point if the links stayed as believed, columns ``[B, A]``; seconds and bytes."""

    local: Column  # 1 where nothing leaves the device, else 0
    accuracy: Column  # expected accuracy of the point
    head_s: Column  # time of head and encode on this device, with the fallbacks that would interrupt them
    payload: Column  # bytes on the first hop with overhead
    server_s: Column  # decode and tail at the server that answers
    finish_s: Column  # time of the fallback
    finish_accuracy: Column  # its accuracy
    latency_s: Column  # time from the frame's arrival to the answer
    slack_s: Column  # deadline less latency
    slack_low_s: Column  # the same at the lowest remembered goodput, after the present stall
    device_queue_s: Column  # time that the device will still be busy when the next frame arrives
    link_queue_s: Column  # the same of the first hop's link
    finish_slack_s: Column  # time to spare if the device finished the frame right after the head
    is_last: Column  # 1 for the point of the previous frame, else 0
    races: Column  # 1 where the device works while the bytes are away, else 0
    joules: Column  # energy that the point adds to that of an idle device with the radio as it is
    cost: Column  # utility that its energy and bytes cost a frame if all frames used the point
    reference_age: Column  # frames since the stream's reference; NEEDS_KEY without one, 0 where there is no stream
    steady_payload: Column  # payload if the frame before were the reference
    further: tuple[HopForeseen, ...]


STATE_FIELDS = (
    "waited_s", "deadline_s", "period_s", "for_latency",
    "goodput", "goodput_last", "goodput_low", "goodput_age_s", "goodput_spread",
    "rtt_s", "server_wait_s", "in_flight", "in_flight_bytes", "stalled_s", "link_queue_s",
    "since_sent_s", "finish_pending_s", "finish_due_s", "slow_down", "worker_s", "heat_c", "awake_s",
    "joule_price", "byte_price",
)  # fmt: skip
"""Order of the state's columns with one hop. Each further hop appends the fields of `HopSeen`."""
POINT_FIELDS = Foreseen._fields[:-1]
"""Order of the points' columns with one hop. Each further hop appends the fields of `HopForeseen`."""
_OF_DEVICE = tuple(STATE_FIELDS.index(name) for name in Seen._fields[:-1])
_OF_UPLINK = tuple(STATE_FIELDS.index("link_queue_s" if name == "queue_s" else name) for name in HopSeen._fields)
_IN_ORDER = tuple((_OF_DEVICE + _OF_UPLINK).index(column) for column in range(len(STATE_FIELDS)))


class Fields(NamedTuple):
    """Names of an observation's columns: S of the state, F of the points."""

    state: tuple[str, ...]
    points: tuple[str, ...]

    def width(self, points: int) -> int:
        """Length S + F * A of a flat observation of A ``points``."""
        return len(self.state) + len(self.points) * points


@cache
def fields_of(hops: int) -> Fields:
    """Names of the columns with this number of hops. Those of the second hop begin with ``hop2_``."""
    state = tuple(f"hop{hop}_{name}" for hop in range(2, hops + 1) for name in HopSeen._fields)
    points = tuple(f"hop{hop}_{name}" for hop in range(2, hops + 1) for name in HopForeseen._fields)
    return Fields(STATE_FIELDS + state, POINT_FIELDS + points)


ONE_HOP = fields_of(1)


def seen(columns: NDArray[Any] | Sequence[Column]) -> Seen:
    """The state's columns ``[S, B]`` by name. They are views, not copies."""
    step = len(HopSeen._fields)
    further = (HopSeen(*columns[at : at + step]) for at in range(len(STATE_FIELDS), len(columns), step))
    first = HopSeen(*(columns[i] for i in _OF_UPLINK))
    return Seen._make([*(columns[i] for i in _OF_DEVICE), (first, *further)])


def laid_out(now: Seen) -> list[Column]:
    """The S columns of a state in their order. This is the inverse of `seen`."""
    first, *further = now.hops
    unordered = (*now[:-1], *first)
    return [unordered[i] for i in _IN_ORDER] + [column for hop in further for column in hop]


def foreseen(columns: NDArray[Any]) -> Foreseen:
    """The points' columns ``[F, ...]`` by name. They are views, not copies."""
    step, own = len(HopForeseen._fields), len(POINT_FIELDS)
    further = (HopForeseen(*columns[at : at + step]) for at in range(own, len(columns), step))
    return Foreseen._make([*columns[:own], tuple(further)])


def hops_of(state_width: int) -> int:
    """Number of hops of an observation whose state has ``state_width`` columns."""
    return 1 + (state_width - len(STATE_FIELDS)) // len(HopSeen._fields)


def hops_of_flat(width: int, points: int) -> int:
    """Number of hops of a flat observation of length ``width`` with so many operating points."""
    return 1 + (width - ONE_HOP.width(points)) // (len(HopSeen._fields) + len(HopForeseen._fields) * points)
