"""Leaves points that send video out while the server says that it has no decoder for video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tidesplit.compression.codec.knobs import partition_of, sender, stream_of
from tidesplit.envs.world.observation import Observation

AGAIN_S = 600.0  # another server may be there by then, and finding out costs no more than the frames under way


@dataclass
class RefusedVideo:
    """`video` `[A]` is True for the points that send video."""

    video: NDArray[np.bool_]
    _until_s: float = field(default=-math.inf, init=False)

    @classmethod
    def of(cls, ids: Sequence[str]) -> RefusedVideo:
        """For a table with points of these ids."""
        return cls(np.array([bool(stream_of(name)) and partition_of(sender(name)) == 0 for name in ids], dtype=bool))

    def refused(self, now_s: float) -> None:
        """The server refused video."""
        self._until_s = now_s + AGAIN_S

    def left_out(self, observation: Observation, now_s: float) -> Observation:
        """The observation, whose mask now excludes video where it was refused. The last allowed point always stays."""
        if now_s >= self._until_s or not self.video.any():
            return observation
        mask = observation.mask & ~self.video
        return observation._replace(mask=np.where(mask.any(axis=1, keepdims=True), mask, observation.mask))
