"""A MultiDiscrete view of the actions: cut, ratios, bits, and one of the points alike. For agents of your own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from tidesplit.envs.adapters.actions import rows_of, whole_numbers
from tidesplit.envs.adapters.split_inference import SplitInference
from tidesplit.envs.world.vocabulary import Bools, Ints
from tidesplit.profiling.points.table import PointTable

KNOBS = ("partition", "channel_ratio", "region_ratio", "bits")
ELSEWHERE = 10_000  # distance of another partition: more levels than all knobs have together


class MultiDiscretePoints(gymnasium.ActionWrapper[NDArray[Any], Ints, np.int64]):
    """Wraps `SplitInference`. An action has one index for each of K knobs, into the knob's sorted distinct values.

    The knobs are partition, channel ratio, region ratio and bits, and the same four for each further hop. There, the
    last partition means that nothing crosses the hop. At partition 0 the picture's quality takes the place of the bits;
    on the device they are 0. The last knob numbers the points that are alike in all this, in the table's order. They
    differ in precision, resolution, format, or the CNN that races.

    A combination without an operating point stands for the nearest point of the same partition. On further hops the
    partition is kept where possible. Distance is counted in levels, and the earlier of two equally near points wins.

    Attributes:
        levels: the distinct values of each knob.

    Raises:
        TypeError: the environment is no `SplitInference`.
    """

    def __init__(self, env: gymnasium.Env[NDArray[Any], np.int64]) -> None:
        super().__init__(env)
        inner = env.unwrapped
        if not isinstance(inner, SplitInference):
            raise TypeError(f"got an environment of type {type(inner).__name__}, expected SplitInference")
        self.levels, self._combination = _lay_out(inner.scenario.table)
        self.action_space = spaces.MultiDiscrete([len(values) for values in self.levels])

    def action(self, action: Ints) -> np.int64:
        """Row of the operating point for the indices ``[K]``.

        Raises:
            ValueError: not one index for each knob. The episode is then as it was.
        """
        away = np.abs(self._combination - whole_numbers(action, list(map(len, self.levels))))  # [A, K]
        far = away.sum(axis=1)
        elsewhere = away[:, : -1 : len(KNOBS)] > 0  # [A, H]
        # Another partition is farther than all other knobs together. On an earlier hop it is farther still.
        for power, on_hop in enumerate(reversed(elsewhere.T), start=1):
            far = far + ELSEWHERE**power * on_hop
        return np.int64(far.argmin())

    def combination(self, row: int) -> Ints:
        """The indices ``[K]`` of the operating point in ``row``."""
        (checked,) = rows_of(row, 1, len(self._combination))
        indices: Ints = self._combination[checked]
        return indices

    def action_masks(self) -> Bools:
        """True for each knob's values that an allowed point has, one knob after the other, as sb3-contrib expects."""
        allowed: Bools = self.env.get_wrapper_attr("action_masks")()
        chosen = self._combination[allowed]
        return np.concatenate([np.isin(np.arange(len(v)), chosen[:, k]) for k, v in enumerate(self.levels)])


def _lay_out(table: PointTable) -> tuple[tuple[NDArray[Any], ...], Ints]:
    """Distinct values of each knob, and the indices of every point, ``[A, K]``."""
    columns = [c for hop in table.hops for c in (hop.partition, hop.channel_ratio, hop.region_ratio, hop.bits)]
    columns.append(_number_among_alike(np.stack(columns, axis=1)))
    levels = tuple(np.unique(column) for column in columns)
    return levels, np.stack([np.searchsorted(v, c) for v, c in zip(levels, columns, strict=True)], axis=1)


def _number_among_alike(values: NDArray[Any]) -> Ints:
    """Number of each row of ``values``, ``[A, K]``, among the rows equal to it, ``[A]``."""
    seen: Counter[bytes] = Counter()
    numbers = []
    for row in values:
        numbers.append(seen[row.tobytes()])
        seen[row.tobytes()] += 1
    return np.array(numbers)
