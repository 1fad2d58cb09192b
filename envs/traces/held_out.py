"""Traces to train on, and traces kept back to judge by."""

from __future__ import annotations

import math

from tidesplit.envs.traces.trace import Trace

SHORTEST_S = 5.0  # a shorter part is too little to judge by: the whole trace is trained on
MANY = 5  # with this many traces, whole ones are kept back
MOST = 20  # traces kept back: rules that search take long


def held_out(traces: list[Trace], share: float, longest_s: float) -> tuple[list[Trace], list[Trace]]:
    """Traces to train on, and traces to judge by: whole ones where there are many, else the last part of each."""
    if share == 0.0:
        return traces, []
    if len(traces) >= MANY:
        every = max(2, round(1.0 / share), math.ceil(len(traces) / MOST))
        kept = range(every - 1, len(traces), every)
        return [t for i, t in enumerate(traces) if i not in kept], [shortened(traces[i], longest_s) for i in kept]
    seen, unseen = [], []
    for trace in traces:
        if trace.duration_s * share < SHORTEST_S:
            seen.append(trace)
        else:
            first, last = trace.split(1.0 - share)
            seen.append(first)
            unseen.append(shortened(last, longest_s))
    return seen, unseen


def shortened(trace: Trace, longest_s: float) -> Trace:
    """The first ``longest_s`` seconds of a trace."""
    return trace if trace.duration_s <= longest_s else trace.slice(0.0, longest_s)
