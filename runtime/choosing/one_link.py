"""The device's belief about its link in plain floats: `envs.world.belief` for one lane, equal to it in every bit.

With eight messages, arrays cost five times as much as floats do.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tidesplit.envs.world.belief import MEMORY_S, SHORTEST_UPLINK_S, UNKNOWN_AGE_S, UNKNOWN_GOODPUT, LinkBelief
from tidesplit.envs.world.fields import HopSeen
from tidesplit.runtime.wire.estimator import Rows

_SEEN: Callable[..., HopSeen] = HopSeen  # of plain numbers in place of columns


def believe_alone(rows: Rows, now_s: float, usual_rtt_s: float) -> LinkBelief:
    """Estimate a link from its last messages, see `believe`. ``rows`` have the fields of `Transfers`."""
    answered = [row for row in rows if -math.inf < row[1] <= now_s]
    flying = [row for row in rows if row[1] > now_s]
    ages_s = [min(now_s - row[1], UNKNOWN_AGE_S) for row in answered]
    recent = np.exp([age_s / -MEMORY_S for age_s in ages_s]).tolist()  # math.exp may differ in the last bit
    weights = seconds = carried = rtts_s = waits_s = in_flight_bytes = squares = 0.0
    paces = []  # seconds a byte
    for (_, _, payload, uplink_s, rtt_s, wait_s, _, _, _), weight in zip(answered, recent, strict=True):
        weights += weight
        seconds += uplink_s * weight
        carried += payload * weight
        rtts_s += rtt_s * weight
        waits_s += wait_s * weight
        longest_s = uplink_s if uplink_s > SHORTEST_UPLINK_S else SHORTEST_UPLINK_S
        paces.append(longest_s / (payload if payload > 1.0 else 1.0))
    for row in flying:
        in_flight_bytes += row[2]
    if answered:
        mean_pace = max(seconds, SHORTEST_UPLINK_S * max(recent)) / carried
        rtt_s, wait_s = rtts_s / weights, waits_s / weights
    else:
        mean_pace, weights = 1.0 / UNKNOWN_GOODPUT, 1.0
        rtt_s, wait_s = usual_rtt_s, 0.0
    for pace, weight in zip(paces, recent, strict=True):
        squares += (pace - mean_pace) * (pace - mean_pace) * weight
    first_s = min((row[0] for row in flying), default=math.inf)
    left_s, pending_s, due_s = _queue(flying, now_s, mean_pace, rtt_s + wait_s)
    hop = _SEEN(
        goodput=1.0 / mean_pace,
        goodput_last=1.0 / (paces[0] if paces else mean_pace),
        goodput_low=1.0 / (max(paces) if paces else mean_pace),
        goodput_age_s=min(ages_s, default=UNKNOWN_AGE_S),
        goodput_spread=math.sqrt(squares / weights) / mean_pace,
        rtt_s=rtt_s,
        in_flight=len(flying),
        in_flight_bytes=in_flight_bytes,
        stalled_s=_capped(now_s - first_s - rtt_s - in_flight_bytes * mean_pace),
        since_sent_s=_capped(now_s - rows[0][0]),
        queue_s=_capped(left_s - now_s),
    )
    return LinkBelief._make((hop, wait_s, pending_s, due_s))


def _capped(seconds: float) -> float:
    return min(max(seconds, 0.0), UNKNOWN_AGE_S)


def _queue(flying: Rows, now_s: float, mean_pace: float, back_s: float) -> tuple[float, float, float]:
    """The moment at which the messages in flight have left, the work of the fallbacks that will fall due, and the time
    until the first of those.

    ``back_s``: time from a message's leaving until its answer, without that of its tail.
    """
    left_s, works, first_s = -math.inf, [], math.inf
    for sent_s, _, payload, _, _, _, due_s, finish_s, tail_s in reversed(flying):
        left_s = max(left_s, sent_s) + payload * mean_pace
        answer_s = left_s + back_s + tail_s
        if now_s < due_s < math.inf and (answer_s > due_s or answer_s < now_s):
            works.append(finish_s)
            first_s = min(first_s, due_s)
    pending_s = 0.0
    for work_s in reversed(works):  # in the order in which `believe` adds
        pending_s += work_s
    return left_s, pending_s, first_s - now_s if first_s < math.inf else 0.0
