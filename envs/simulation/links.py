"""One hop of many lanes: which trace each lane plays, and what the answers to its messages say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.traces.uplink import TraceUplink
from tidesplit.envs.world.hop import Crossing, RoundTrip
from tidesplit.envs.world.vocabulary import Floats, Ints, Transfers

RTT_SPREAD = 0.4  # round trips differ less from link to link than bandwidths do


class Played(NamedTuple):
    """The trace that an episode plays, and from which second of it."""

    trace: Trace
    offset_s: float


class Links:
    """The links of one hop for ``lanes`` lanes.

    ``spread``: log-normal spread of an episode's bandwidth about the trace's. Round trips spread by RTT_SPREAD times as
    much. ``window``: messages that are remembered.
    """

    def __init__(self, traces: Sequence[Trace], lanes: int, window: int, spread: float) -> None:
        self._traces, self._window, self._spread = tuple(traces), window, spread
        self.trace_of = np.zeros(lanes, dtype=np.int64)
        self.offset_s = np.zeros(lanes)
        self.scale = np.ones(lanes) if spread else None
        self.uplink = TraceUplink.of(traces).starting(self.trace_of, self.offset_s, self.scale)
        self.transfers = Transfers.none(lanes, window)

    def choose(self, lane: int, chosen: int | None, whole: bool, rng: np.random.Generator) -> Played:
        """Choose an episode's trace: a random one where ``chosen`` is None, from its start where ``whole``."""
        chosen = int(rng.integers(len(self._traces))) if chosen is None else chosen
        trace = self._traces[chosen]
        self.trace_of[lane] = chosen
        self.offset_s[lane] = 0.0 if whole else rng.uniform(0.0, trace.duration_s)
        return Played(trace, float(self.offset_s[lane]))

    def vary(self, lane: int, trip: RoundTrip, rng: np.random.Generator) -> RoundTrip:
        """Draw how far this episode's link is from its trace. Returns the round trips as they then are."""
        if self.scale is None:
            return trip
        self.scale[lane], rtt = np.exp(self._spread * np.array([1.0, RTT_SPREAD]) * rng.standard_normal(2))
        return RoundTrip(rtt * trip.rtt_s, rtt * trip.base_s)

    def forget(self, lanes: Ints) -> None:
        """Start again in these lanes: nothing was sent yet."""
        for ring, empty in zip(self.transfers, Transfers.none(len(lanes), self._window), strict=True):
            ring[lanes] = empty

    def remember(self, crossing: Crossing, trip: RoundTrip, sent_s: Floats, wait_s: Floats, back_s: Floats) -> None:
        """Keep what was put on the link.

        ``sent_s``: when the device believes that it was ready for the link. ``wait_s``: at the machine behind the hop.
        ``back_s``: what the device believes an answer takes from the machine before the hop.
        """
        # Timed at the far end, an uplink time holds what this message's one-way delay differs from the usual one.
        timed_s = crossing.left_s - crossing.begun_s + (trip.rtt_s - trip.base_s)
        self.transfers = self.transfers.push(
            crossing.sent,
            sent_s,
            crossing.answered_s,
            crossing.payload,
            timed_s,
            trip.rtt_s,
            wait_s,
            crossing.due_s,
            crossing.finish_s,
            crossing.tail_s + back_s,
        )
