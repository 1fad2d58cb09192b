"""`fit` finds the `LinkModel` whose traces share a measured uplink's quantiles, gaps, outages and autocorrelation.

Quantiles, gaps and outages are counted in the data. Memories and weights come from a grid search. It compares the
model's autocorrelation, which has a closed form (`model_autocorrelation`), with the measured one at `FIT_LAGS_S`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from tidesplit.envs.traces.figures import LONG_OUTAGE_S, autocorrelation, lengths, resample, runs
from tidesplit.envs.traces.model import KNOTS, Array, LinkModel, normal_cdf
from tidesplit.envs.traces.trace import Trace

FIT_LAGS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
MEMORIES_S = tuple(itertools.product((0.3, 0.6, 1.2), (2.0, 5.0, 10.0), (20.0, 60.0, 200.0)))
WEIGHT_STEP = 0.05
HERMITE_TERMS = 80  # more terms change the correlation by less than 1e-3


def fit(traces: Sequence[Trace], name: str, source: str, step_s: float) -> LinkModel:
    """Fit a model to all `traces` together, in steps of `step_s` seconds, which is the traces' own step or longer.

    Raises:
        ValueError: the traces have only outages.
    """
    parts = [resample(trace, step_s) for trace in traces]
    long_steps = round(LONG_OUTAGE_S / step_s)
    alive = [~long_runs(part == 0, long_steps) for part in parts]
    pooled = np.concatenate([part[keep] for part, keep in zip(parts, alive, strict=True)])
    if not (pooled > 0).any():
        raise ValueError(f"got no bandwidth above 0 in {len(parts)} traces, expected some to fit a model to")
    runs_s = np.concatenate([lengths(part == 0) for part in parts]) * step_s
    outage_s = runs_s[runs_s >= LONG_OUTAGE_S]
    quantiles_bps = tuple(float(value) for value in np.round(np.quantile(pooled[pooled > 0], KNOTS), -3))
    empty_share = round(float((pooled == 0).mean()), 4)
    lags = np.array([lag for lag in FIT_LAGS_S if lag > step_s - 1e-9])
    target = np.nan_to_num([autocorrelation(parts, round(lag / step_s), alive) for lag in lags])
    memory_s, weights = fit_memory(lags, target, hermite_powers(quantiles_bps, empty_share))
    hours = sum(part.size for part in parts) * step_s / 3600
    return LinkModel(
        name=name,
        source=source,
        step_s=step_s,
        quantiles_bps=quantiles_bps,
        empty_share=empty_share,
        memory_s=memory_s,
        weights=weights,
        outages_per_hour=round(outage_s.size / hours, 1),
        outage_mean_s=round(float(outage_s.mean()), 1) if outage_s.size else LONG_OUTAGE_S,
        outage_min_s=LONG_OUTAGE_S,
    )


def fit_memory(lags_s: Array, target: Array, powers: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Find the memories and weights of the grid whose autocorrelation is nearest `target` by least squares.

    There is one weight more than memories, for the memoryless part. `lags_s` and `target` have shape `[L]`.
    """
    ticks = round(1 / WEIGHT_STEP)
    grid = [combo for combo in itertools.product(range(ticks + 1), repeat=3) if sum(combo) <= ticks]
    weights = np.array([(*combo, ticks - sum(combo)) for combo in grid]) / ticks
    best: tuple[float, tuple[float, ...], tuple[float, ...]] = (np.inf, (), ())
    for memory_s in MEMORIES_S:
        error = ((model_autocorrelation(lags_s, memory_s, weights, powers) - target) ** 2).sum(axis=1)
        at = int(error.argmin())
        if error[at] < best[0]:
            best = (float(error[at]), memory_s, tuple(round(value, 4) for value in weights[at].tolist()))
    return best[1], best[2]


def model_autocorrelation(lags_s: Array, memory_s: Sequence[float], weights: Array, powers: Array) -> Array:
    """Autocorrelation of the model's bandwidth without its long outages, shape `[W, L]`.

    After a lag, each chain has either kept its value or drawn a new one. In each of these 2^C cases the two latent
    values are jointly normal, and their correlation is the weight of the kept chains. The result is the mean over all
    cases.

    Args:
        lags_s: lags in seconds, `[L]`.
        memory_s: memories of the C chains in seconds.
        weights: W sets of weights to evaluate, `[W, C + 1]`.
        powers: see `hermite_powers`.
    """
    keep = np.exp(-lags_s[None, :] / np.asarray(memory_s)[:, None])  # [C, L]
    total = np.zeros((weights.shape[0], lags_s.size))
    for case in itertools.product((False, True), repeat=len(memory_s)):
        kept = np.array(case)
        probability = np.where(kept[:, None], keep, 1 - keep).prod(axis=0)  # [L]
        total += bandwidth_correlation(weights[:, :-1] @ kept, powers)[:, None] * probability
    return total


def hermite_powers(quantiles_bps: tuple[float, ...], empty_share: float) -> Array:
    """Share of the bandwidth's variance in each Hermite polynomial of the latent value, shape `[HERMITE_TERMS]`."""
    latent = np.linspace(-7, 7, 14_001)
    density = np.exp(-(latent**2) / 2) / np.sqrt(2 * np.pi) * (latent[1] - latent[0])
    rank = (normal_cdf(latent) - empty_share) / (1 - empty_share)
    bandwidth = np.where(rank < 0, 0.0, np.interp(rank, KNOTS, quantiles_bps))
    previous, current = np.ones_like(latent), latent
    powers = []
    for order in range(1, HERMITE_TERMS + 1):
        powers.append(float((bandwidth * current * density).sum()) ** 2)
        previous, current = current, (latent * current - np.sqrt(order) * previous) / np.sqrt(order + 1)
    return np.array(powers) / sum(powers)


def bandwidth_correlation(latent_correlation: Array, powers: Array) -> Array:
    """Correlation of two bandwidths from the correlation of their latent values, any shape, by Mehler's formula."""
    return np.asarray((latent_correlation[..., None] ** np.arange(1, powers.size + 1)) @ powers)


def long_runs(flags: np.ndarray, at_least: int) -> np.ndarray:
    """True where `flags` is True for `at_least` or more steps in a row, shape `[N]`."""
    result = np.zeros(flags.size, dtype=bool)
    for start, end in zip(*runs(flags), strict=True):
        result[start:end] = end - start >= at_least
    return result
