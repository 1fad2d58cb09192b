"""Settings of operating points, sizes of their payloads, and identifiers of points:

    device-c0.50              the whole CNN on the device, at channel ratio 0.50
    device-c0.50-i8           the same with 8-bit integers instead of float32
    p0-jpeg-q75               a picture crosses: JPEG of quality 75
    p0-jpeg-q75-128px         the same, made smaller to 128 x 128 pixels before it crosses
    p3-c0.75-r1.00-b2         a cut at partition 3: channel ratio 0.75, region ratio 1.00, 2 bits a value
    p3-c0.75-r1.00-b2-i8      the same with a head of 8-bit integers
    p3-c0.75-r1.00-b2-s       the same as a stream: codes relative to the last ones sent at this partition
    p0-h264-q34               a stream of video: H.264 of constant rate factor 34
    A+device-c0.25-i8         a race: point A sends, and meanwhile the device runs this CNN
    A+finish                  a race: meanwhile the device runs the rest of point A's own CNN
    A>cloud                   three tiers: the middle server passes on what point A sends
    A>p5-c1.00-r1.00-b2       three tiers: the middle server cuts again, at partition 5

The functions of this module write and read all identifiers. It needs no NumPy and no torch, and belongs to the kernel
that runs on the device.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tidesplit.data.ratios import RATIOS

__all__ = [
    "BITS", "FINISH", "FLOAT32", "INT8", "PASSED_ON", "PRECISIONS", "RATIOS", "REGIONS", "VIDEO_CODECS", "CutSpec",
    "Knobs", "Precision", "all_knobs", "cut_id", "device_id", "image_id", "joined", "partition_of", "race_id",
    "read_knobs", "sender", "split", "split_race", "stream_of",
]  # fmt: skip

REGIONS = (0.5, 1.0)
BITS = (1, 2, 4, 8)
PASSED_ON = "cloud"
"""The second part of an identifier where the middle server passes the payload on unchanged."""
FINISH = "finish"
"""The second part of a race in which the device finishes the frame from its own head."""
Precision = Literal["float32", "int8"]
FLOAT32: Precision = "float32"
INT8: Precision = "int8"
PRECISIONS = (FLOAT32, INT8)
VIDEO_CODECS = ("h264",)
"""Codecs of partition 0 that code a picture relative to the last one sent."""
CUT = re.compile(r"p([1-9][0-9]?)-c([0-9]\.[0-9]{2})-r([0-9]\.[0-9]{2})-b([0-9])(-i8)?(-s)?")
PICTURE = re.compile(r"p0-([a-z][a-z0-9]*)-q[0-9]{1,3}(-[1-9][0-9]{1,3}px)?")


@dataclass(frozen=True)
class CutSpec:
    """Geometry of the grid sent at one partition: at most `channels` values at each of `height x width` positions."""

    partition: int
    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape `[Kmax, h, w]` of a tail's input."""
        return self.channels, self.height, self.width

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


def all_knobs(partitions: int, ratios: Sequence[float] = RATIOS, regions: Sequence[float] = REGIONS) -> list[Knobs]:
    """Every combination of settings at the inner cuts 1 to `partitions` - 1, at some ratios."""
    return [Knobs(p, c, r, b) for p in range(1, partitions) for c in ratios for r in regions for b in BITS]


def device_id(ratio: float, precision: Precision = FLOAT32) -> str:
    """Identifier of the whole CNN on the device."""
    return f"device-c{ratio:.2f}{_suffix(precision)}"


def cut_id(knobs: Knobs, precision: Precision = FLOAT32, stream: bool = False) -> str:
    """Identifier of a cut whose head has this precision. The server's tail does not depend on it.

    ``stream``: True where the codes are relative to the last ones sent.
    """
    return knobs.id + _suffix(precision) + ("-s" if stream else "")


def image_id(codec: str, quality: int, px: int | None = None) -> str:
    """Identifier of image or video offload. ``px``: side of the picture that crosses; None for the CNN's input size.

    ``quality``: of a video codec its constant rate factor, of which a higher one means fewer bytes.
    """
    return f"p0-{codec}-q{quality}" + ("" if px is None else f"-{px}px")


def race_id(sends: str, meanwhile: str) -> str:
    """Identifier of a race: the point that sends, and the device-only point or FINISH that runs meanwhile."""
    return f"{sends}+{meanwhile}"


def split_race(first: str) -> tuple[str, str]:
    """The sending point of the device's part of an identifier, and the run meanwhile. Without a race that is empty."""
    sends, _, meanwhile = first.partition("+")
    return sends, meanwhile


def sender(point_id: str) -> str:
    """The profile's point by which a frame leaves the device, or is answered there, without race and second hop."""
    return split_race(split(point_id)[0])[0]


def stream_of(point_id: str) -> str:
    """The stream in which a point sends, empty if it sends none.

    All points of one partition with memory share a stream, because their settings may change from frame to frame. Each
    setting of a video encoder is a stream of its own.
    """
    sends = sender(point_id)
    picture = PICTURE.fullmatch(sends)
    if picture is not None:
        return sends if picture[1] in VIDEO_CODECS else ""
    return sends.partition("-")[0] if sends.endswith("-s") else ""


def _suffix(precision: Precision) -> str:
    return "-i8" if precision == INT8 else ""


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
