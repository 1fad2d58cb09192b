"""The columns of an observation by name, and their order in its arrays."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from numpy.typing import NDArray

Column = NDArray[Any]


class HopSeen(NamedTuple):
    """What the device believes of one hop, columns ``[B]``: seconds, bytes, bytes a second. See `LinkBelief`.

    ``queue_s``: until the link has carried the messages on it.
    """

    goodput: Column
    goodput_last: Column
    goodput_low: Column
    goodput_age_s: Column
    goodput_spread: Column
    rtt_s: Column
    in_flight: Column
    in_flight_bytes: Column
    stalled_s: Column
    since_sent_s: Column
    queue_s: Column


class Seen(NamedTuple):
    """The state, columns ``[B]``: demand, device, server, and each hop. ``slow_down`` multiplies compute times."""

    waited_s: Column
    deadline_s: Column
    period_s: Column
    for_latency: Column
    server_wait_s: Column
    finish_pending_s: Column
    finish_due_s: Column
    slow_down: Column
    hops: tuple[HopSeen, ...]


class HopForeseen(NamedTuple):
    """What each point would put on a hop beyond the first, columns ``[B, A]``.

    ``ready_s``: from now until its bytes are ready for the hop. ``queue_s``: the link's queue at the next frame.
    """

    sends: Column
    payload: Column
    compute_s: Column
    ready_s: Column
    queue_s: Column


class Foreseen(NamedTuple):
    """What choosing each point would lead to if the links stayed as believed, columns ``[B, A]``.

    ``latency_s``: from the frame's arrival to the answer. ``slack_s``: deadline less latency. ``slack_low_s``: the same
    at the lowest goodput of late. ``device_queue_s``, ``link_queue_s``: left over at the next frame's arrival.
    ``finish_slack_s``: time to spare if the device finished the frame after the head.
    """

    local: Column
    accuracy: Column
    head_s: Column
    payload: Column
    server_s: Column
    finish_s: Column
    finish_accuracy: Column
    latency_s: Column
    slack_s: Column
    slack_low_s: Column
    device_queue_s: Column
    link_queue_s: Column
    finish_slack_s: Column
    is_last: Column
    further: tuple[HopForeseen, ...]


STATE_FIELDS = (
    "waited_s", "deadline_s", "period_s", "for_latency",
    "goodput", "goodput_last", "goodput_low", "goodput_age_s", "goodput_spread",
    "rtt_s", "server_wait_s", "in_flight", "in_flight_bytes", "stalled_s", "link_queue_s",
    "since_sent_s", "finish_pending_s", "finish_due_s", "slow_down",
)  # fmt: skip
"""Order of the state's columns with one hop. Each further hop adds the fields of `HopSeen` behind them."""
POINT_FIELDS = Foreseen._fields[:-1]
"""Order of the points' columns with one hop. Each further hop adds the fields of `HopForeseen` behind them."""
_OF_DEVICE = tuple(STATE_FIELDS.index(name) for name in Seen._fields[:-1])
_OF_UPLINK = tuple(STATE_FIELDS.index("link_queue_s" if name == "queue_s" else name) for name in HopSeen._fields)
_IN_ORDER = tuple((_OF_DEVICE + _OF_UPLINK).index(column) for column in range(len(STATE_FIELDS)))


class Fields(NamedTuple):
    """Names of an observation's columns."""

    state: tuple[str, ...]
    points: tuple[str, ...]

    def width(self, points: int) -> int:
        """Length of a flat observation of so many operating points."""
        return len(self.state) + len(self.points) * points


@cache
def fields_of(hops: int) -> Fields:
    """Names of the columns with so many hops; those of hop 2 begin with ``hop2_``."""
    state = tuple(f"hop{hop}_{name}" for hop in range(2, hops + 1) for name in HopSeen._fields)
    points = tuple(f"hop{hop}_{name}" for hop in range(2, hops + 1) for name in HopForeseen._fields)
    return Fields(STATE_FIELDS + state, POINT_FIELDS + points)


ONE_HOP = fields_of(1)


def seen(columns: NDArray[Any]) -> Seen:
    """Columns ``[S, B]`` by their names: views, not copies."""
    step = len(HopSeen._fields)
    further = (HopSeen(*columns[at : at + step]) for at in range(len(STATE_FIELDS), len(columns), step))
    first = HopSeen(*(columns[i] for i in _OF_UPLINK))
    return Seen._make([*(columns[i] for i in _OF_DEVICE), (first, *further)])


def laid_out(now: Seen) -> list[Column]:
    """The state's columns in their order: the inverse of `seen`."""
    first, *further = now.hops
    unordered = (*now[:-1], *first)
    return [unordered[i] for i in _IN_ORDER] + [column for hop in further for column in hop]


def foreseen(columns: NDArray[Any]) -> Foreseen:
    """Columns ``[F, ...]`` by their names: views, not copies."""
    step, own = len(HopForeseen._fields), len(POINT_FIELDS)
    further = (HopForeseen(*columns[at : at + step]) for at in range(own, len(columns), step))
    return Foreseen._make([*columns[:own], tuple(further)])


def hops_of(state_width: int) -> int:
    """Number of hops in a state of so many columns."""
    return 1 + (state_width - len(STATE_FIELDS)) // len(HopSeen._fields)
