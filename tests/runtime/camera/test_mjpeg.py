"""A stream is cut at its JPEGs, whatever their segments hold and however the bytes come."""

import io

import pytest
from PIL import Image

from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.runtime.camera.mjpeg import Cutter


def jpeg(seed=0, **options):
    file = io.BytesIO()
    Image.fromarray(natural_picture(48, seed)).save(file, "jpeg", **options)
    return file.getvalue()


def with_segment(data, payload, marker=0xE1):
    """The JPEG with a segment after its start."""
    return data[:2] + bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload + data[2:]


PLAIN = jpeg()
THUMBNAIL = with_segment(PLAIN, b"Exif\0\0" + jpeg(1, quality=5) + b"\0\0")
STARTS = with_segment(PLAIN, b"\xff\xd8\xff\xda\0\0" * 3 + b"x")
ENDS = with_segment(PLAIN, b"\xff\xd9" * 9, 0xFE)
FILLED = PLAIN[:2] + b"\xff\xff\xff" + PLAIN[2:]
PROGRESSIVE = jpeg(2, progressive=True)
RESTARTS = jpeg(3, restart_marker_blocks=2)
NESTED = with_segment(PLAIN, THUMBNAIL)
KINDS = [PLAIN, THUMBNAIL, STARTS, ENDS, FILLED, PROGRESSIVE, RESTARTS, NESTED]


def cut(data, size=1 << 16):
    cutter = Cutter()
    whole = [one for at in range(0, len(data), size) for one in cutter.feed(data[at : at + size])]
    return whole + cutter.close(), cutter.broken


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 1 << 16])
def test_every_kind_comes_whole_whatever_the_reads(size):
    assert cut(b"noise\xff" + b"--boundary\r\n".join(KINDS), size) == (KINDS, 0)


def test_the_kinds_are_what_they_are_called():
    assert all(b"\xff\xd9" in kind[:-2] for kind in (THUMBNAIL, ENDS, NESTED))
    assert b"\xff\xd0" in RESTARTS
    for kind in KINDS:
        with Image.open(io.BytesIO(kind)) as image:
            assert image.convert("RGB").size == (48, 48)


@pytest.mark.parametrize("kind", [PLAIN, PROGRESSIVE, RESTARTS], ids=["plain", "progressive", "restarts"])
def test_a_jpeg_cut_short_anywhere_takes_no_other_with_it(kind):
    for length in range(4, len(kind) - 1):
        whole, broken = cut(kind[:length] + PROGRESSIVE + THUMBNAIL)
        assert (whole, broken > 0) == ([PROGRESSIVE, THUMBNAIL], True), length


@pytest.mark.parametrize("wrong", [b"\0\0", b"\0\1", b"\0\x30", b"\x7f\xff", b"\xff\xff"])
def test_a_segment_with_a_wrong_length_takes_no_other_jpeg_with_it(wrong):
    at = PLAIN.index(b"\xff\xdb")
    damaged = PLAIN[: at + 2] + wrong + PLAIN[at + 4 :]
    whole, broken = cut(damaged + PROGRESSIVE * 30)
    assert whole == [PROGRESSIVE] * 30
    assert broken >= 1


def test_bytes_without_a_jpeg_are_counted_and_not_held():
    cutter = Cutter()
    assert cutter.feed(b"\0" * 100_000) == []
    assert cutter.waiting == 100_000
    assert len(cutter._held) < 3
    assert cutter.feed(PLAIN) == [PLAIN]
    assert cutter.waiting == 0
