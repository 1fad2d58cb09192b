"""The frame pipeline: device queue, link queue, server, fallback, drop and probe, as pure functions over a batch.

Frame k arrives at k / fps. The device is serial and takes frames in order; the uplink is serial and drains bytes in
order. Shapes are ``[B]`` throughout, one lane a frame in progress; seconds on the lane's own clock. In three tiers a
message may go on over a second link: `envs.world.hop`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.hop import Crossing, cross, ramp_s
from tidesplit.envs.world.link import Uplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import DEVICE, MISS, SERVER, Bools, Demands, Floats, Ints, Outcome, each
from tidesplit.profiling.points.table import Onward, PointTable


class Queues(NamedTuple):
    """Until when device and link are taken.

    From ``finish_from_s`` to ``finish_until_s`` the device finishes frames whose answer did not come; that goes before
    starting new ones. Finishes that wait for each other are kept as one stretch. The second link is taken until
    ``onward_free_s``, and the device last sent what goes over it at ``onward_last_s``; None in two tiers.
    """

    device_free_s: Floats
    finish_from_s: Floats
    finish_until_s: Floats
    link_free_s: Floats
    last_sent_s: Floats
    onward_free_s: Floats | None = None
    onward_last_s: Floats | None = None

    @classmethod
    def idle(cls, lanes: int, tiers: int = 2) -> Queues:
        """Nothing under way, nothing ever sent."""
        zero, never = np.zeros(lanes), np.full(lanes, -np.inf)
        onward = (zero.copy(), never.copy()) if tiers == 3 else ()
        return cls(zero, zero.copy(), zero.copy(), zero.copy(), never, *onward)

    def take(self, lanes: Ints) -> Queues:
        """The queues of these lanes."""
        return each(lambda column: column[lanes], self)


class Frame(NamedTuple):
    """One frame a lane: when it arrived and what chance has in store for it. None in two tiers: the second link's."""

    arrival_s: Floats
    rtt_s: Floats
    rtt_base_s: Floats
    slow_down: Floats
    server_wait_s: Floats
    byte_noise: Floats
    onward_rtt_s: Floats | None = None
    onward_rtt_base_s: Floats | None = None


class Message(NamedTuple):
    """What was put on the link for a frame, where ``sent``: the feature, the image, or a probe.

    ``due_s``, ``finish_s``, ``tail_s``: what the device settled for it, see `Transfers`. Of a message that goes on over
    the second link this is the edge server's receipt, and what becomes of it then is in ``crossing``.
    """

    sent: Bools
    sent_s: Floats
    answered_s: Floats
    payload: Floats
    uplink_s: Floats
    due_s: Floats
    finish_s: Floats
    tail_s: Floats
    crossing: Crossing | None = None


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
    onward: Uplink | None = None,
) -> tuple[Queues, Outcome, Message]:
    """Send one frame a lane through the pipeline, each by its operating point.

    ``points``: rows of ``table`` (columns ``[A]``, or ``[B, A]`` of which row ``lane`` is used). ``lane``: whose link
    and table. What the device believes as it plans the frame: ``slow_belief``, its own slow-down, and ``expected_s``,
    the latency that it expects; None of either stands for knowing the truth. ``onward``: the second link, in three
    tiers.
    """
    at = Picker(table, points, lane)
    further = None if table.onward is None else Picker(table.onward, points, lane)
    if further is not None:  # what the edge server only passes on does not wait for its processor
        frame = frame._replace(server_wait_s=frame.server_wait_s * ~further("relays").astype(bool))
    start = turn_s(queues, frame.arrival_s)
    waited = start - frame.arrival_s
    slow = frame.slow_down if slow_belief is None else slow_belief
    dropped = hopeless(waited, at("head_s") * slow, demands)
    head_end = np.where(dropped, queues.device_free_s, _work(start, at("head_s") * frame.slow_down, queues))
    offloads = ~at("local").astype(bool) & ~dropped
    message = _send(queues, offloads, start, head_end, at, frame, world, uplink, lane)
    server_s = np.where(offloads, at("server_s") + frame.server_wait_s, 0.0)
    answered = message.answered_s + server_s
    crossing = None
    if further is not None:
        assert onward is not None, "a table of three tiers goes with a second link"
        crossing = _pass_on(queues, offloads, start, message, further, frame, world, onward, lane)
        answered = answered + crossing.detour_s

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
    later = queues._replace(
        device_free_s=head_end,
        finish_from_s=np.where(falls, begin - pending, queues.finish_from_s),
        finish_until_s=np.where(falls, finished, queues.finish_until_s),
        link_free_s=np.where(message.sent, message.sent_s + message.uplink_s, queues.link_free_s),
        last_sent_s=np.where(message.sent, message.sent_s, queues.last_sent_s),
    )
    settled = message._replace(answered_s=answered, due_s=due, finish_s=np.where(offloads, finish_s * slow, 0.0))
    return (later, outcome, settled) if crossing is None else _apart(later, outcome, settled, crossing)


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

    def __init__(self, table: PointTable | Onward, points: Ints, lane: Ints) -> None:
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
    begin = begin + ramp_s(payload, begin - queues.link_free_s, frame.rtt_s, world)
    left_s = uplink.finish_s(lane, begin, np.where(sent, payload, 0.0))
    never, nothing = np.full_like(sent_s, np.inf), np.zeros_like(sent_s)
    tail_s = np.where(offloads, at("server_s"), 0.0)
    return Message(sent, sent_s, left_s + frame.rtt_s, payload, left_s - sent_s, never, nothing, tail_s)


def _pass_on(
    queues: Queues,
    offloads: Bools,
    start_s: Floats,
    message: Message,
    at: Picker,
    frame: Frame,
    world: World,
    onward: Uplink,
    lane: Ints,
) -> Crossing:
    """Put what goes on, or a probe after a long silence, on the second link.

    The device asks for the probe with any message that the edge server answers itself, and it is passed on where the
    second link is idle. What it has told reaches the device as soon as the edge server knows it.
    """
    assert queues.onward_free_s is not None
    assert queues.onward_last_s is not None
    assert frame.onward_rtt_s is not None
    goes_on = offloads & at("sends").astype(bool)
    silent = start_s - queues.onward_last_s >= world.probe_after_s
    probes = message.sent & ~goes_on & silent & (queues.onward_free_s <= start_s)
    back_s = 0.5 * frame.rtt_s  # from the edge server to the device
    at_edge_s = message.answered_s - back_s + np.where(offloads, frame.server_wait_s, 0.0)
    crossing = cross(
        at, goes_on, probes, at_edge_s, queues.onward_free_s, frame.onward_rtt_s, frame.byte_noise, world, onward, lane
    )
    return crossing._replace(answered_s=crossing.answered_s + back_s)


def _apart(queues: Queues, outcome: Outcome, message: Message, crossing: Crossing) -> tuple[Queues, Outcome, Message]:
    """Each link's own part: of a frame that goes on the first has the edge server's receipt, the second the answer."""
    assert queues.onward_free_s is not None
    assert queues.onward_last_s is not None
    goes_on = crossing.goes_on
    told = crossing._replace(
        answered_s=np.where(goes_on, message.answered_s, crossing.answered_s),
        due_s=np.where(goes_on, message.due_s, np.inf),
        finish_s=np.where(goes_on, message.finish_s, 0.0),
        tail_s=np.where(goes_on, message.tail_s, 0.0),
    )
    receipt = message._replace(
        answered_s=message.answered_s - np.where(goes_on, crossing.detour_s + message.tail_s, 0.0),
        due_s=np.where(goes_on, np.inf, message.due_s),
        finish_s=np.where(goes_on, 0.0, message.finish_s),
        tail_s=np.where(goes_on, 0.0, message.tail_s),
        crossing=told,
    )
    onward_queues = queues._replace(
        onward_free_s=np.where(crossing.sent, crossing.left_s, queues.onward_free_s),
        onward_last_s=np.where(crossing.sent, message.sent_s, queues.onward_last_s),
    )
    happened = outcome._replace(
        middle_s=crossing.middle_s,
        onward_s=np.where(goes_on, crossing.left_s - crossing.ready_s, 0.0),
        onward_bytes=np.where(crossing.sent, crossing.payload, 0.0),
    )
    return onward_queues, happened, receipt
