"""The deployed models by name, and those that an operating point needs.

    device-c0.50       picture to logits: the whole CNN, at channel ratio 0.50
    head-p2-c0.75      picture to the feature at partition 2, the values to send, and the attention score
    finish-p2-c0.75    that feature to logits, on the device
    tail-p2            received values to logits; `tail-p0` takes a picture
    middle-p2-p4       received values to the outputs of a later head; `middle-p0-p4` takes a picture

A device's models of 8-bit integers end in `-i8`. Their inputs and outputs are float32 too.

Heads, finishes and whole nets of one ratio and precision are chains of the same files:

    part-0-2-c0.75     picture to the feature at partition 2
    part-2-6-c0.75     that feature to logits, 6 being the last partition
    encoder-p2-c0.75   that feature to the values to send, and the attention score
"""

from __future__ import annotations

from collections.abc import Iterable

from tidesplit.compression.codec.knobs import (
    FINISH,
    FLOAT32,
    INT8,
    Knobs,
    Precision,
    device_id,
    sender,
    split,
    split_race,
)
from tidesplit.profiling.points.profile import OperatingPoint, Profile


def head_name(partition: int, ratio: float, precision: Precision = FLOAT32) -> str:
    """Model from a picture to a cut. The model of a whole CNN is named as its point, by `device_id`."""
    return f"head-p{partition}-c{ratio:.2f}{_suffix(precision)}"


def finish_name(partition: int, ratio: float, precision: Precision = FLOAT32) -> str:
    """Model from a head's feature to logits, on the device."""
    return f"finish-p{partition}-c{ratio:.2f}{_suffix(precision)}"


def tail_name(partition: int) -> str:
    """Model from a partition to logits, on a server."""
    return f"tail-p{partition}"


def middle_name(first: int, second: int) -> str:
    """Model from a partition to a later one, on the middle server."""
    return f"middle-p{first}-p{second}"


def part_name(first: int, last: int, ratio: float, precision: Precision = FLOAT32) -> str:
    """File of a device's models from one partition to a later one."""
    return f"part-{first}-{last}-c{ratio:.2f}{_suffix(precision)}"


def encoder_name(partition: int, ratio: float, precision: Precision = FLOAT32) -> str:
    """File of a device's models from a feature to what is sent."""
    return f"encoder-p{partition}-c{ratio:.2f}{_suffix(precision)}"


def _suffix(precision: Precision) -> str:
    return "-i8" if precision == INT8 else ""


def first_model(point: OperatingPoint) -> str | None:
    """The model that runs before anything is sent; None for image offload."""
    if point.codec == "none":
        return device_id(point.channel_ratio, point.precision)
    return None if point.partition == 0 else head_name(point.partition, point.channel_ratio, point.precision)


def finish_model(point: OperatingPoint) -> str | None:
    """The model that finishes a frame without an answer. After image offload it is the whole net of the fallback."""
    if point.codec == "none" or point.fallback is None:
        return None
    if point.partition == 0:
        return point.fallback
    return finish_name(point.partition, point.channel_ratio, point.precision)


def points_of(profile: Profile, ids: Iterable[str]) -> tuple[OperatingPoint, ...]:
    """The points that a device runs for these identifiers, each once: those that send, and the nets of races."""
    parts = (part for point_id in ids for part in (sender(point_id), raced_net(point_id)) if part)
    return tuple(profile.point(part) for part in dict.fromkeys(parts))


def raced_net(point_id: str) -> str:
    """The whole net that runs while a point's bytes are away; empty if there is none."""
    meanwhile = split_race(split(point_id)[0])[1]
    return "" if meanwhile == FINISH else meanwhile


def knobs_of(point: OperatingPoint) -> Knobs:
    """The settings of a point at an inner cut."""
    return Knobs(point.partition, point.channel_ratio, point.region_ratio, point.bits)
