"""The frame pipeline as pure functions over a batch: device, hops, server, fallback, race, drop and probe.

Frame k arrives at k / fps. The device takes frames in order. Each link is serial and carries messages in order. Shapes
are ``[B]`` throughout, one lane a frame in progress, in seconds on the lane's own clock.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.chain import Picker, Turn, booked
from tidesplit.envs.world.hop import Crossing, HopQueue, RoundTrip
from tidesplit.envs.world.link import Uplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import (
    DEVICE,
    MISS,
    SERVER,
    Bools,
    Crossed,
    Demands,
    Floats,
    Ints,
    Outcome,
    Run,
    each,
)
from tidesplit.profiling.points.table import PointTable


class Queues(NamedTuple):
    """State of the device and of every link between two frames.

    The device has a foreground and a worker. The foreground decides, encodes pictures, runs heads and sends, until
    ``device_free_s``. The worker runs whole CNNs and races one after the other, until ``worker_until_s``. From
    ``finish_from_s`` to ``finish_until_s`` it finishes frames whose answer did not come. Finishes that wait for each
    other count as one stretch. They go first when they fall due.
    """

    device_free_s: Floats
    worker_until_s: Floats
    finish_from_s: Floats
    finish_until_s: Floats
    heat_c: Floats  # temperature of the processor
    hops: tuple[HopQueue, ...]

    @classmethod
    def idle(cls, lanes: int, hops: int = 1) -> Queues:
        """Idle device, cold, and idle links whose radio stays awake."""
        links = tuple(HopQueue(np.zeros(lanes), np.full(lanes, -np.inf), np.full(lanes, np.inf)) for _ in range(hops))
        free, worker, begin, end, heat = np.zeros((5, lanes))
        return cls(free, worker, begin, end, heat, links)

    def take(self, lanes: Ints) -> Queues:
        """The queues of these lanes."""
        return each(lambda column: column[lanes], self)


class Frame(NamedTuple):
    """One frame a lane: its arrival, and the random numbers drawn for it. See `Course`."""

    arrival_s: Floats
    slow_down: Floats  # factor on the device's compute times, beside that of heat and jitter
    compute_noise: Floats  # standard normals, scaled by each point's own jitter
    server_wait_s: Floats
    byte_noise: Floats
    ambient_c: Floats  # temperature of the air
    hops: tuple[RoundTrip, ...]


def turn_s(queues: Queues, arrival_s: Floats) -> Floats:
    """Moment at which a head may begin: its frame has arrived, and neither foreground nor worker is busy."""
    return idle_s(queues, decided_s(queues, arrival_s))


def decided_s(queues: Queues, arrival_s: Floats) -> Floats:
    """Moment of a frame's decision: it has arrived, and the foreground is free."""
    return np.maximum(arrival_s, queues.device_free_s)


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
    worker_s: Floats | None = None,
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
        worker_s: time from the decision until the worker is idle, by which the device drops frames. None: the true one.

    Returns:
        The queues after the frame, its outcome, and its message on each hop. The answer is booked on the last hop that
        the frame crossed. The books of earlier hops have the receipts of the servers behind them.
    """
    at = Picker(points, lane)
    local, light, head_s = at(table.local), at(table.light), at(table.head_s)
    decided = decided_s(queues, frame.arrival_s)
    start = np.where(light, decided, turn_s(queues, frame.arrival_s))
    waited = start - frame.arrival_s
    noise = np.exp(world.jitter * at(table.jitter) * frame.compute_noise)
    throttled = world.cooling.slow_down(queues.heat_c)
    true_slow = frame.slow_down * throttled * noise
    slow = true_slow if slow_belief is None else slow_belief
    queued_s = waited if worker_s is None else decided - frame.arrival_s + np.where(light, 0.0, worker_s)
    dropped = hopeless(queued_s, head_s * slow, demands)
    head_end = start + head_s * true_slow
    head_end = np.where(light, head_end, interrupted_s(start, head_end, queues))
    free = np.where(dropped, queues.device_free_s, np.where(local, decided, head_end))
    offloads = ~local & ~dropped
    wait_s = frame.server_wait_s
    for hop in table.hops[1:2]:  # the first server passes a message on unchanged without waiting for its processor
        wait_s = wait_s * ~at(hop.relays)
    turn = Turn(
        np.where(local, decided, start), at, frame.byte_noise, table.hops, queues.hops, frame.hops, uplinks, world, lane
    )
    crossings = turn.carry(offloads, np.where(offloads, head_end, turn.start_s), wait_s)
    tail_s = at(table.server_s)
    server_s = np.where(offloads, tail_s + wait_s, 0.0)
    answered = crossings[0].answered_s + server_s
    for crossing in crossings[1:]:
        answered = answered + crossing.detour_s

    finish_s, finish_accuracy = at(table.finish_s), at(table.finish_accuracy)
    can = offloads & (finish_accuracy >= demands.min_accuracy) & np.isfinite(finish_s)
    races, deadline_s = can & at(table.races), frame.arrival_s + demands.deadline_s
    foreseen = answered if expected_s is None else frame.arrival_s + expected_s
    due = fallback_due_s(frame.arrival_s, head_end, finish_s * slow, foreseen, can & ~races, demands, world.guard_s)
    # A whole CNN or half of a race is handed over now. It does not begin where it could not end by the deadline.
    hands = races | (local & ~dropped)
    handed, takes_s = np.where(hands, np.where(local, decided, head_end), due), np.where(local, head_s, finish_s) * slow
    could_end = np.where(hands, idle_s(queues, np.where(hands, handed, 0.0)) + np.where(hands, takes_s, 0.0), -np.inf)
    run_s = np.where(local, head_s, finish_s) * true_slow
    work = _Work(handed, could_end <= deadline_s, run_s, ~(races | local), local)
    runs, settled, finished, later = work.on(queues._replace(device_free_s=free), answered)

    # A race's result is held until the deadline, in case the server's better answer comes.
    held = races & runs & ~demands.for_latency & (finished <= deadline_s)
    accuracy = at(table.accuracy)
    by_server = offloads & np.where(
        held, (answered <= deadline_s) & (accuracy >= finish_accuracy), answered <= finished
    )
    latency = np.where(by_server, answered, finished) - frame.arrival_s
    latency = np.where(held & ~by_server, demands.deadline_s, latency)  # exactly, or rounding would make it a miss
    latency = np.where(dropped, np.inf, latency)
    in_time = latency <= demands.deadline_s
    accuracy = np.where(in_time, np.where(offloads & ~by_server, finish_accuracy, accuracy), 0.0)
    capped = np.minimum(latency, demands.deadline_s)
    own_s = np.where(offloads, head_s * true_slow, 0.0)  # an interrupting finish is in another frame
    busy_s = np.where(runs, run_s, 0.0) + np.where(light, 0.0, own_s)
    # A slower clock draws fewer watts, so that heat changes the time of a run and not its energy.
    device_j = table.machine.joules(demands.period_s, busy_s / throttled, own_s * light / throttled)
    watts = device_j / demands.period_s
    outcome = Outcome(
        answered_by=np.where(in_time, np.where(by_server, SERVER, DEVICE), MISS),
        dropped=dropped,
        latency_s=capped,
        accuracy=accuracy,
        utility=np.where(in_time, demands.utility(accuracy, capped), 0.0),
        waited_s=waited,
        head_s=np.where(dropped, 0.0, head_end - start),
        server_s=server_s,
        fell_back=runs & offloads,
        slow_down=np.where(runs | (offloads & ~light), true_slow, 0.0),
        heat_c=queues.heat_c,
        device_j=device_j,
        radio_j=reduce(np.add, (c.radio_j for c in crossings)),
        run=Run(
            handed_s=handed,
            settled_s=settled,
            end_s=np.where(runs, np.where(work.waits, finished, settled + run_s), -np.inf),
            takes_s=takes_s,
            slow_down=np.where(runs & (local | light), true_slow, 0.0),
        ),
        hops=tuple(Crossed(c.payload, np.where(c.own, c.uplink_s, 0.0), c.compute_s) for c in crossings),
    )
    heat_c = world.cooling.after(queues.heat_c, frame.ambient_c, watts, demands.period_s)
    later = later._replace(heat_c=heat_c, hops=turn.queues_after(crossings))
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

    ``foreseen_s`` is the moment at which the device expects the answer, ``finish_s`` the time that finishing takes, and
    ``guard_s`` the reserve before the deadline. ``can`` is True where the device can finish accurately enough.
    """
    latest = arrival_s + demands.deadline_s - guard_s - finish_s
    patient = np.where(demands.for_latency, np.minimum(latest, head_end_s + finish_s), latest)
    imminent = (foreseen_s > patient) & (foreseen_s <= arrival_s + demands.deadline_s) & ~demands.for_latency
    return np.where(can & (head_end_s <= patient) & ~imminent, patient, np.inf)


def idle_s(queues: Queues, moment_s: Floats) -> Floats:
    """First moment from ``moment_s`` on at which the worker is idle."""
    free_s = np.maximum(moment_s, queues.worker_until_s)
    finishing = (queues.finish_from_s <= free_s) & (free_s < queues.finish_until_s)
    return np.where(finishing, queues.finish_until_s, free_s)


def interrupted_s(start_s: Floats, end_s: Floats, queues: Queues) -> Floats:
    """End of work from ``start_s`` to ``end_s``, with the finishes that fall due meanwhile."""
    interrupted = (queues.finish_from_s < end_s) & (queues.finish_until_s > start_s)
    return end_s + np.where(interrupted, queues.finish_until_s - np.maximum(queues.finish_from_s, start_s), 0.0)


class _Work(NamedTuple):
    """A run of the worker for each frame, ``[B]``, seconds."""

    handed_s: Floats  # moment from which it may begin; infinity: never
    promising: Bools  # True where it does not seem too late, as the device believes
    duration_s: Floats  # its true time
    waits: Bools  # True where it is a finish that waits for its moment
    local: Bools  # True where no answer can make it needless

    def on(self, queues: Queues, answered_s: Floats) -> tuple[Bools, Floats, Floats, Queues]:
        """Run it, unless the answer comes before it begins.

        Returns True where it begins, the moment of that or of giving it up, its end (infinity where it does not begin),
        and the queues after it.
        """
        may, from_s, until_s = np.isfinite(self.handed_s), queues.finish_from_s, queues.finish_until_s
        begin = idle_s(queues, np.where(may, self.handed_s, 0.0))
        begin = np.where(self.waits, np.maximum(begin, until_s), begin)
        runs = may & self.promising & (self.local | (answered_s > begin))
        end = begin + np.where(runs, self.duration_s, 0.0)
        end = np.where(self.waits, end, interrupted_s(begin, end, queues))
        finishes, at_once = runs & self.waits, runs & ~self.waits
        pending = np.maximum(until_s - np.maximum(from_s, queues.device_free_s), 0.0)
        later = queues._replace(
            worker_until_s=np.where(at_once, end, queues.worker_until_s),
            finish_from_s=np.where(finishes, begin - pending, from_s),
            finish_until_s=np.where(finishes, end, until_s),
        )
        settled = np.where(runs | self.local, begin, np.minimum(begin, answered_s))
        return runs, settled, np.where(runs, end, np.inf), later
