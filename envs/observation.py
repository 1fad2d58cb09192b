"""The observation: what a controller is told when a frame's turn comes, and what each point would lead to.

The simulator and the device both build it here, so a policy sees on the device exactly what it saw in training.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.vocabulary import Bools, Demands, Floats, Ints, Transfers
from profiling.table import PointTable


class Situation(NamedTuple):
    """All that the device knows when a frame's turn comes, shapes ``[B]``."""

    now_s: Floats
    waited_s: Floats
    transfers: Transfers
    slow_down: Floats
    last_point: Ints


STATE_FIELDS = (
    "waited_s", "deadline_s", "period_s", "for_latency",
    "goodput", "goodput_last", "goodput_low", "goodput_age_s", "goodput_spread",
    "rtt_s", "server_wait_s", "in_flight", "in_flight_bytes", "stalled_s", "link_queue_s",
    "since_sent_s", "finish_pending_s", "finish_due_s", "slow_down",
)  # fmt: skip
POINT_FIELDS = (
    "local", "accuracy", "head_s", "payload", "server_s", "finish_s", "finish_accuracy",
    "latency_s", "slack_s", "slack_low_s", "device_queue_s", "link_queue_s", "finish_slack_s", "is_last",
)  # fmt: skip
UNKNOWN_AGE_S = 10.0  # ages are capped here, and never-seen counts as this old
UNKNOWN_GOODPUT = 125_000.0  # bytes/s believed before anything was sent: 1 Mbit/s
SHORTEST_UPLINK_S = 0.001  # answers are timed in ms; below that a throughput would be noise


class Observation(NamedTuple):
    """SI values: ``state`` ``[B, S]`` and ``points`` ``[B, F, A]`` in the order of the FIELDS, ``mask`` ``[B, A]``."""

    state: NDArray[np.float32]
    points: NDArray[np.float32]
    mask: Bools

    def of(self, name: str) -> NDArray[np.float32]:
        """A state column ``[B]``."""
        return self.state[:, STATE_FIELDS.index(name)]

    def of_points(self, name: str) -> NDArray[np.float32]:
        """A point column ``[B, A]``."""
        return self.points[:, POINT_FIELDS.index(name)]

    def take(self, lanes: Ints) -> Observation:
        """The observation of these lanes."""
        return Observation(self.state[lanes], self.points[lanes], self.mask[lanes])

    def flat(self) -> NDArray[np.float32]:
        """One row a lane, ``[B, S + F * A]``: what Gymnasium and SB3 carry."""
        lanes, fields, points = self.points.shape
        return np.concatenate([self.state, self.points.reshape(lanes, fields * points)], axis=1)


def unflatten(flat: NDArray[np.float32], mask: Bools) -> Observation:
    """The observation in flat rows ``[B, S + F * A]`` beside their masks ``[B, A]``."""
    lanes, points = mask.shape
    split = len(STATE_FIELDS)
    return Observation(flat[:, :split], flat[:, split:].reshape(lanes, len(POINT_FIELDS), points), mask)


class LinkBelief(NamedTuple):
    """What the transfers say about the link at a moment, shapes ``[B]``; bytes a second, seconds."""

    goodput: Floats
    goodput_last: Floats
    goodput_low: Floats
    goodput_age_s: Floats
    goodput_spread: Floats
    rtt_s: Floats
    server_wait_s: Floats
    in_flight: Floats
    in_flight_bytes: Floats
    stalled_s: Floats
    free_s: Floats
    since_sent_s: Floats
    finish_pending_s: Floats
    finish_due_s: Floats


def believe(transfers: Transfers, now_s: Floats, usual_rtt_s: float) -> LinkBelief:
    """Goodput of the answered transfers, its age and spread, and what is still under way.

    ``goodput`` is the harmonic mean weighted by bytes (all bytes over all seconds; Yin et al., SIGCOMM 2015, without
    the weights): a small message's uplink time is mostly jitter, which cancels in the sum and would not message by
    message. ``finish_pending_s`` and ``finish_due_s``: work and beginning of the finishes that will fall due if answers
    come as believed.
    """
    sent_s, answered_s, payload, uplink_s, rtt_s, wait_s, due_s, finish_s, tail_s = transfers
    now = now_s[:, None]
    was_sent = sent_s > -np.inf
    known = was_sent & (answered_s <= now)
    flying = was_sent & ~known
    some = known.any(axis=1)
    count = np.maximum(known.sum(axis=1), 1)
    pace = np.where(known, np.maximum(uplink_s, SHORTEST_UPLINK_S) / np.maximum(payload, 1.0), 0.0)  # seconds a byte
    seconds = np.maximum(np.where(known, uplink_s, 0.0).sum(axis=1), SHORTEST_UPLINK_S)
    carried = np.where(known, payload, 0.0).sum(axis=1)
    mean_pace = np.where(some, seconds / np.maximum(carried, 1.0), 1.0 / UNKNOWN_GOODPUT)
    newest = np.argmax(known, axis=1)
    lane = np.arange(len(now_s))
    last_pace = np.where(some, pace[lane, newest], mean_pace)
    spread = np.sqrt((np.where(known, pace - mean_pace[:, None], 0.0) ** 2).sum(axis=1) / count) / mean_pace
    age = np.where(some, now_s - np.where(known, answered_s, -np.inf).max(axis=1, initial=-np.inf), UNKNOWN_AGE_S)
    rtt = np.where(some, np.where(known, rtt_s, 0.0).sum(axis=1) / count, usual_rtt_s)
    wait = np.where(some, wait_s[lane, newest], 0.0)
    free_s = np.full(len(now_s), -np.inf)
    pending, first_due = np.zeros(len(now_s)), np.full(len(now_s), np.inf)
    for slot in range(sent_s.shape[1] - 1, -1, -1):  # oldest first: the link is first in, first out
        through = np.maximum(free_s, sent_s[:, slot]) + payload[:, slot] * mean_pace
        free_s = np.where(flying[:, slot], through, free_s)
        due = due_s[:, slot]
        # Still to come: one that fell due before now is done, since the frame's turn came after it.
        expected = through + rtt + wait + tail_s[:, slot]  # an answer that is overdue is not counted on
        falls = flying[:, slot] & (due > now_s) & ((expected > due) | (expected < now_s)) & (due < np.inf)
        pending += np.where(falls, finish_s[:, slot], 0.0)
        first_due = np.where(falls, np.minimum(first_due, due), first_due)
    oldest_sent = np.where(flying, sent_s, np.inf).min(axis=1)
    overdue = now_s - oldest_sent - rtt - (flying * payload).sum(axis=1) * mean_pace
    return LinkBelief(
        goodput=1.0 / mean_pace,
        goodput_last=1.0 / last_pace,
        goodput_low=1.0 / np.where(some, pace.max(axis=1), mean_pace),
        goodput_age_s=np.minimum(age, UNKNOWN_AGE_S),
        goodput_spread=spread,
        rtt_s=rtt,
        server_wait_s=wait,
        in_flight=flying.sum(axis=1).astype(np.float64),
        in_flight_bytes=(flying * payload).sum(axis=1),
        stalled_s=np.clip(overdue, 0.0, UNKNOWN_AGE_S),
        free_s=free_s,
        since_sent_s=np.minimum(now_s - sent_s[:, 0], UNKNOWN_AGE_S),
        finish_pending_s=pending,
        finish_due_s=np.where(pending > 0.0, first_due - now_s, 0.0),
    )


def observe(
    situation: Situation, table: PointTable, demands: Demands, usual_rtt_s: float, overhead: float, guard_s: float
) -> Observation:
    """Build the observation: the situation, the demand, and for each point what choosing it would lead to.

    ``table`` columns may be ``[A]`` for all lanes or ``[B, A]``.
    """
    link = believe(situation.transfers, situation.now_s, usual_rtt_s)
    states = {
        **link._asdict(),
        "waited_s": situation.waited_s,
        "deadline_s": demands.deadline_s,
        "period_s": demands.period_s,
        "for_latency": demands.for_latency,
        "link_queue_s": np.clip(link.free_s - situation.now_s, 0.0, UNKNOWN_AGE_S),
        "slow_down": situation.slow_down,
    }
    state = np.stack([states[name] for name in STATE_FIELDS], axis=1, dtype=np.float32, casting="unsafe")
    is_last = np.arange(table.local.shape[-1]) == situation.last_point[:, None]
    points = _foresee(state, table, np.float32(overhead), np.float32(guard_s), is_last)
    return Observation(state, points, allowed(situation, table, demands))


def _foresee(
    state: NDArray[np.float32],
    table: PointTable,
    overhead: np.float32,
    guard_s: np.float32,
    is_last: Bools,
) -> NDArray[np.float32]:
    """What each point would lead to if the link stayed as believed, ``[B, F, A]``. float32: this is the hot loop."""

    def told(name: str) -> NDArray[np.float32]:
        return state[:, STATE_FIELDS.index(name), None]

    def listed(name: str) -> NDArray[np.float32]:
        column: NDArray[np.float32] = getattr(table, name).astype(np.float32)
        return column

    shape = is_last.shape
    points = np.empty((shape[0], len(POINT_FIELDS), shape[1]), dtype=np.float32)
    out = {name: points[:, place] for place, name in enumerate(POINT_FIELDS)}
    crosses = (~table.local).astype(np.float32)
    slow, waited, queue_s = told("slow_down"), told("waited_s"), told("link_queue_s")
    out["local"][:] = table.local
    out["accuracy"][:] = table.accuracy
    out["is_last"][:] = is_last
    head = np.multiply(listed("head_s"), slow, out=out["head_s"])
    head += told("finish_pending_s") * (told("finish_due_s") < head)
    out["payload"][:] = payload = (listed("bytes_mean") + overhead) * crosses
    out["server_s"][:] = table.server_s
    finish = np.multiply(np.minimum(listed("finish_s"), UNKNOWN_AGE_S) * crosses, slow, out=out["finish_s"])
    out["finish_accuracy"][:] = np.where(table.local, table.accuracy, table.finish_accuracy)
    starts = np.maximum(head, queue_s * crosses)
    leaves = starts + payload / told("goodput")
    away = (told("rtt_s") + told("server_wait_s") + listed("server_s")) * crosses + waited
    latency = np.minimum(leaves + away, UNKNOWN_AGE_S, out=out["latency_s"])
    left = told("deadline_s") - latency
    out["slack_s"][:] = left
    later = payload * (1.0 / told("goodput_low") - 1.0 / told("goodput")) + told("stalled_s") * crosses
    np.maximum(left - later, -UNKNOWN_AGE_S, out=out["slack_low_s"])
    np.maximum(waited + head - told("period_s"), 0.0, out=out["device_queue_s"])
    onward = np.where(table.local, queue_s, leaves) - told("period_s")
    np.clip(onward, 0.0, UNKNOWN_AGE_S, out=out["link_queue_s"])
    np.subtract(told("deadline_s") - guard_s - waited, head + finish, out=out["finish_slack_s"])
    return points


def allowed(situation: Situation, table: PointTable, demands: Demands) -> Bools:
    """Mask ``[B, A]``: at or above the accuracy floor, and nothing more onto a link with a full window unanswered.

    Where the floor and the full window leave nothing (every point above the floor crosses the link), the floor stands:
    the frame is sent nevertheless, since a less accurate answer is not asked for.
    """
    accurate: Bools = np.asarray(table.accuracy >= demands.min_accuracy[:, None])
    full = np.all(situation.transfers.answered_s > situation.now_s[:, None], axis=1, keepdims=True)
    mask = accurate & (np.broadcast_to(table.local, accurate.shape) | ~full)
    return np.where(mask.any(axis=1, keepdims=True), mask, accurate)
