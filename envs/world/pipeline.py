"""The frame pipeline as pure functions over a batch: device, hops, server, fallback, race, drop and probe.

Frame k arrives at k / fps. The device takes frames in order. Each link is serial and carries messages in order. Shapes
are ``[B]`` throughout, one lane a frame in progress, in seconds on the lane's own clock.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.chain import Picker, Turn, booked
from tidesplit.envs.world.hop import Crossing, RoundTrip
from tidesplit.envs.world.link import Uplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.queues import Queues, References, WorkerRun, decided_s, idle_s, interrupted_s, turn_s
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
)
from tidesplit.profiling.points.motion import growth_of
from tidesplit.profiling.points.table import PointTable

FOREVER = 1e6  # seconds or joules, in place of the infinity of a message that never leaves


class Frame(NamedTuple):
    """One frame a lane: its arrival, and the random numbers drawn for it. See `Course`."""

    arrival_s: Floats
    slow_down: Floats  # factor on the device's compute times, beside that of heat and jitter
    compute_noise: Floats  # standard normals, scaled by each point's own jitter
    server_wait_s: Floats
    byte_noise: Floats
    ambient_c: Floats  # temperature of the air
    motion: Floats  # of the camera's scene; [B, S] where it is a belief of each stream
    hops: tuple[RoundTrip, ...]


class _Part(NamedTuple):
    """The device's own part of a frame, before anything comes back, ``[B]``, seconds."""

    local: Bools  # True where nothing leaves the device
    light: Bools  # True where the device only encodes a picture
    decided_s: Floats  # moment of the decision
    start_s: Floats  # beginning of head or encoding; of a whole CNN, the moment at which the worker is idle
    head_s: Floats  # time in the table
    head_end_s: Floats
    dropped: Bools
    throttled: Floats  # factor on compute times by heat
    true_slow: Floats  # factor that the frame's compute times meet
    slow: Floats  # the factor that the device believes

    @property
    def offloads(self) -> Bools:
        """True where the frame is sent."""
        return ~self.local & ~self.dropped

    @property
    def sent_at_s(self) -> Floats:
        """Moment at which the frame's bytes, or a probe, are ready for the link."""
        return np.where(self.offloads, self.head_end_s, self.turn_s)

    @property
    def turn_s(self) -> Floats:
        """Moment at which a silent link would get a probe."""
        return np.where(self.local, self.decided_s, self.start_s)


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
    part = _begin(queues, frame, at, table, demands, world, slow_belief, worker_s)
    wait_s = frame.server_wait_s
    for hop in table.hops[1:2]:  # the first server passes a message on unchanged without waiting for its processor
        wait_s = wait_s * ~at(hop.relays)
    stream = _stream(queues, points, frame, part, table, demands) if table.streams.count else None
    growth = None if stream is None else stream.growth
    turn = Turn(part.turn_s, at, frame.byte_noise, table.hops, queues.hops, frame.hops, uplinks, world, lane, growth)
    crossings = turn.carry(part.offloads, part.sent_at_s, wait_s)
    tail_s, finish_s = world.serving_s(at(table.server_s), at(table.images)), at(table.finish_s)
    server_s = np.where(part.offloads, tail_s + wait_s, 0.0)
    answered = crossings[0].answered_s + server_s
    for crossing in crossings[1:]:
        answered = answered + crossing.detour_s

    can = part.offloads & (at(table.finish_accuracy) >= demands.min_accuracy) & np.isfinite(finish_s)
    races = can & at(table.races)
    foreseen = answered if expected_s is None else frame.arrival_s + expected_s
    due = fallback_due_s(
        frame.arrival_s, part.head_end_s, finish_s * part.slow, foreseen, can & ~races, demands, world.guard_s
    )
    work = _work(queues, part, frame.arrival_s + demands.deadline_s, finish_s, races, due)
    free = np.where(part.dropped, queues.device_free_s, np.where(part.local, part.decided_s, part.head_end_s))
    runs, settled, finished, later = work.on(queues._replace(device_free_s=free), answered)
    end = _end(frame.arrival_s, part, demands, at, table, races & runs, answered, finished)
    own_s = np.where(part.offloads, part.head_s * part.true_slow, 0.0)  # an interrupting finish is in another frame
    busy_s = np.where(runs, work.duration_s, 0.0) + np.where(part.light, 0.0, own_s)
    # A slower clock draws fewer watts, so that heat changes the time of a run and not its energy.
    device_j = table.machine.joules(demands.period_s, busy_s / part.throttled, own_s * part.light / part.throttled)
    radio_j = reduce(np.add, (c.radio_j for c in crossings))
    links = turn.queues_after(crossings)
    # What keeps the radio awake is paid as time passes. Paid at once, a message after a silence would cost more than a
    # plan of some frames can win back.
    left_s = np.clip(links[0].awake_s - frame.arrival_s - demands.period_s, 0.0, FOREVER)
    left_s = left_s - np.clip(queues.hops[0].awake_s - frame.arrival_s, 0.0, FOREVER)
    drawn_j = np.minimum(radio_j, FOREVER) - world.radio.tail_w * left_s
    outcome = Outcome(
        answered_by=end.answered_by,
        dropped=part.dropped,
        latency_s=end.latency_s,
        accuracy=end.accuracy,
        utility=np.where(end.answered_by != MISS, demands.utility(end.accuracy, end.latency_s, world.utility), 0.0),
        cost=demands.cost(device_j - table.machine.idle_w * demands.period_s + drawn_j, crossings[0].payload),
        waited_s=part.start_s - frame.arrival_s,
        head_s=np.where(part.dropped, 0.0, part.head_end_s - part.start_s),
        server_s=server_s,
        fell_back=runs & part.offloads,
        slow_down=np.where(runs | (part.offloads & ~part.light), part.true_slow, 0.0),
        heat_c=queues.heat_c,
        device_j=device_j,
        radio_j=radio_j,
        run=Run(
            handed_s=work.handed_s,
            settled_s=settled,
            end_s=np.where(runs, np.where(work.waits, finished, settled + work.duration_s), -np.inf),
            takes_s=work.believed_s,
            slow_down=np.where(runs & (part.local | part.light), part.true_slow, 0.0),
        ),
        hops=tuple(Crossed(c.payload, np.where(c.own, c.uplink_s, 0.0), c.compute_s) for c in crossings),
    )
    watts = device_j / demands.period_s
    heat_c = world.cooling.after(queues.heat_c, frame.ambient_c, watts, demands.period_s)
    later = later._replace(heat_c=heat_c, hops=links)
    if stream is not None:
        later = later._replace(references=stream.after(queues, part, frame.arrival_s, answered, world.answer_limit_s))
    return later, outcome, booked(crossings, answered, due, finish_s * part.slow, tail_s)


class _Stream(NamedTuple):
    """The streams of the chosen points."""

    lanes: Ints  # those whose point sends in a stream, [L]
    of: Ints  # their streams, [L]
    key: Bools  # True where the payload is a key, [L]
    growth: Floats  # factor on the bytes, [B]

    def after(self, queues: Queues, part: _Part, arrival_s: Floats, answered_s: Floats, limit_s: float) -> References:
        """The state after the frame. A frame that is not sent leaves the reference as it is."""
        sent = part.offloads[self.lanes]
        lanes, sent_s = self.lanes[sent], part.head_end_s[self.lanes[sent]]
        lost_s = np.where(answered_s[lanes] > sent_s + limit_s, sent_s + limit_s, np.inf)
        return queues.references.after(lanes, self.of[sent], self.key[sent], arrival_s[lanes], lost_s)


def _stream(queues: Queues, points: Ints, frame: Frame, part: _Part, table: PointTable, demands: Demands) -> _Stream:
    """The ages of the references, as the device knows them at the decision, and the bytes that they make."""
    streams = table.streams
    lanes = np.flatnonzero(streams.of[points] >= 0)
    of = streams.of[points[lanes]]
    known = References(*(column[lanes, of][:, None] for column in queues.references))
    age = known.age(frame.arrival_s[lanes], part.decided_s[lanes], demands.period_s[lanes])[:, 0]
    growth = np.ones(len(points))
    motion = frame.motion[lanes] if frame.motion.ndim == 1 else frame.motion[lanes, of]
    growth[lanes] = growth_of(table, points[lanes], age, motion)
    return _Stream(lanes, of, ~np.isfinite(age), growth)


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


def _begin(
    queues: Queues,
    frame: Frame,
    at: Picker,
    table: PointTable,
    demands: Demands,
    world: World,
    slow_belief: Floats | None,
    worker_s: Floats | None,
) -> _Part:
    """The device's part of a frame: drop it, run its head, or encode its picture."""
    local, light, head_s = at(table.local), at(table.light), at(table.head_s)
    decided = decided_s(queues, frame.arrival_s)
    start = np.where(light, decided, turn_s(queues, frame.arrival_s))
    noise = np.exp(world.jitter * at(table.jitter) * frame.compute_noise)
    throttled = world.cooling.slow_down(queues.heat_c)
    true_slow = frame.slow_down * throttled * noise
    slow = true_slow if slow_belief is None else slow_belief
    queued_s = start if worker_s is None else decided + np.where(light, 0.0, worker_s)
    dropped = hopeless(queued_s - frame.arrival_s, head_s * slow, demands)
    head_end = start + head_s * true_slow
    head_end = np.where(light, head_end, interrupted_s(start, head_end, queues))
    return _Part(local, light, decided, start, head_s, head_end, dropped, throttled, true_slow, slow)


def _work(queues: Queues, part: _Part, deadline_s: Floats, finish_s: Floats, races: Bools, due_s: Floats) -> WorkerRun:
    """The worker's run for a frame.

    A whole CNN or half of a race is handed over now. It does not begin where it could not end by the deadline.
    """
    hands, listed_s = races | (part.local & ~part.dropped), np.where(part.local, part.head_s, finish_s)
    handed = np.where(hands, np.where(part.local, part.decided_s, part.head_end_s), due_s)
    takes_s = listed_s * part.slow
    begin = idle_s(queues, np.where(hands, handed, 0.0))
    could_end = np.where(hands, begin + np.where(hands, takes_s, 0.0), -np.inf)
    waits = ~(races | part.local)
    return WorkerRun(handed, could_end <= deadline_s, listed_s * part.true_slow, takes_s, waits, part.local)


class _End(NamedTuple):
    """The end of a frame, see `Outcome`."""

    answered_by: Ints
    latency_s: Floats
    accuracy: Floats


def _end(
    arrival_s: Floats,
    part: _Part,
    demands: Demands,
    at: Picker,
    table: PointTable,
    raced: Bools,
    answered_s: Floats,
    finished_s: Floats,
) -> _End:
    """Who answers a frame, and when.

    A race's result is held until the deadline, in case the server's better answer comes.
    """
    accuracy, finish_accuracy, deadline_s = (
        at(table.accuracy),
        at(table.finish_accuracy),
        arrival_s + demands.deadline_s,
    )
    held = raced & ~demands.for_latency & (finished_s <= deadline_s)
    better = (answered_s <= deadline_s) & (accuracy >= finish_accuracy)
    by_server = part.offloads & np.where(held, better, answered_s <= finished_s)
    latency = np.where(by_server, answered_s, finished_s) - arrival_s
    latency = np.where(held & ~by_server, demands.deadline_s, latency)  # exactly, or rounding would make it a miss
    latency = np.where(part.dropped, np.inf, latency)
    in_time = latency <= demands.deadline_s
    found = np.where(part.offloads & ~by_server, finish_accuracy, accuracy)
    return _End(
        answered_by=np.where(in_time, np.where(by_server, SERVER, DEVICE), MISS),
        latency_s=np.minimum(latency, demands.deadline_s),
        accuracy=np.where(in_time, found, 0.0),
    )
