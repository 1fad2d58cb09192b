"""A Markov-modulated uplink with outages: its parameters, and `generate`, which draws a trace from them.

In each step, hidden Markov chains with different memories and a memoryless part add up to one Gaussian latent value. A
chain keeps its value with probability exp(-step / memory) and otherwise draws a new one. So its autocorrelation is
exactly exp(-lag / memory).

The quantile function of the link turns the latent value into a bandwidth. Its lowest `empty_share` is zero, so short
gaps cluster in bad spells. Long outages are an on-off process that sets the bandwidth to zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.traces.trace import Trace

Array = NDArray[np.float64]

KNOTS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)  # ranks at which a model has the bandwidth of non-empty bins


@dataclass(frozen=True)
class LinkModel:
    """Parameters of a kind of uplink. A generated trace depends on these, its seed and its length only.

    Raises:
        ValueError: a number out of range.
    """

    name: str
    source: str  # origin of the numbers
    step_s: float  # length of a bin
    quantiles_bps: tuple[float, ...]  # bandwidth of the non-empty bins at `KNOTS`, rising
    empty_share: float  # share of bins without bandwidth, long outages left out
    memory_s: tuple[float, ...]  # memory of each chain, seconds
    weights: tuple[
        float, ...
    ]  # share of the latent variance of each chain, then of the memoryless part; their sum is 1
    outages_per_hour: float  # rate of long outages
    outage_mean_s: float  # mean length of a long outage; lengths are exponential above `outage_min_s`
    outage_min_s: float = 2.0

    def __post_init__(self) -> None:
        if len(self.quantiles_bps) != len(KNOTS) or (np.diff(self.quantiles_bps, prepend=0.0) < 0).any():
            raise ValueError(f"got quantiles_bps {self.quantiles_bps}, expected {len(KNOTS)} rising values, 0 or more")
        if len(self.weights) != len(self.memory_s) + 1 or not math.isclose(sum(self.weights), 1.0, abs_tol=1e-6):
            raise ValueError(f"got weights {self.weights}, expected {len(self.memory_s) + 1} that sum to 1")
        if min(self.weights) < 0 or not 0 <= self.empty_share < 1 or min(self.memory_s) <= 0 or self.step_s <= 0:
            raise ValueError("got a negative weight, memory or step, or an empty_share outside [0, 1)")
        if self.outages_per_hour < 0 or self.outage_mean_s < self.outage_min_s:
            raise ValueError(f"got outage_mean_s {self.outage_mean_s}, expected at least {self.outage_min_s}")

    def bandwidth(self, uniform: Array) -> Array:
        """Bandwidth in bits per second at ranks `uniform` from 0 to 1, any shape, without long outages."""
        rank = (uniform - self.empty_share) / (1 - self.empty_share)
        return np.where(rank < 0, 0.0, np.interp(rank, KNOTS, self.quantiles_bps))


def generate(model: LinkModel, duration_s: float, rng: np.random.Generator) -> Trace:
    """Draw a trace of `duration_s` seconds. The same state of `rng` gives the same trace."""
    steps = max(1, round(duration_s / model.step_s))
    latent = math.sqrt(model.weights[-1]) * rng.standard_normal(steps)
    for memory_s, weight in zip(model.memory_s, model.weights, strict=False):
        latent += math.sqrt(weight) * chain(steps, math.exp(-model.step_s / memory_s), rng)
    bandwidth_bps = model.bandwidth(normal_cdf(latent))
    bandwidth_bps[outages(model, steps, rng)] = 0.0
    time_s = np.round(np.arange(steps) * model.step_s, 9)
    return Trace(model.name, time_s, float(steps * model.step_s), bandwidth_bps)


def chain(steps: int, keep: float, rng: np.random.Generator) -> Array:
    """Standard normal values, shape `[steps]`. Each repeats the one before with probability `keep`."""
    renewed = rng.random(steps) >= keep
    values = rng.standard_normal(int(renewed.sum()) + 1)
    return np.asarray(values[np.cumsum(renewed)])


def outages(model: LinkModel, steps: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """True during long outages, shape `[steps]`. The gaps between outages are exponential, so they have no memory."""
    inside = np.zeros(steps, dtype=bool)
    if model.outages_per_hour == 0:
        return inside
    end_s, mean_gap_s = steps * model.step_s, 3600.0 / model.outages_per_hour
    moment_s = rng.exponential(mean_gap_s)
    while moment_s < end_s:
        length_s = model.outage_min_s + rng.exponential(model.outage_mean_s - model.outage_min_s)
        inside[round(moment_s / model.step_s) : round((moment_s + length_s) / model.step_s)] = True
        moment_s += length_s + rng.exponential(mean_gap_s)
    return inside


def normal_cdf(values: Array) -> Array:
    """Share of the standard normal below `values`, any shape. Interpolated with an error below 1e-6."""
    return np.asarray(np.interp(values, _CDF_AT, _CDF))


_CDF_AT = np.linspace(-7.0, 7.0, 14_001)
_CDF = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in _CDF_AT])
