"""The MultiDiscrete view of the actions, for those who bring their own agent: partition, channels, regions, bits."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.split_inference import SplitInference
from envs.vocabulary import Bools, Ints
from profiling.table import PointTable

KNOBS = ("partition", "channel_ratio", "region_ratio", "bits")


class MultiDiscretePoints(gymnasium.ActionWrapper[NDArray[Any], Ints, np.int64]):
    """Actions are four indices into the sorted distinct values of partition, channel ratio, region ratio and bits.

    ``levels`` holds those values. At partition 0 bits are the image codec's quality, on the device 0. A combination
    that is no point stands for the nearest point of its partition: the fewest levels away in all, ties to the earlier.
    Two points that share all four values (JPEG and WebP of one quality) have one name here, the earlier point's.
    """

    def __init__(self, env: gymnasium.Env[NDArray[Any], np.int64]) -> None:
        super().__init__(env)
        inner = env.unwrapped
        if not isinstance(inner, SplitInference):
            raise TypeError(f"got an environment of type {type(inner).__name__}, expected SplitInference")
        self.levels, self._combination, self._row = _lay_out(inner.scenario.table)
        self.action_space = spaces.MultiDiscrete([len(values) for values in self.levels])

    def action(self, action: Ints) -> np.int64:
        """Row of the operating point that the four indices ``[4]`` stand for."""
        row: np.int64 = self._row[tuple(int(index) for index in action)]
        return row

    def combination(self, row: int) -> Ints:
        """The four indices ``[4]`` that name the operating point in ``row``."""
        indices: Ints = self._combination[row]
        return indices

    def action_masks(self) -> Bools:
        """Which value of each knob some allowed point has, the four masks end to end (as sb3-contrib wants them)."""
        allowed: Bools = self.env.get_wrapper_attr("action_masks")()
        chosen = self._combination[allowed]
        return np.concatenate([np.isin(np.arange(len(v)), chosen[:, k]) for k, v in enumerate(self.levels)])


def _lay_out(table: PointTable) -> tuple[tuple[NDArray[Any], ...], Ints, Ints]:
    """Distinct values of each knob, indices of every point ``[A, 4]``, and the row for every combination."""
    columns = [getattr(table, knob) for knob in KNOBS]
    levels = tuple(np.unique(column) for column in columns)
    of_point = np.stack([np.searchsorted(v, c) for v, c in zip(levels, columns, strict=True)], axis=1)
    rows = np.empty([len(values) for values in levels], dtype=np.int64)
    for combination in itertools.product(*(range(len(values)) for values in levels)):
        away = np.abs(of_point - combination).sum(axis=1)
        elsewhere = of_point[:, 0] != combination[0]
        rows[combination] = np.argmin(np.where(elsewhere, np.iinfo(np.int64).max, away))
    return levels, of_point, rows
