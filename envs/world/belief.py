"""The device's belief about a link, estimated from the answers to its messages."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.vocabulary import Bools, Floats, Transfers

UNKNOWN_AGE_S = 10.0  # ages are capped here, where an answer weighs next to nothing; an unused link is this old
UNKNOWN_GOODPUT = 125_000.0  # bytes a second believed before the first answer: 1 Mbit/s, the median of the LTE preset
MEMORY_S = 1.0  # an answer's weight falls by the factor e in this time: an LTE link resembles itself for about so long
SHORTEST_UPLINK_S = 0.001  # answers are timed in milliseconds: a shorter uplink time is noise


class LinkBelief(NamedTuple):
    """The belief about a link at one moment. Columns ``[B]``; seconds, bytes, bytes a second.

    Goodput is a message's bytes over its uplink time: ``goodput`` in the mean, ``goodput_last`` of the newest answered
    message, ``goodput_low`` of the slowest one. ``goodput_age_s`` is the age of the newest answer, ``goodput_spread``
    the standard deviation of the seconds a byte, relative to their mean.

    ``in_flight`` messages of ``in_flight_bytes`` have no answer yet. The answer to the oldest is overdue by
    ``stalled_s``, and all will have left by ``free_s``. The last one was sent ``since_sent_s`` ago.

    ``finish_pending_s`` is the work of the fallbacks that the device will have to run, and the first of them begins in
    ``finish_due_s``.
    """

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
    """Estimate a link from its last messages.

    ``goodput`` is the harmonic mean weighted by bytes and recency: all bytes over all seconds. (Yin et al., SIGCOMM
    2015, use it without weights.) The uplink time of a small message is mostly jitter, which cancels in the sum.

    Args:
        transfers: the last R messages of each lane, columns ``[B, R]``.
        now_s: moment of the estimate on each lane's clock, ``[B]``.
        usual_rtt_s: round trip believed before the first answer.
    """
    at = Transfers(*(column.T for column in transfers))  # [R, B]: the lanes of a slot are neighbours in memory
    flying = at.answered_s > now_s
    known = ~flying & (at.sent_s > -np.inf)
    age_s = np.minimum(np.where(known, now_s - at.answered_s, UNKNOWN_AGE_S), UNKNOWN_AGE_S)
    # Without the decay, many probes would be needed to outvote the messages before a silence.
    recent = np.where(known, np.exp(age_s / -MEMORY_S), 0.0)
    under_way = np.where(flying, at.payload, 0.0)
    answered = (column * recent for column in (at.uplink_s, at.payload, at.rtt_s, at.wait_s))
    totals = _total(np.stack([recent, *answered, flying, under_way], axis=1))
    weights, seconds, carried, rtts_s, waits_s, in_flight, in_flight_bytes = totals
    some, lane, newest = weights > 0.0, np.arange(len(now_s)), known.argmax(axis=0)
    weight = np.where(some, weights, 1.0)
    pace = np.where(known, np.maximum(at.uplink_s, SHORTEST_UPLINK_S) / np.maximum(at.payload, 1.0), 0.0)  # s a byte
    mean_pace = np.maximum(seconds, SHORTEST_UPLINK_S * recent.max(axis=0)) / np.where(some, carried, 1.0)
    mean_pace = np.where(some, mean_pace, 1.0 / UNKNOWN_GOODPUT)
    spread = np.sqrt(_total((pace - mean_pace) ** 2 * recent) / weight) / mean_pace
    rtt_s = np.where(some, rtts_s / weight, usual_rtt_s)
    wait_s = waits_s / weight  # a mean: single waits are nearly exponential and predict little
    overdue_s = now_s - np.where(flying, at.sent_s, np.inf).min(axis=0) - rtt_s - in_flight_bytes * mean_pace
    left_s = _leaves(at, flying, under_way * mean_pace)
    pending_s, due_s = _finishes(at, flying, left_s + (rtt_s + wait_s), now_s)
    return LinkBelief(
        goodput=1.0 / mean_pace,
        goodput_last=1.0 / np.where(some, pace[newest, lane], mean_pace),
        goodput_low=1.0 / np.where(some, pace.max(axis=0), mean_pace),
        goodput_age_s=age_s.min(axis=0),
        goodput_spread=spread,
        rtt_s=rtt_s,
        server_wait_s=wait_s,
        in_flight=in_flight,
        in_flight_bytes=in_flight_bytes,
        stalled_s=np.minimum(np.maximum(overdue_s, 0.0), UNKNOWN_AGE_S),
        free_s=left_s[0],
        since_sent_s=np.minimum(now_s - at.sent_s[0], UNKNOWN_AGE_S),
        finish_pending_s=pending_s,
        finish_due_s=due_s,
    )


def _leaves(at: Transfers, flying: Bools, takes_s: Floats) -> Floats:
    """Moments at which the messages in flight have left, first in, first out, ``[R, B]``.

    The slot of an answered message has the moment of the message before it.
    """
    left_s, free_s = np.empty_like(takes_s), np.full(takes_s.shape[1], -np.inf)
    sent_s = np.where(flying, at.sent_s, -np.inf)
    for slot in range(len(takes_s) - 1, -1, -1):  # oldest first
        left_s[slot] = free_s = np.maximum(free_s, sent_s[slot]) + takes_s[slot]
    return left_s


def with_finishes_of(link: LinkBelief, other: LinkBelief) -> LinkBelief:
    """Return the belief about ``link`` with the fallbacks for messages on ``other`` counted too."""
    both = (link.finish_pending_s > 0.0) & (other.finish_pending_s > 0.0)
    ours, theirs = link.finish_due_s, other.finish_due_s
    first_s = np.where(both, np.minimum(ours, theirs), np.maximum(ours, theirs))  # 0 where there is none
    return link._replace(finish_pending_s=link.finish_pending_s + other.finish_pending_s, finish_due_s=first_s)


def _finishes(at: Transfers, flying: Bools, back_s: Floats, now_s: Floats) -> tuple[Floats, Floats]:
    """Work of the fallbacks that will fall due, and the time until the first one, both ``[B]`` in seconds.

    ``back_s`` ``[R, B]``: believed moment of each message's answer, without the time of its tail.
    """
    answer_s = back_s + at.tail_s
    # A fallback due before now has run, since it went before this frame. An overdue answer is not relied on.
    falls = flying & (at.due_s > now_s) & (at.due_s < np.inf) & ((answer_s > at.due_s) | (answer_s < now_s))
    pending_s = _total(np.where(falls, at.finish_s, 0.0))
    first_s = np.where(falls, at.due_s, np.inf).min(axis=0)
    return pending_s, np.where(first_s < np.inf, first_s - now_s, 0.0)


def _total(rows: Floats) -> Floats:
    """Sum over axis 0, one row after the other. In NumPy's own order the last bit would depend on the batch's size."""
    return reduce(np.add, rows)
