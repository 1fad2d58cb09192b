"""A controller that always uses one operating point, for users who trust a static choice more than a policy."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np

from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Ints
from tidesplit.profiling.points.table import PointTable


@dataclass(frozen=True)
class FixedPoint:
    """The same row for every frame. Where it is not allowed, as while the link is broken: the nearest in device time.

    This is what the rule "best static point" of the ladder does in the simulator.
    """

    name: str
    row: int

    def predict(self, observation: Observation) -> Ints:
        """The row ``[B]``, or its substitutes."""
        mask, head_s = observation.mask, observation.foreseen.head_s
        away = np.where(mask, np.abs(head_s - head_s[:, [self.row]]), np.inf)
        return np.where(mask[:, self.row], self.row, away.argmin(axis=1))


def fixed_point(table: PointTable, point: str) -> FixedPoint:
    """The controller of the operating point with this identifier.

    Raises:
        ValueError: the table has no such point. The sentence names similar ones.
    """
    if point not in table.ids:
        near = difflib.get_close_matches(point, table.ids, n=5, cutoff=0.3) or table.ids[:5]
        raise ValueError(
            f"--point {point}: the bundle has no such operating point; of its {table.size} these are alike: "
            f"{', '.join(near)}"
        )
    return FixedPoint(point, table.ids.index(point))
