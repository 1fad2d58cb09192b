"""SYNTHETIC scenarios of a few seconds, and observations made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.profiles import synthetic_profile
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.fields import POINT_FIELDS, STATE_FIELDS
from tidesplit.envs.world.observation import Observation

STATE = {"deadline_s": 0.1, "period_s": 1 / 30, "goodput": 125_000.0, "slow_down": 1.0}


def steps(name: str, mbps: Sequence[float], step_s: float = 0.1) -> Trace:
    """A trace of these bandwidths, each for ``step_s``."""
    return Trace(name, np.arange(len(mbps)) * step_s, step_s * len(mbps), np.array(mbps, dtype=float) * 1e6)


BUMPY = steps("bumpy", [3, 5, 1, 0, 0, 0.3, 2, 8, 4, 1, 0.5, 0, 0, 0, 0, 2, 6, 3, 1, 2])
DEAD = steps("dead", [0.0] * 10)


def scenario(*traces: Trace, **options: Any) -> Scenario:
    """Whole traces on the synthetic profile."""
    return scenario_from(trace=list(traces) or [BUMPY], profile=synthetic_profile(), **options)


def seen(points: Mapping[str, Sequence[float]], mask: Sequence[bool] | None = None, **state: float) -> Observation:
    """The observation of one lane: these state values, and these values of the points, ``[A]`` each; the rest is 0."""
    size = len(next(iter(points.values())))
    told = {**STATE, **state}
    columns: NDArray[np.float32] = np.zeros((1, len(POINT_FIELDS), size), dtype=np.float32)
    for name, values in points.items():
        columns[0, POINT_FIELDS.index(name)] = values
    row = np.array([[told.get(name, 0.0) for name in STATE_FIELDS]], dtype=np.float32)
    return Observation(row, columns, np.array([[True] * size if mask is None else list(mask)]))
