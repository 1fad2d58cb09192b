"""Settings of operating points, sizes of their payloads, and identifiers of points:

    device-c0.50              the whole CNN on the device, at channel ratio 0.50
    p0-jpeg-q75               a picture crosses: JPEG of quality 75
    p3-c0.75-r1.00-b2         a cut at partition 3: channel ratio 0.75, region ratio 1.00, 2 bits a value
    A>cloud                   three tiers: the middle server passes on what point A sends
    A>p5-c1.00-r1.00-b2       three tiers: the middle server cuts again, at partition 5

The functions of this module write and read all identifiers. It needs no NumPy and no torch, and belongs to the kernel
that runs on the device.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from tidesplit.data.ratios import RATIOS

__all__ = [
    "BITS", "PASSED_ON", "RATIOS", "REGIONS", "CutSpec", "Knobs", "all_knobs", "device_id", "image_id", "joined",
    "partition_of", "read_knobs", "split",
]  # fmt: skip

REGIONS = (0.5, 1.0)
BITS = (1, 2, 4, 8)
PASSED_ON = "cloud"
"""The second part of an identifier where the middle server passes the payload on unchanged."""
CUT = re.compile(r"p([1-9][0-9]?)-c([0-9]\.[0-9]{2})-r([0-9]\.[0-9]{2})-b([0-9])")
PICTURE = re.compile(r"p0-[a-z]+-q[0-9]{1,3}")


@dataclass(frozen=True)
class CutSpec:
    """Geometry of the grid sent at one partition: at most `channels` values at each of `height x width` positions."""

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
    """The settings of one operating point at an inner cut."""

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
    """Every combination of settings at the inner cuts 1 to `partitions` - 1."""
    return [Knobs(p, c, r, b) for p in range(1, partitions) for c in RATIOS for r in REGIONS for b in BITS]


def device_id(ratio: float) -> str:
    """Identifier of the whole CNN on the device."""
    return f"device-c{ratio:.2f}"


def image_id(codec: str, quality: int) -> str:
    """Identifier of image offload."""
    return f"p0-{codec}-q{quality}"


def joined(first: str, second: str) -> str:
    """Identifier of a point of three tiers; `first` itself where `second` is empty."""
    return f"{first}>{second}" if second else first


def split(point_id: str) -> tuple[str, str]:
    """The device's part of an identifier and the middle server's. The second is empty in two tiers."""
    first, _, second = point_id.partition(">")
    return first, second


def partition_of(first: str) -> int:
    """The partition at which a point's payload leaves the device; 0 for a picture.

    Raises:
        ValueError: the identifier is neither a picture's nor a cut's.
    """
    return 0 if PICTURE.fullmatch(first) else read_knobs(first).partition


def read_knobs(text: str) -> Knobs:
    """The settings that the identifier of a cut stands for.

    Raises:
        ValueError: the text is no such identifier, or has a setting that does not exist.
    """
    found = CUT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} received, an inner cut such as p3-c0.75-r1.00-b2 expected")
    return Knobs(int(found[1]), float(found[2]), float(found[3]), int(found[4]))
