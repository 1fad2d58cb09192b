"""The observation: what a controller sees when a frame's turn comes, and what each point would lead to.

The simulator and the device both build it here, so a policy sees on the device exactly what it saw in training.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.belief import UNKNOWN_AGE_S, LinkBelief, believe, with_finishes_of
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Bools, Demands, Floats, Ints, Transfers
from tidesplit.profiling.points.table import PointTable

Column = NDArray[Any]


class Situation(NamedTuple):
    """All that the device knows when a frame's turn comes, shapes ``[B]``.

    ``transfers``: the last messages on each hop. ``blocked``: True where the device's breaker lets nothing be sent.
    """

    now_s: Floats
    waited_s: Floats
    transfers: tuple[Transfers, ...]
    slow_down: Floats
    last_point: Ints
    blocked: Bools | None = None


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


class Fields(NamedTuple):
    """Names of an observation's columns."""

    state: tuple[str, ...]
    points: tuple[str, ...]

    def width(self, points: int) -> int:
        """Length of a flat observation of so many operating points."""
        return len(self.state) + len(self.points) * points


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


def _laid_out(told: Seen) -> list[Column]:
    """The state's columns in their order: the inverse of `seen`."""
    first, *further = told.hops
    at = dict(zip(_OF_DEVICE + _OF_UPLINK, (*told[:-1], *first), strict=True))
    return [at[i] for i in range(len(at))] + [column for hop in further for column in hop]


def foreseen(columns: NDArray[Any]) -> Foreseen:
    """Columns ``[F, ...]`` by their names: views, not copies."""
    step, own = len(HopForeseen._fields), len(POINT_FIELDS)
    further = (HopForeseen(*columns[at : at + step]) for at in range(own, len(columns), step))
    return Foreseen._make([*columns[:own], tuple(further)])


Number = TypeVar("Number", np.float32, np.float64, np.bool_)
CACHE_LINE = 16  # float32 values; rows of a power-of-two length would fall into the same few sets of the cache


class Observation(NamedTuple):
    """SI values: ``state`` ``[B, S]`` and ``points`` ``[B, F, A]`` in the order of `fields_of`, ``mask`` ``[B, A]``."""

    state: NDArray[np.float32]
    points: NDArray[np.float32]
    mask: Bools

    @property
    def seen(self) -> Seen:
        """The state by name, columns ``[B]``."""
        return seen(self.state.T)

    @property
    def foreseen(self) -> Foreseen:
        """The points by name, columns ``[B, A]``."""
        return foreseen(self.points.swapaxes(0, 1))

    @property
    def hops(self) -> int:
        """Number of hops: 1 between device and server, 2 with a middle server."""
        return hops_of(self.state.shape[1])

    def take(self, lanes: Ints) -> Observation:
        """The observation of these lanes."""
        return Observation(self.state[lanes], self.points[lanes], self.mask[lanes])

    def flat(self) -> NDArray[np.float32]:
        """One row a lane, ``[B, S + F * A]``: what Gymnasium and SB3 carry."""
        lanes, fields, points = self.points.shape
        width = self.state.shape[1]
        rows = np.empty((lanes, width + fields * points), dtype=np.float32)
        rows[:, :width] = self.state
        rows[:, width:].reshape(lanes, fields, points)[:] = self.points
        return rows


class Controller(Protocol):
    """Chooses one operating point a lane. All that a controller may know of the past is in the observation."""

    @property
    def name(self) -> str:
        """Its name in tables."""
        ...

    def predict(self, observation: Observation) -> Ints:
        """Row of the chosen point, ``[B]``, within the observation's mask."""
        ...


def hops_of(state_width: int) -> int:
    """Number of hops in a state of so many columns."""
    return 1 + (state_width - len(STATE_FIELDS)) // len(HopSeen._fields)


def unflatten(flat: NDArray[np.float32], mask: Bools) -> Observation:
    """The observation in flat rows ``[B, S + F * A]`` beside their masks ``[B, A]``."""
    lanes, points = mask.shape
    fields = next(fields for fields in map(fields_of, (1, 2, 3)) if fields.width(points) == flat.shape[1])
    split = len(fields.state)
    return Observation(flat[:, :split], flat[:, split:].reshape(lanes, len(fields.points), points), mask)


def observe(situation: Situation, table: PointTable, demands: Demands, world: World) -> Observation:
    """Build the observation: the situation, the demand, and for each point what choosing it would lead to.

    ``table`` columns may be ``[A]`` for all lanes or ``[B, A]``.
    """
    links = [believe(t, situation.now_s, world.usual_rtt_s(hop)) for hop, t in enumerate(situation.transfers)]
    first = links[0]
    for further in links[1:]:
        first = with_finishes_of(first, further)
    told = Seen(
        waited_s=situation.waited_s,
        deadline_s=demands.deadline_s,
        period_s=demands.period_s,
        for_latency=demands.for_latency,
        server_wait_s=first.server_wait_s,
        finish_pending_s=first.finish_pending_s,
        finish_due_s=first.finish_due_s,
        slow_down=situation.slow_down,
        hops=tuple(_hop_seen(link, situation.now_s) for link in links),
    )
    state = np.array(_laid_out(told), dtype=np.float32)
    points = _foresee(seen(state), table, situation.last_point, world)
    return Observation(state.T, points.transpose(2, 0, 1), allowed(situation, table, demands))


def _hop_seen(link: LinkBelief, now_s: Floats) -> HopSeen:
    return HopSeen(
        goodput=link.goodput,
        goodput_last=link.goodput_last,
        goodput_low=link.goodput_low,
        goodput_age_s=link.goodput_age_s,
        goodput_spread=link.goodput_spread,
        rtt_s=link.rtt_s,
        in_flight=link.in_flight,
        in_flight_bytes=link.in_flight_bytes,
        stalled_s=link.stalled_s,
        since_sent_s=np.maximum(link.since_sent_s, 0.0),  # a message may still be on its way to a further hop
        queue_s=np.clip(link.free_s - now_s, 0.0, UNKNOWN_AGE_S),
    )


def _foresee(now: Seen, table: PointTable, last_point: Ints, world: World) -> NDArray[np.float32]:
    """What each point would lead to if the links stayed as believed, ``[F, A, B]``; columns of ``now`` are ``[B]``.

    This is the hot loop: float32, and lanes side by side in memory.
    """
    names, size, lanes = fields_of(len(table.hops)).points, table.size, len(now.waited_s)
    columns = np.empty((len(names), size, lanes + CACHE_LINE), dtype=np.float32)[:, :, :lanes]
    out = foreseen(columns)
    uplink, link = table.hops[0], now.hops[0]
    out.local[:] = local = _single(~uplink.sends)
    crosses = 1.0 - local
    out.accuracy[:] = accuracy = _single(table.accuracy)
    out.is_last[:] = np.arange(size)[:, None] == last_point
    out.payload[:] = payload = (_single(uplink.bytes_mean) + np.float32(world.overhead_bytes)) * crosses
    out.server_s[:] = server_s = _single(table.server_s)
    out.finish_accuracy[:] = np.where(local, accuracy, _single(table.finish_accuracy))
    head = np.multiply(_single(table.head_s), now.slow_down, out=out.head_s)
    head += now.finish_pending_s * (now.finish_due_s < head)
    finish = np.multiply(np.minimum(_single(table.finish_s), UNKNOWN_AGE_S) * crosses, now.slow_down, out=out.finish_s)
    leaves = np.maximum(head, link.queue_s * crosses)
    leaves += payload * (1.0 / link.goodput)
    away = (link.rtt_s + now.server_wait_s + server_s) * crosses
    away += leaves
    later = payload * (1.0 / link.goodput_low - 1.0 / link.goodput)
    later += link.stalled_s * crosses
    _foresee_further(out, now, table, world, leaves, away, later)
    away += now.waited_s
    latency = np.minimum(away, UNKNOWN_AGE_S, out=out.latency_s)
    slack = np.subtract(now.deadline_s, latency, out=out.slack_s)
    np.maximum(slack - later, -UNKNOWN_AGE_S, out=out.slack_low_s)
    np.maximum(head + (now.waited_s - now.period_s), 0.0, out=out.device_queue_s)
    taken = np.where(local, link.queue_s, leaves)
    taken -= now.period_s
    np.clip(taken, 0.0, UNKNOWN_AGE_S, out=out.link_queue_s)
    head_and_finish = head + finish
    np.subtract(now.deadline_s - np.float32(world.guard_s) - now.waited_s, head_and_finish, out=out.finish_slack_s)
    return columns


def _foresee_further(
    out: Foreseen,
    now: Seen,
    table: PointTable,
    world: World,
    leaves: Column,
    away: Column,
    later: Column,
) -> None:
    """Add the hops beyond the first to the answer's time ``away`` and to its time at the lowest goodput, ``later``.

    ``leaves``: when the point's bytes have left the device, from now on. All are ``[A, B]``.
    """
    wait_s, before = now.server_wait_s, now.hops[0]
    for hop, link, ahead in zip(table.hops[1:], now.hops[1:], out.further, strict=True):
        relays, payload = _points_first(hop.relays), ahead.payload
        ahead.sends[:] = sends = _points_first(hop.sends).astype(np.float32)
        ahead.compute_s[:] = compute_s = _single(hop.compute_s)
        payload[:] = (_single(hop.bytes_mean) + np.float32(world.overhead_bytes)) * sends
        takes = payload * (1.0 / link.goodput)
        arrives = leaves + (0.5 * before.rtt_s + wait_s * ~relays)
        np.minimum((arrives + compute_s) * sends, UNKNOWN_AGE_S, out=ahead.ready_s)
        through = np.maximum(compute_s, link.queue_s - arrives) + takes
        leaves = arrives + through
        taken = np.where(sends > 0.0, leaves, link.queue_s) - now.period_s
        np.clip(taken, 0.0, UNKNOWN_AGE_S, out=ahead.queue_s)
        through += link.rtt_s
        through -= wait_s * relays
        away += through * sends
        later += payload * (1.0 / link.goodput_low - 1.0 / link.goodput) + link.stalled_s * sends
        before, wait_s = link, np.zeros_like(wait_s)


def _single(column: NDArray[Any]) -> NDArray[np.float32]:
    """A column of the table in single precision, points first."""
    return _points_first(column.astype(np.float32))


def _points_first(column: NDArray[Number]) -> NDArray[Number]:
    """A column ``[A]`` or ``[B, A]`` of the table as ``[A, 1]`` or ``[A, B]``."""
    return column.T if column.ndim == 2 else column[:, None]


def allowed(situation: Situation, table: PointTable, demands: Demands) -> Bools:
    """Mask ``[B, A]``: at or above the accuracy floor, and nothing more over a link with a full window unanswered.

    Where the floor and the full window leave nothing (every point above the floor crosses the link), the floor stands:
    the frame is sent nevertheless, since the user does not want a less accurate answer.
    """
    accurate = np.asarray(_points_first(table.accuracy) >= demands.min_accuracy)  # [A, B]
    mask = accurate
    for hop, transfers in zip(table.hops, situation.transfers, strict=True):
        full = np.greater(transfers.answered_s.T, situation.now_s).all(axis=0)
        if hop is table.hops[0] and situation.blocked is not None:
            full |= situation.blocked
        mask = mask & ~(_points_first(hop.sends) & full)
    return np.where(mask.any(axis=0), mask, accurate).T
