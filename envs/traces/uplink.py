"""Link arithmetic on traces: the bytes that a link carries between two moments, and the moment of the last byte.

Traces are piecewise constant and loop at their end, so the cumulative bytes are piecewise linear. Both directions are
exact up to rounding: ``finish_s(t0, bytes_between(t0, t1))`` is the earliest moment at which these bytes have left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.link import NEVER_S
from tidesplit.envs.world.vocabulary import Floats, Ints

Span = tuple[Ints, Ints, Floats, Floats]
SLIVER_BYTES = 1e-4  # a payload has left but for this: a rounding error must not wait until an outage is over


@dataclass(frozen=True)
class TraceUplink:
    """The links of many lanes over M traces, laid end to end so that one binary search serves every lane.

    Attributes:
        edge_s: time of each bin's edge since the start of the first trace, ``[E]``.
        edge_bytes: bytes carried until then, ``[E]``.
        rate: bytes a second from this edge to the next, ``[E]``.
        first: row of each trace's first edge, ``[M]``.
        last: row of its last edge, ``[M]``.
        trace_of: trace that each lane plays, ``[B]``.
        offset_s: moment of the trace at which the lane's clock begins, ``[B]``.
        scale: factor on the trace's bandwidth, ``[B]``; None: 1.
    """

    edge_s: Floats
    edge_bytes: Floats
    rate: Floats
    first: Ints
    last: Ints
    trace_of: Ints
    offset_s: Floats
    scale: Floats | None = None

    @classmethod
    def of(cls, traces: Sequence[Trace], trace_of: Ints | None = None, offset_s: Floats | None = None) -> TraceUplink:
        """Lay the traces end to end. By default lane m plays trace m from its start."""
        steps = [np.diff(np.append(t.time_s, t.duration_s)) for t in traces]
        rates = [t.bandwidth_bps / 8.0 for t in traces]
        count = np.array([len(s) for s in steps])
        last = np.cumsum(count)
        rate = np.concatenate(rates)
        step = np.concatenate(steps)
        return cls(
            edge_s=np.concatenate([[0.0], np.cumsum(step)]),
            edge_bytes=np.concatenate([[0.0], np.cumsum(step * rate)]),
            rate=np.append(rate, 0.0),
            first=last - count,
            last=last,
            trace_of=np.arange(len(traces)) if trace_of is None else trace_of,
            offset_s=np.zeros(len(traces)) if offset_s is None else offset_s,
        )

    def starting(self, trace_of: Ints, offset_s: Floats, scale: Floats | None = None) -> TraceUplink:
        """The same traces, played by other lanes. See the attributes."""
        return replace(self, trace_of=trace_of, offset_s=offset_s, scale=scale)

    def bytes_until(self, lane: Ints, time_s: Floats) -> Floats:
        """Bytes that each lane's link carries from its trace's start to ``time_s`` on the lane's clock, ``[B]``."""
        return self._bytes_until(lane, time_s, self._span(lane))

    def _bytes_until(self, lane: Ints, time_s: Floats, span: Span) -> Floats:
        first, last, span_s, span_bytes = span
        loops, into_s = np.divmod(time_s + self.offset_s[lane], span_s)
        at = self.edge_s[first] + into_s
        row = np.minimum(np.maximum(np.searchsorted(self.edge_s, at, side="right") - 1, first), last - 1)
        into_bytes = self.edge_bytes[row] + (at - self.edge_s[row]) * self.rate[row] - self.edge_bytes[first]
        return self._scaled(loops * span_bytes + into_bytes, lane)

    def _scaled(self, values: Floats, lane: Ints) -> Floats:
        return values if self.scale is None else values * self.scale[lane]

    def bytes_between(self, lane: Ints, start_s: Floats, end_s: Floats) -> Floats:
        """Bytes that each lane's link carries from ``start_s`` to ``end_s``, ``[B]``."""
        return self.bytes_until(lane, end_s) - self.bytes_until(lane, start_s)

    def finish_s(self, lane: Ints, start_s: Floats, payload: Floats) -> Floats:
        """Earliest moment at which ``payload`` bytes have left, ``[B]``; NEVER_S on a link that carries nothing."""
        span = first, last, span_s, span_bytes = self._span(lane)
        target = self._bytes_until(lane, start_s, span) + (payload - SLIVER_BYTES)
        if self.scale is not None:
            target = target / self.scale[lane]
        alive = span_bytes > 0.0
        per_loop = np.where(alive, span_bytes, 1.0)
        loops = np.maximum(np.ceil(target / per_loop) - 1.0, 0.0)
        goal = self.edge_bytes[first] + (target - loops * span_bytes)
        # side="left" finds the earliest edge with that many bytes, so the bin before it carries some.
        row = np.minimum(np.maximum(np.searchsorted(self.edge_bytes, goal, side="left"), first + 1), last) - 1
        rate = self.rate[row]
        within = np.divide(goal - self.edge_bytes[row], rate, out=np.zeros_like(rate), where=rate > 0.0)
        finish = self.edge_s[row] - self.edge_s[first] + within + loops * span_s - self.offset_s[lane]
        return np.where(payload <= 0.0, start_s, np.maximum(np.where(alive, finish, NEVER_S), start_s))

    def rate_at(self, lane: Ints, time_s: Floats) -> Floats:
        """Bytes a second of each lane's link at that moment, ``[B]``."""
        first, last, span_s, _ = self._span(lane)
        at = self.edge_s[first] + np.mod(time_s + self.offset_s[lane], span_s)
        row = np.clip(np.searchsorted(self.edge_s, at, side="right") - 1, first, last - 1)
        return self._scaled(self.rate[row], lane)

    def _span(self, lane: Ints) -> Span:
        """First and last edge of each lane's trace, and its seconds and bytes."""
        trace = self.trace_of[lane]
        first, last = self.first[trace], self.last[trace]
        return first, last, self.edge_s[last] - self.edge_s[first], self.edge_bytes[last] - self.edge_bytes[first]
