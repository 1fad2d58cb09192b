"""Statistics of an uplink that a generated trace must share with the measured one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.traces.trace import Trace

BIN_S = 0.1  # the step of the measured traces
PERCENTILES = (5, 25, 50, 75, 95)
LAGS_S = (0.1, 1.0, 10.0)
LONG_OUTAGE_S = 2.0  # longer than any buffer of a live camera: counted apart from single empty bins


@dataclass(frozen=True)
class Statistics:
    """Statistics of the bandwidth in bins of `BIN_S`, in bits per second; shares are 0 to 1.

    `percentiles_bps` are at `PERCENTILES`, `autocorrelation` is at `LAGS_S`. Outages are long from `LONG_OUTAGE_S` on.
    """

    duration_s: float
    mean_bps: float
    percentiles_bps: tuple[float, ...]
    empty_share: float
    autocorrelation: tuple[float, ...]
    long_outages_per_hour: float
    long_outage_share: float


def measure(traces: Sequence[Trace]) -> Statistics:
    """Statistics of all bins of `traces` together. No pair of the autocorrelation spans two traces."""
    parts = [resample(trace, BIN_S) for trace in traces]
    pooled = np.concatenate(parts)
    outages = np.concatenate([lengths(part == 0) for part in parts]) * BIN_S
    long_s = outages[outages >= LONG_OUTAGE_S]
    duration_s = pooled.size * BIN_S
    return Statistics(
        duration_s=duration_s,
        mean_bps=float(pooled.mean()),
        percentiles_bps=tuple(float(value) for value in np.percentile(pooled, PERCENTILES)),
        empty_share=float((pooled == 0).mean()),
        autocorrelation=tuple(autocorrelation(parts, round(lag / BIN_S)) for lag in LAGS_S),
        long_outages_per_hour=long_s.size / duration_s * 3600,
        long_outage_share=float(long_s.sum() / duration_s),
    )


def resample(trace: Trace, step_s: float) -> NDArray[np.float64]:
    """Mean bandwidth of every full `step_s` in bits per second, shape `[floor(duration / step)]`, at least `[1]`."""
    edges_s = trace.edges_s
    bits = np.append(0.0, np.cumsum(trace.bandwidth_bps * np.diff(edges_s)))
    bins = max(1, int(trace.duration_s / step_s + 1e-6))
    grid_s = np.minimum(np.arange(bins + 1) * step_s, trace.duration_s)
    mean = np.diff(np.interp(grid_s, edges_s, bits)) / np.diff(grid_s)
    return np.where(mean < 1e-3, 0.0, mean)  # the difference of two sums is rarely an exact 0


def autocorrelation(
    parts: Sequence[NDArray[np.float64]], lag: int, kept: Sequence[NDArray[np.bool_]] | None = None
) -> float:
    """Correlation of samples `lag` steps apart, about the mean of all parts; NaN where it is not defined.

    With `kept`, one mask for each part, only samples with True count.
    """
    kept = [np.ones(part.size, dtype=bool) for part in parts] if kept is None else kept
    pooled = np.concatenate([part[keep] for part, keep in zip(parts, kept, strict=True)])
    mean, variance = float(pooled.mean()), float(pooled.var())
    products = [
        ((part[:-lag] - mean) * (part[lag:] - mean))[keep[:-lag] & keep[lag:]]
        for part, keep in zip(parts, kept, strict=True)
        if part.size > lag
    ]
    found = np.concatenate(products) if products else np.empty(0)
    return float(found.mean() / variance) if found.size and variance > 0 else float("nan")


def runs(flags: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and ends of the runs of True, in order: `[F, T, T, F, T]` gives `[1, 4]` and `[3, 5]`."""
    steps = np.diff(np.concatenate([[0], flags.astype(np.int64), [0]]))
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


def lengths(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of the runs of True, in order: `[F, T, T, F, T]` gives `[2, 1]`."""
    starts, ends = runs(flags)
    return np.asarray(ends - starts, dtype=np.int64)


def table(columns: dict[str, Statistics]) -> str:
    """Markdown table with one column for each named set of statistics."""
    rows = [("figure", *columns)]
    values = list(columns.values())
    rows.append(("length (s)", *(f"{value.duration_s:.0f}" for value in values)))
    rows.append(("mean (Mbit/s)", *(f"{value.mean_bps / 1e6:.2f}" for value in values)))
    for index, percent in enumerate(PERCENTILES):
        rows.append((f"{percent}th percentile (Mbit/s)", *(f"{v.percentiles_bps[index] / 1e6:.2f}" for v in values)))
    rows.append(("empty 100 ms bins", *(f"{value.empty_share:.1%}" for value in values)))
    for index, lag_s in enumerate(LAGS_S):
        rows.append((f"autocorrelation at {lag_s:g} s", *(f"{v.autocorrelation[index]:.2f}" for v in values)))
    rows.append(("outages of 2 s and more per hour", *(f"{value.long_outages_per_hour:.0f}" for value in values)))
    rows.append(("time in them", *(f"{value.long_outage_share:.1%}" for value in values)))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---|" + "---:|" * len(columns))
    return "\n".join(lines)
