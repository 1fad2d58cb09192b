"""The device's knowledge at a frame's turn, in plain numbers. Arrays of one cost several times as much."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.envs.world.observation import Situation
from tidesplit.runtime.wire.estimator import Rows, transfers_of

__all__ = ["DeviceSituation"]


class DeviceSituation(NamedTuple):
    """The fields of `envs.world.observation.Situation` for one device.

    `messages` are the last ones on each hop, as many as its window has.
    """

    now_s: float
    waited_s: float
    messages: tuple[Rows, ...]
    slow_down: float
    last_point: int
    worker_s: float
    heat_c: float
    blocked: bool = False
    reference_age: list[float] | None = None
    motion: list[float] | None = None

    def as_lane(self) -> Situation:
        """The same as the simulator has it, for one lane."""
        transfers = tuple(map(transfers_of, self.messages))
        numbers = {name: None if value is None else np.array([value]) for name, value in self._asdict().items()}
        del numbers["messages"]
        return Situation(transfers=transfers, **numbers)  # type: ignore[arg-type]  # only the ages may be None
