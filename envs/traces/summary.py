"""Loaded traces in a few lines of text, and doubts about numbers that look like other units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidesplit.envs.traces.trace import Trace

FULL = 8  # traces that get a line each; more of them share one
FASTEST_MEAN_BPS = 1e9  # no mobile uplink is faster in the mean: 5G's best measured ones stay below 0.3 Gbit/s
LONGEST_STEP_S = 60.0  # a link that changes once a minute tells nothing about outages of seconds


def summed_up(traces: Sequence[Trace], link: str = "uplink") -> list[str]:
    """One line for each trace, or one line for all where there are many."""
    if len(traces) <= FULL:
        return [f"{link} {trace.name}: {_plain(trace.duration_s)} s, {_figures([trace])}" for trace in traces]
    total_s = sum(trace.duration_s for trace in traces)
    return [f"{link}: {len(traces)} traces, {_plain(total_s)} s together, {_figures(traces)}"]


def doubts(traces: Sequence[Trace]) -> list[str]:
    """A sentence for each kind of number that is implausible for a mobile uplink, with the traces that have it."""
    fast = [trace for trace in traces if trace.mean_bps > FASTEST_MEAN_BPS]
    slow = [trace for trace in traces if step_s(trace) > LONGEST_STEP_S]
    found = []
    if fast:
        value = f"a mean of {_plain(fast[0].mean_bps / 1e6)} Mbit/s"
        found.append(f"{_named(fast)}: {value} is implausible for a mobile uplink: bandwidth in Mbit/s expected")
    if slow:
        value = f"a median step of {_plain(step_s(slow[0]))} s"
        found.append(f"{_named(slow)}: {value} is implausible for a mobile uplink: time in seconds expected")
    return found


def step_s(trace: Trace) -> float:
    """Median length of a trace's bins, seconds."""
    return float(np.median(np.diff(trace.edges_s)))


def _figures(traces: Sequence[Trace]) -> str:
    duration_s = np.array([trace.duration_s for trace in traces])
    mean_bps = float(duration_s @ np.array([trace.mean_bps for trace in traces]) / duration_s.sum())
    most_bps = max(float(trace.bandwidth_bps.max()) for trace in traces)
    step = float(np.median([step_s(trace) for trace in traces]))
    return f"mean {_plain(mean_bps / 1e6)} Mbit/s, at most {_plain(most_bps / 1e6)} Mbit/s, steps of {_plain(step)} s"


def _plain(value: float) -> str:
    return f"{value:.4g}" if value < 1e4 else f"{value:.0f}"


def _named(traces: Sequence[Trace]) -> str:
    others = f" and {len(traces) - 1} more" if len(traces) > 1 else ""
    return f"trace {traces[0].name}{others}"
