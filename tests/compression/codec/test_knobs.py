"""Identifiers of operating points: written and read, as tables."""

from __future__ import annotations

import pytest

from tidesplit.compression.codec.knobs import (
    PASSED_ON,
    Knobs,
    all_knobs,
    device_id,
    image_id,
    joined,
    partition_of,
    read_knobs,
    split,
    stream_of,
)

WRITTEN = [
    (device_id(0.5), "device-c0.50"),
    (device_id(1.0), "device-c1.00"),
    (image_id("jpeg", 75), "p0-jpeg-q75"),
    (image_id("webp", 100), "p0-webp-q100"),
    (Knobs(3, 0.75, 1.0, 2).id, "p3-c0.75-r1.00-b2"),
    (Knobs(15, 0.25, 0.5, 8).id, "p15-c0.25-r0.50-b8"),
    (joined("p0-jpeg-q75", PASSED_ON), "p0-jpeg-q75>cloud"),
    (joined("p1-c0.50-r1.00-b2", "p5-c1.00-r1.00-b2"), "p1-c0.50-r1.00-b2>p5-c1.00-r1.00-b2"),
    (joined("device-c0.50", ""), "device-c0.50"),
]

PARTS = [
    ("device-c0.50", ("device-c0.50", "")),
    ("p0-jpeg-q75", ("p0-jpeg-q75", "")),
    ("p0-jpeg-q75>cloud", ("p0-jpeg-q75", "cloud")),
    ("p1-c0.50-r1.00-b2>p5-c1.00-r1.00-b2", ("p1-c0.50-r1.00-b2", "p5-c1.00-r1.00-b2")),
    ("raw>cut3-k5", ("raw", "cut3-k5")),  # names of other profiles
]

PARTITIONS = [("p0-jpeg-q75", 0), ("p0-webp-q100", 0), ("p3-c0.75-r1.00-b2", 3), ("p15-c0.25-r0.50-b8", 15)]

NO_CUT = [
    ("", "'' received, an inner cut such as p3-c0.75-r1.00-b2 expected"),
    ("cloud", "an inner cut such as"),
    ("device-c0.50", "an inner cut such as"),
    ("p0-c1.00-r1.00-b2", "an inner cut such as"),
    ("p03-c1.00-r1.00-b2", "an inner cut such as"),
    ("p3-c0.75-r1.00-b2>cloud", "an inner cut such as"),
    ("p3-c0.75-r1.00-b2 ", "an inner cut such as"),
    ("p٣-c0.75-r1.00-b2", "an inner cut such as"),
    ("p16-c1.00-r1.00-b2", "partition 16 is not in 1..15"),
    ("p3-c0.80-r1.00-b2", "ratio 0.8 is none of"),
    ("p3-c0.75-r0.25-b2", "region 0.25 is none of"),
    ("p3-c0.75-r1.00-b3", "bits 3 is none of"),
]


@pytest.mark.parametrize(("made", "text"), WRITTEN)
def test_identifiers_as_written(made: str, text: str) -> None:
    assert made == text


@pytest.mark.parametrize(("text", "parts"), PARTS)
def test_parts_of_an_identifier(text: str, parts: tuple[str, str]) -> None:
    assert split(text) == parts
    assert joined(*parts) == text


@pytest.mark.parametrize(("text", "partition"), PARTITIONS)
def test_partition_of_an_identifier(text: str, partition: int) -> None:
    assert partition_of(text) == partition


STREAMS = [
    ("p3-c0.75-r1.00-b2-s", "p3"),
    ("p3-c0.25-r1.00-b4-i8-s", "p3"),
    ("p3-c0.75-r1.00-b2-s+finish", "p3"),
    ("p0-h264-q34", "p0-h264-q34"),
    ("p0-h264-q34-160px+device-c0.25-i8", "p0-h264-q34-160px"),
    ("p3-c0.75-r1.00-b2", ""),
    ("p0-jpeg-q20-128px", ""),
    ("device-c0.50", ""),
]


@pytest.mark.parametrize(("text", "stream"), STREAMS)
def test_stream_of_an_identifier(text: str, stream: str) -> None:
    assert stream_of(text) == stream


def test_every_cut_is_read_as_written() -> None:
    assert all(read_knobs(knobs.id) == knobs for knobs in all_knobs(16))


@pytest.mark.parametrize(("text", "sentence"), NO_CUT)
def test_what_is_no_cut_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_knobs(text)
    with pytest.raises(ValueError, match=sentence):
        partition_of(text)
