"""What a decision sets: partition, channel ratio, region ratio, bits; and the geometry of what then crosses.

Numpy-free and torch-free: the edge device imports it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tidesplit.data.ratios import RATIOS

__all__ = ["BITS", "RATIOS", "REGIONS", "CutSpec", "Knobs", "all_knobs", "device_id", "image_id"]

REGIONS = (0.5, 1.0)
BITS = (1, 2, 4, 8)


@dataclass(frozen=True)
class CutSpec:
    """Geometry of the wire grid of one partition: at most `channels` values at each of `height x width` positions."""

    partition: int
    channels: int
    height: int
    width: int

    @property
    def positions(self) -> int:
        """Positions of the grid."""
        return self.height * self.width

    def kept_channels(self, ratio: float) -> int:
        """Channels that cross at a channel ratio."""
        return math.ceil(self.channels * ratio)

    def kept_positions(self, region: float) -> int:
        """Positions that cross at a region ratio."""
        return math.ceil(self.positions * region)


@dataclass(frozen=True, order=True)
class Knobs:
    """One operating point behind an inner cut."""

    partition: int
    ratio: float
    region: float
    bits: int

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("ratio", self.ratio, RATIOS),
            ("region", self.region, REGIONS),
            ("bits", self.bits, BITS),
        ):
            if value not in allowed:
                raise ValueError(f"{name} {value} is none of {allowed}")
        if not 1 <= self.partition <= 15:
            raise ValueError(f"partition {self.partition} is not in 1..15")

    @property
    def id(self) -> str:
        """Identifier in the profile, e.g. `p3-c0.50-r1.00-b2`."""
        return f"p{self.partition}-c{self.ratio:.2f}-r{self.region:.2f}-b{self.bits}"


def all_knobs(partitions: int) -> list[Knobs]:
    """Every combination behind the inner cuts 1 to `partitions` - 1."""
    return [Knobs(p, c, r, b) for p in range(1, partitions) for c in RATIOS for r in REGIONS for b in BITS]


def device_id(ratio: float) -> str:
    """Identifier of the whole CNN on the device."""
    return f"device-c{ratio:.2f}"


def image_id(codec: str, quality: int) -> str:
    """Identifier of image offload."""
    return f"p0-{codec}-q{quality}"
