"""The frame pipeline as pure functions over a batch: device queue, hops, server, fallback, drop and probe.

Frame k arrives at k / fps. The device is serial and takes frames in order. Each link is serial and carries messages in
order. Shapes are ``[B]`` throughout, one lane a frame in progress, in seconds on the lane's own clock.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.chain import Picker, Turn, booked
from tidesplit.envs.world.hop import Crossing, HopQueue, RoundTrip
from tidesplit.envs.world.link import Uplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import DEVICE, MISS, SERVER, Bools, Crossed, Demands, Floats, Ints, Outcome, each
from tidesplit.profiling.points.table import PointTable


class Queues(NamedTuple):
    """State of the device and of every link between two frames.

    The device runs heads until ``device_free_s``. From ``finish_from_s`` to ``finish_until_s`` it finishes frames whose
    answer did not come. Finishes go before new frames, and those that wait for each other count as one stretch.
    """

    device_free_s: Floats
    finish_from_s: Floats
    finish_until_s: Floats
    hops: tuple[HopQueue, ...]

    @classmethod
    def idle(cls, lanes: int, hops: int = 1) -> Queues:
        """Idle device and idle links over which nothing was ever sent."""
        links = tuple(HopQueue(np.zeros(lanes), np.full(lanes, -np.inf)) for _ in range(hops))
        return cls(np.zeros(lanes), np.zeros(lanes), np.zeros(lanes), links)

    def take(self, lanes: Ints) -> Queues:
        """The queues of these lanes."""
        return each(lambda column: column[lanes], self)


class Frame(NamedTuple):
    """One frame a lane: its arrival, and the random numbers drawn for it. See `Course`."""

    arrival_s: Floats
    slow_down: Floats
    server_wait_s: Floats
    byte_noise: Floats
    hops: tuple[RoundTrip, ...]


def turn_s(queues: Queues, arrival_s: Floats) -> Floats:
    """Moment of a frame's turn: it has arrived, and the device runs neither a head nor a fallback."""
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
        lane: row of links and table that each lane uses, shape ``[B]``.
        slow_belief: slow-down with which the device plans the fallback. None: the true one.
        expected_s: latency of the point with which the device plans the fallback. None: the true one.

    Returns:
        The queues after the frame, its outcome, and its message on each hop. The answer is booked on the last hop that
        the frame crossed. The books of earlier hops have the receipts of the servers behind them.
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
    for hop in table.hops[1:2]:  # the first server passes a message on unchanged without waiting for its processor
        wait_s = wait_s * ~at(hop.relays)
    turn = Turn(start, at, frame.byte_noise, table.hops, queues.hops, frame.hops, uplinks, world, lane)
    crossings = turn.carry(offloads, np.where(offloads, head_end, start), wait_s)
    tail_s = at(table.server_s)
    server_s = np.where(offloads, tail_s + wait_s, 0.0)
    answered = crossings[0].answered_s + server_s
    for crossing in crossings[1:]:
        answered = answered + crossing.detour_s

    finish_s, finish_accuracy = at(table.finish_s), at(table.finish_accuracy)
    can = offloads & (finish_accuracy >= demands.min_accuracy) & np.isfinite(finish_s)
    foreseen = answered if expected_s is None else frame.arrival_s + expected_s
    due = fallback_due_s(frame.arrival_s, head_end, finish_s * slow, foreseen, can, demands, world.guard_s)
    falls, finished, later = _finish(queues, head_end, answered, due, finish_s, frame.slow_down)

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
        hops=tuple(Crossed(c.payload, np.where(c.own, c.uplink_s, 0.0), c.compute_s) for c in crossings),
    )
    later = later._replace(hops=turn.queues_after(crossings))
    return later, outcome, booked(crossings, answered, due, finish_s * slow, tail_s)


def hopeless(waited_s: Floats, head_s: Floats, demands: Demands) -> Bools:
    """True where the head would end after the deadline. Such frames are dropped so that they do not delay the next."""
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
    """Moment at which the device begins to finish a frame that has no answer yet; infinity where it never does.

    For the objective "accuracy" it is the last moment that still meets the deadline. For "latency" the device waits at
    most as long as finishing takes, so that it is never twice too slow.

    With "accuracy", an answer foreseen between that moment and the deadline is waited for. Finishing for nothing would
    delay later frames.

    Args:
        arrival_s: moment of the frame's arrival.
        head_end_s: end of its head.
        finish_s: time that finishing takes.
        foreseen_s: moment at which the device expects the answer.
        can: True where the device can finish the frame, and accurately enough.
        demands: of each lane.
        guard_s: reserve before the deadline.
    """
    latest = arrival_s + demands.deadline_s - guard_s - finish_s
    patient = np.where(demands.for_latency, np.minimum(latest, head_end_s + finish_s), latest)
    imminent = (foreseen_s > patient) & (foreseen_s <= arrival_s + demands.deadline_s) & ~demands.for_latency
    return np.where(can & (head_end_s <= patient) & ~imminent, patient, np.inf)


def _work(start_s: Floats, duration_s: Floats, queues: Queues) -> Floats:
    """End of work of ``duration_s`` begun at ``start_s``. A fallback that falls due meanwhile interrupts it."""
    end = start_s + duration_s
    interrupted = (queues.finish_from_s < end) & (queues.finish_until_s > start_s)
    return end + np.where(interrupted, queues.finish_until_s - np.maximum(queues.finish_from_s, start_s), 0.0)


def _finish(
    queues: Queues, head_end_s: Floats, answered_s: Floats, due_s: Floats, finish_s: Floats, slow_down: Floats
) -> tuple[Bools, Floats, Queues]:
    """Finish the frames that have no answer when it is due.

    Returns True where the device finishes the frame, the end of that (infinity elsewhere), and the queues after it.
    """
    falls = answered_s > due_s
    begin = np.where(falls, np.maximum(due_s, queues.finish_until_s), 0.0)
    finished = np.where(falls, begin + np.where(falls, finish_s, 0.0) * slow_down, np.inf)
    pending = np.maximum(queues.finish_until_s - np.maximum(queues.finish_from_s, head_end_s), 0.0)
    later = queues._replace(
        device_free_s=head_end_s,
        finish_from_s=np.where(falls, begin - pending, queues.finish_from_s),
        finish_until_s=np.where(falls, finished, queues.finish_until_s),
    )
    return falls, finished, later
