"""The frame pipeline as pure functions over a batch: device queue, hops, server, fallback, drop and probe.

Frame k arrives at k / fps. The device is serial and takes frames in order. Each link is serial and drains bytes in
order. Shapes are ``[B]`` throughout, one lane a frame in progress; seconds on the lane's own clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.hop import Crossing, HopQueue, Load, RoundTrip, cross
from tidesplit.envs.world.link import Uplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import DEVICE, MISS, SERVER, Bools, Crossed, Demands, Floats, Ints, Outcome, each
from tidesplit.profiling.points.table import HopColumns, PointTable

Value = TypeVar("Value", np.float64, np.int64, np.bool_)


class Queues(NamedTuple):
    """Times until which the device and every link are taken.

    From ``finish_from_s`` to ``finish_until_s`` the device finishes frames whose answer did not come. Finishes go
    before new frames. Finishes that wait for each other are kept as one stretch.
    """

    device_free_s: Floats
    finish_from_s: Floats
    finish_until_s: Floats
    hops: tuple[HopQueue, ...]

    @classmethod
    def idle(cls, lanes: int, hops: int = 1) -> Queues:
        """Nothing under way, nothing ever sent."""
        links = tuple(HopQueue(np.zeros(lanes), np.full(lanes, -np.inf)) for _ in range(hops))
        return cls(np.zeros(lanes), np.zeros(lanes), np.zeros(lanes), links)

    def take(self, lanes: Ints) -> Queues:
        """The queues of these lanes."""
        return each(lambda column: column[lanes], self)


class Frame(NamedTuple):
    """One frame a lane: its arrival, and the random numbers that were drawn for it."""

    arrival_s: Floats
    slow_down: Floats
    server_wait_s: Floats
    byte_noise: Floats
    hops: tuple[RoundTrip, ...]


def turn_s(queues: Queues, arrival_s: Floats) -> Floats:
    """Moment at which a frame's turn comes: it has arrived, the device is free and finishes nothing."""
    start = np.maximum(arrival_s, queues.device_free_s)
    finishing = (queues.finish_from_s <= start) & (start < queues.finish_until_s)
    return np.where(finishing, queues.finish_until_s, start)


def advance(
    queues: Queues,
    points: Ints,
    frame: Frame,
    *,
    table: PointTable,
    demands: Demands,
    world: World,
    uplinks: tuple[Uplink, ...],
    lane: Ints,
    slow_belief: Floats | None = None,
    expected_s: Floats | None = None,
) -> tuple[Queues, Outcome, tuple[Crossing, ...]]:
    """Send one frame a lane through the pipeline, each by its operating point.

    Args:
        queues: state before the frame.
        points: rows of ``table``, shape ``[B]``.
        frame: arrival and random numbers of each lane's frame.
        table: operating points, columns ``[A]``, or ``[B, A]`` of which row ``lane`` is used.
        demands: of each lane.
        world: physical numbers.
        uplinks: the link of each hop.
        lane: whose links and table each row uses, shape ``[B]``.
        slow_belief: slow-down that the device believes in as it plans the fallback. None: the true one.
        expected_s: latency that the device expects of the point. None: the true one.

    Returns:
        The queues afterwards, the outcome, and what each hop carried. A frame's answer is in the books of the last hop
        that it crossed; earlier hops have receipts.
    """
    at = Picker(points, lane)
    start = turn_s(queues, frame.arrival_s)
    waited = start - frame.arrival_s
    slow = frame.slow_down if slow_belief is None else slow_belief
    head_s = at(table.head_s)
    dropped = hopeless(waited, head_s * slow, demands)
    head_end = np.where(dropped, queues.device_free_s, _work(start, head_s * frame.slow_down, queues))
    offloads = at(table.hops[0].sends) & ~dropped
    wait_s = frame.server_wait_s
    for hop in table.hops[1:2]:  # a machine that only passes a message on does so without waiting for its processor
        wait_s = wait_s * ~at(hop.relays)
    load = _load(offloads, ~offloads, at, table.hops[0], queues.hops[0], start, frame, world)
    sent_s = np.where(offloads, head_end, start)
    first = cross(load, sent_s, queues.hops[0], frame.hops[0], world, uplinks[0], lane)
    crossings = (first, *_cross_further(first, queues, start, wait_s, at, table, frame, world, uplinks, lane))
    tail_s = at(table.server_s)
    server_s = np.where(offloads, tail_s + wait_s, 0.0)
    answered = crossings[0].answered_s + server_s
    for crossing in crossings[1:]:
        answered = answered + crossing.detour_s

    finish_s, finish_accuracy = at(table.finish_s), at(table.finish_accuracy)
    can = offloads & (finish_accuracy >= demands.min_accuracy) & np.isfinite(finish_s)
    foreseen = answered if expected_s is None else frame.arrival_s + expected_s
    due = fallback_due_s(frame.arrival_s, head_end, finish_s * slow, foreseen, can, demands, world.guard_s)
    falls = answered > due
    begin = np.where(falls, np.maximum(due, queues.finish_until_s), 0.0)
    finished = np.where(falls, begin + np.where(falls, finish_s, 0.0) * frame.slow_down, np.inf)
    pending = np.maximum(queues.finish_until_s - np.maximum(queues.finish_from_s, head_end), 0.0)

    by_server = offloads & (answered <= finished)
    done = np.where(offloads, np.minimum(answered, finished), head_end)
    latency = np.where(dropped, np.inf, done - frame.arrival_s)
    in_time = latency <= demands.deadline_s
    accuracy = np.where(in_time, np.where(offloads & ~by_server, finish_accuracy, at(table.accuracy)), 0.0)
    capped = np.minimum(latency, demands.deadline_s)
    outcome = Outcome(
        answered_by=np.where(in_time, np.where(by_server, SERVER, DEVICE), MISS),
        dropped=dropped,
        latency_s=capped,
        accuracy=accuracy,
        utility=np.where(in_time, demands.utility(accuracy, capped), 0.0),
        waited_s=waited,
        head_s=np.where(dropped, 0.0, head_end - start),
        server_s=server_s,
        fell_back=falls,
        hops=tuple(
            Crossed(np.where(c.sent, c.payload, 0.0), np.where(c.own, c.uplink_s, 0.0), c.compute_s) for c in crossings
        ),
    )
    later = Queues(
        device_free_s=head_end,
        finish_from_s=np.where(falls, begin - pending, queues.finish_from_s),
        finish_until_s=np.where(falls, finished, queues.finish_until_s),
        hops=tuple(_after(queue, c, crossings[0].ready_s) for queue, c in zip(queues.hops, crossings, strict=True)),
    )
    tail_s = np.where(offloads, tail_s, 0.0)
    return later, outcome, _books(crossings, answered, due, finish_s * slow, tail_s)


def hopeless(waited_s: Floats, head_s: Floats, demands: Demands) -> Bools:
    """Whether a point can no longer bring a frame off the device in time: it is dropped, or it would delay the next."""
    return waited_s + head_s > demands.deadline_s


def fallback_due_s(
    arrival_s: Floats,
    head_end_s: Floats,
    finish_s: Floats,
    foreseen_s: Floats,
    can: Bools,
    demands: Demands,
    guard_s: float,
) -> Floats:
    """Moment at which the device begins to finish a frame whose answer is not there; infinite where it does not.

    That is the last one that still makes the deadline (or, when it is latency that counts, after waiting as long as the
    finish itself would take: never twice too slow). But where by what was believed the answer, ``foreseen_s``, is just
    about to come then, it is waited for: finishing for nothing would delay later frames. ``can``: there is a fallback,
    and it is accurate enough.
    """
    latest = arrival_s + demands.deadline_s - guard_s - finish_s
    patient = np.where(demands.for_latency, np.minimum(latest, head_end_s + finish_s), latest)
    imminent = (foreseen_s > patient) & (foreseen_s <= arrival_s + demands.deadline_s) & ~demands.for_latency
    return np.where(can & (head_end_s <= patient) & ~imminent, patient, np.inf)


class Picker:
    """Picks the chosen points' values out of a column of the table, one a lane."""

    def __init__(self, points: Ints, lane: Ints) -> None:
        self._points, self._lane = points, lane

    def __call__(self, column: NDArray[Value]) -> NDArray[Value]:
        """Values ``[B]`` of a column ``[A]``, or ``[B, A]``."""
        return column[self._points] if column.ndim == 1 else column[self._lane, self._points]


def _work(start_s: Floats, duration_s: Floats, queues: Queues) -> Floats:
    """End of work begun at ``start_s``; a finish that falls due meanwhile goes first."""
    end = start_s + duration_s
    interrupted = (queues.finish_from_s < end) & (queues.finish_until_s > start_s)
    return end + np.where(interrupted, queues.finish_until_s - np.maximum(queues.finish_from_s, start_s), 0.0)


def _load(
    own: Bools,
    may_probe: Bools,
    at: Picker,
    hop: HopColumns,
    queue: HopQueue,
    start_s: Floats,
    frame: Frame,
    world: World,
) -> Load:
    """The frame's own message on a hop, or a probe after a long silence where the link is idle."""
    silent = start_s - queue.last_sent_s >= world.probe_after_s
    probes = may_probe & silent & (queue.free_s <= start_s)
    return Load(own, probes, at(hop.bytes_mean) * np.exp(at(hop.bytes_sigma) * frame.byte_noise))


def _cross_further(
    first: Crossing,
    queues: Queues,
    start_s: Floats,
    wait_s: Floats,
    at: Picker,
    table: PointTable,
    frame: Frame,
    world: World,
    uplinks: tuple[Uplink, ...],
    lane: Ints,
) -> Iterator[Crossing]:
    """Carry messages over the hops beyond the first.

    The device asks for the probe of a hop with a message that does not cross it. What the machine there learns reaches
    the device at once.
    """
    before, way_s = first, np.zeros_like(start_s)
    for k, hop in enumerate(table.hops[1:], start=1):
        half_s = 0.5 * frame.hops[k - 1].rtt_s
        here_s, way_s = before.answered_s - way_s - half_s + np.where(first.own, wait_s, 0.0), way_s + half_s
        own = before.own & at(hop.sends)
        load = _load(own, before.sent & ~own, at, hop, queues.hops[k], start_s, frame, world)
        compute_s = np.where(own, at(hop.compute_s), 0.0)
        crossing = cross(load, here_s + compute_s, queues.hops[k], frame.hops[k], world, uplinks[k], lane)
        before = crossing._replace(
            compute_s=compute_s,
            detour_s=np.where(own, crossing.answered_s - here_s, 0.0),
            answered_s=crossing.answered_s + way_s,
        )
        yield before
        wait_s = np.zeros_like(wait_s)


def _after(queue: HopQueue, crossing: Crossing, sent_s: Floats) -> HopQueue:
    """The link's queue behind a message, which left the device at ``sent_s``."""
    return HopQueue(
        np.where(crossing.sent, crossing.left_s, queue.free_s), np.where(crossing.sent, sent_s, queue.last_sent_s)
    )


def _books(
    crossings: tuple[Crossing, ...], answered_s: Floats, due_s: Floats, finish_s: Floats, tail_s: Floats
) -> tuple[Crossing, ...]:
    """Write each hop's own part of the answer: the last hop crossed has it all, the hops before it have receipts."""
    books: list[Crossing] = []
    beyond: Bools | bool = False
    for crossing in reversed(crossings):
        ends = crossing.own & ~np.asarray(beyond)
        told = crossing._replace(
            answered_s=np.where(crossing.own, answered_s, crossing.answered_s),
            due_s=np.where(ends, due_s, np.inf),
            finish_s=np.where(ends, finish_s, 0.0),
            tail_s=np.where(ends, tail_s, 0.0),
        )
        books.append(told)
        if len(books) < len(crossings):
            beyond = crossing.own
            answered_s = answered_s - np.where(beyond, crossing.detour_s + told.tail_s, 0.0)
    return tuple(reversed(books))
