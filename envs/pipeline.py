"""The frame pipeline: device queue, link queue, server, fallback, drop and probe, as pure functions over a batch.

Frame k arrives at k / fps. The device is serial and takes frames in order; the uplink is serial and drains bytes in
order. Shapes are ``[B]`` throughout, one lane a frame in progress; seconds on the lane's own clock.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from envs.link import Uplink
from envs.vocabulary import DEVICE, MISS, SERVER, Bools, Demands, Floats, Ints, Outcome
from envs.world import World
from profiling.table import PointTable


class Queues(NamedTuple):
    """Until when device and link are taken.

    From ``finish_from_s`` to ``finish_until_s`` the device finishes frames whose answer did not come; that goes before
    starting new ones. Finishes that wait for each other are kept as one stretch.
    """

    device_free_s: Floats
    finish_from_s: Floats
    finish_until_s: Floats
    link_free_s: Floats
    last_sent_s: Floats

    @classmethod
    def idle(cls, lanes: int) -> Queues:
        """Nothing under way, nothing ever sent."""
        zero, never = np.zeros(lanes), np.full(lanes, -np.inf)
        return cls(zero, zero.copy(), zero.copy(), zero.copy(), never)

    def take(self, lanes: Ints) -> Queues:
        """The queues of these lanes."""
        return Queues(*(column[lanes] for column in self))


class Frame(NamedTuple):
    """One frame a lane: when it arrived and what chance has in store for it."""

    arrival_s: Floats
    rtt_s: Floats
    rtt_base_s: Floats
    slow_down: Floats
    server_wait_s: Floats
    byte_noise: Floats


class Message(NamedTuple):
    """What was put on the link for a frame, where ``sent``: the feature, the image, or a probe.

    ``due_s``, ``finish_s``, ``tail_s``: what the device settled for it, see `Transfers`.
    """

    sent: Bools
    sent_s: Floats
    answered_s: Floats
    payload: Floats
    uplink_s: Floats
    due_s: Floats
    finish_s: Floats
    tail_s: Floats


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
    uplink: Uplink,
    lane: Ints,
    slow_belief: Floats | None = None,
    expected_s: Floats | None = None,
) -> tuple[Queues, Outcome, Message]:
    """Send one frame a lane through the pipeline, each by its operating point.

    ``points``: rows of ``table`` (columns ``[A]``, or ``[B, A]`` of which row ``lane`` is used). ``lane``: whose link
    and table. What the device believes as it plans the frame: ``slow_belief``, its own slow-down, and ``expected_s``,
    the latency that it expects; None of either stands for knowing the truth.
    """
    at = Picker(table, points, lane)
    start = turn_s(queues, frame.arrival_s)
    waited = start - frame.arrival_s
    slow = frame.slow_down if slow_belief is None else slow_belief
    dropped = hopeless(waited, at("head_s") * slow, demands)
    head_end = np.where(dropped, queues.device_free_s, _work(start, at("head_s") * frame.slow_down, queues))
    offloads = ~at("local").astype(bool) & ~dropped
    message = _send(queues, offloads, start, head_end, at, frame, world, uplink, lane)
    server_s = np.where(offloads, at("server_s") + frame.server_wait_s, 0.0)
    answered = message.answered_s + server_s

    finish_s = at("finish_s")
    can = offloads & (at("finish_accuracy") >= demands.min_accuracy) & np.isfinite(finish_s)
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
    accuracy = np.where(in_time, np.where(offloads & ~by_server, at("finish_accuracy"), at("accuracy")), 0.0)
    capped = np.minimum(latency, demands.deadline_s)
    outcome = Outcome(
        answered_by=np.where(in_time, np.where(by_server, SERVER, DEVICE), MISS),
        latency_s=capped,
        accuracy=accuracy,
        utility=np.where(in_time, demands.utility(accuracy, capped), 0.0),
        sent_bytes=np.where(message.sent, message.payload, 0.0),
        waited_s=waited,
        head_s=np.where(dropped, 0.0, head_end - start),
        uplink_s=np.where(offloads, message.uplink_s, 0.0),
        server_s=server_s,
        fell_back=falls,
    )
    onward = Queues(
        device_free_s=head_end,
        finish_from_s=np.where(falls, begin - pending, queues.finish_from_s),
        finish_until_s=np.where(falls, finished, queues.finish_until_s),
        link_free_s=np.where(message.sent, message.sent_s + message.uplink_s, queues.link_free_s),
        last_sent_s=np.where(message.sent, message.sent_s, queues.last_sent_s),
    )
    settled = message._replace(answered_s=answered, due_s=due, finish_s=np.where(offloads, finish_s * slow, 0.0))
    return onward, outcome, settled


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
    """Looks up columns of the chosen points, one value a lane."""

    def __init__(self, table: PointTable, points: Ints, lane: Ints) -> None:
        self._table, self._points, self._lane = table, points, lane

    def __call__(self, name: str) -> Floats:
        """Column ``name`` of each lane's point, shape ``[B]``."""
        column: Floats = getattr(self._table, name)
        return column[self._points] if column.ndim == 1 else column[self._lane, self._points]


def _work(start_s: Floats, duration_s: Floats, queues: Queues) -> Floats:
    """End of work begun at ``start_s``; a finish that falls due meanwhile goes first."""
    end = start_s + duration_s
    interrupted = (queues.finish_from_s < end) & (queues.finish_until_s > start_s)
    return end + np.where(interrupted, queues.finish_until_s - np.maximum(queues.finish_from_s, start_s), 0.0)


def _send(
    queues: Queues,
    offloads: Bools,
    start_s: Floats,
    head_end_s: Floats,
    at: Picker,
    frame: Frame,
    world: World,
    uplink: Uplink,
    lane: Ints,
) -> Message:
    """Put the frame, or a probe after a long silence, on the link behind what is there already."""
    silent = start_s - queues.last_sent_s >= world.probe_after_s
    probes = ~offloads & silent & (queues.link_free_s <= start_s)
    sent = offloads | probes
    sent_s = np.where(offloads, head_end_s, start_s)
    body = at("bytes_mean") * np.exp(at("bytes_sigma") * frame.byte_noise)
    payload = np.where(offloads, body + world.overhead_bytes, world.probe_bytes)
    begin = np.maximum(sent_s, queues.link_free_s)
    # An idle connection starts slowly again: each doubling of the window beyond the first costs a round trip.
    rounds = np.ceil(np.log2(payload / world.initial_window_bytes + 1.0)) - 1.0
    idle = begin - queues.link_free_s > world.idle_s
    begin = begin + np.where(idle, np.maximum(rounds, 0.0) * frame.rtt_s, 0.0)
    left_s = uplink.finish_s(lane, begin, np.where(sent, payload, 0.0))
    never, nothing = np.full_like(sent_s, np.inf), np.zeros_like(sent_s)
    tail_s = np.where(offloads, at("server_s"), 0.0)
    return Message(sent, sent_s, left_s + frame.rtt_s, payload, left_s - sent_s, never, nothing, tail_s)
