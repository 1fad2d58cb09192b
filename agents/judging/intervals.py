"""Bootstrap intervals for comparisons: interquartile means, and differences on the same courses of events.

The method is that of Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS
2021. A matrix ``[T, S]`` holds one number for each trace and seed. Intervals are 95 % percentile intervals over both.
Traces are drawn with replacement, then seeds within each drawn trace, since the seeds of one trace are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tidesplit.agents.judging.contest import Result
from tidesplit.envs.world.vocabulary import Floats

DRAWS = 2_000
TRIM = 0.25  # share of the values that is cut off at either end


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


class Standing(NamedTuple):
    """One controller over all traces and seeds.

    ``utility``: interquartile mean. ``difference``: mean difference to the rival on the same traces and seeds.
    ``by_trace``: mean difference over the seeds, by trace.
    """

    utility: Estimate
    difference: Estimate
    by_trace: dict[str, float]

    @property
    def better_on(self) -> int:
        """Number of traces on which the controller beats the rival."""
        return sum(value > 0.0 for value in self.by_trace.values())


def standings(
    results: Sequence[Result], rival: str, rng: np.random.Generator, draws: int = DRAWS
) -> dict[str, Standing]:
    """Compare every controller with the one called ``rival``.

    ``results``: one for each seed, of the same controllers and traces. All controllers share the bootstrap samples.
    """
    played = utilities(results)
    traces = list(results[0].bounds)
    chosen = drawn(len(traces), len(results), rng, draws)
    found: dict[str, Standing] = {}
    for name, of in played.items():
        ahead = of - played[rival]
        by_trace = dict(zip(traces, ahead.mean(axis=1).tolist(), strict=True))
        found[name] = Standing(estimate(of, chosen, interquartile_mean), estimate(ahead, chosen, _mean), by_trace)
    return found


def utilities(results: Sequence[Result]) -> dict[str, Floats]:
    """Mean utility of each controller in each episode, ``[T, S]``."""
    listed = [{(row.controller, row.trace): row.utility for row in result.rows} for result in results]
    names = dict.fromkeys(row.controller for row in results[0].rows)
    traces = list(results[0].bounds)
    return {name: np.array([[of[name, trace] for of in listed] for trace in traces]) for name in names}


def drawn(traces: int, seeds: int, rng: np.random.Generator, draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray]:
    """Row and column indices of bootstrap samples of a matrix ``[traces, seeds]``, ``[draws, traces, seeds]`` each."""
    rows = rng.integers(traces, size=(draws, traces, 1))
    return np.repeat(rows, seeds, axis=2), rng.integers(seeds, size=(draws, traces, seeds))


def estimate(values: Floats, chosen: tuple[np.ndarray, np.ndarray], statistic: Callable[[Floats], Floats]) -> Estimate:
    """A statistic of ``values``, ``[T, S]``, and its interval over the samples ``chosen`` by `drawn`.

    ``statistic`` maps samples ``[N, T * S]`` to ``[N]``.
    """
    samples = statistic(values[chosen].reshape(len(chosen[0]), -1))
    low, high = np.percentile(samples, [2.5, 97.5])
    return Estimate(float(statistic(values.reshape(1, -1))[0]), float(low), float(high))


def interquartile_mean(values: Floats) -> Floats:
    """Mean of each row's middle half, from ``[N, K]`` to ``[N]``, without K / 4 values (rounded down) at each end."""
    cut = int(TRIM * values.shape[1])
    return _mean(np.sort(values, axis=1)[:, cut : values.shape[1] - cut])


def _mean(values: Floats) -> Floats:
    return np.asarray(values.mean(axis=1))


def as_json(found: Mapping[str, Standing]) -> dict[str, dict[str, object]]:
    """The comparison as JSON values, for a results file."""
    return {
        name: {
            "utility_iqm": one.utility._asdict(),
            "difference": one.difference._asdict(),
            "difference_by_trace": one.by_trace,
        }
        for name, one in found.items()
    }
