"""One hop of many lanes: the trace that each lane plays, and its last messages."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import numpy as np

from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.traces.uplink import TraceUplink
from tidesplit.envs.world.hop import Crossing, RoundTrip
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Floats, Ints, Transfers, each

TIME_SPREAD = 0.4  # round trips, their jitter and requests differ less from link to link than bandwidths; assumed

SHORTEST_S = 1e-4  # no drawn round trip is shorter: an answer never comes before its bytes have left


class Played(NamedTuple):
    """The trace that an episode plays, and the second at which it begins."""

    trace: Trace
    offset_s: float


class Links:
    """The links of one hop, one for each lane.

    Each episode draws one of ``traces``. Its bandwidth has the log-normal ``spread`` about the trace's. Its round trip,
    the jitter of that and the time of a request have TIME_SPREAD times as much. The last messages of each lane are
    remembered, as many as the world's window.
    """

    def __init__(self, traces: Sequence[Trace], lanes: int, world: World, spread: float) -> None:
        self._traces, self._window, self._spread = tuple(traces), world.window, spread
        self._request_s = world.request_s
        self.trace_of = np.zeros(lanes, dtype=np.int64)
        self.offset_s = np.zeros(lanes)
        self.scale = np.ones(lanes) if spread else None
        # The true links: only those who may know the future may read them.
        self.uplink = TraceUplink.of(traces).starting(self.trace_of, self.offset_s, self.scale)
        self.transfers = Transfers.none(lanes, world.window)

    def choose(self, lane: int, chosen: int | None, whole: bool, rng: np.random.Generator) -> Played:
        """Choose an episode's trace, at random if ``chosen`` is None. If ``whole``, it begins at the trace's start."""
        chosen = int(rng.integers(len(self._traces))) if chosen is None else chosen
        trace = self._traces[chosen]
        self.trace_of[lane] = chosen
        self.offset_s[lane] = 0.0 if whole else rng.uniform(0.0, trace.duration_s)
        return Played(trace, float(self.offset_s[lane]))

    def vary(self, lane: int, trip: RoundTrip, rng: np.random.Generator) -> RoundTrip:
        """Draw the factors between this episode's link and its trace. Returns the round trips of the link."""
        if self.scale is None:
            return trip
        spreads = self._spread * np.array([1.0, TIME_SPREAD, TIME_SPREAD, TIME_SPREAD])
        self.scale[lane], rtt, jitter, request = np.exp(spreads * rng.standard_normal(4))
        base_s = np.maximum(rtt * trip.base_s + (request - 1.0) * self._request_s, SHORTEST_S)
        return RoundTrip(np.maximum(base_s + rtt * jitter * (trip.rtt_s - trip.base_s), SHORTEST_S), base_s)

    def forked(self, lanes: Ints) -> Links:
        """The links of these lanes, ``[N]``."""
        fork = copy(self)
        fork.trace_of, fork.offset_s = self.trace_of[lanes], self.offset_s[lanes]
        fork.scale = None if self.scale is None else self.scale[lanes]
        fork.uplink = self.uplink.starting(fork.trace_of, fork.offset_s, fork.scale)
        fork.transfers = each(lambda ring: ring[lanes], self.transfers)
        return fork

    def forget(self, lanes: Ints) -> None:
        """Forget the messages of these lanes."""
        for ring, empty in zip(self.transfers, Transfers.none(len(lanes), self._window), strict=True):
            ring[lanes] = empty

    def remember(self, crossing: Crossing, trip: RoundTrip, sent_s: Floats, wait_s: Floats, back_s: Floats) -> None:
        """Remember the messages of one frame.

        As the device believes, the messages were ready for the link at ``sent_s``, and an answer takes ``back_s`` from
        the machine before the hop. ``wait_s`` is the wait at the server behind the hop. All are ``[B]``.
        """
        # The far end times the uplink, so the jitter of this message's way there counts as uplink time.
        timed_s = crossing.left_s - crossing.begun_s + (trip.rtt_s - trip.base_s)
        known = (sent_s, crossing.answered_s, crossing.payload, timed_s, trip.rtt_s, wait_s)
        settled = (crossing.due_s, crossing.finish_s, crossing.tail_s + back_s)
        self.transfers = self.transfers.push(crossing.sent, *known, *settled)
