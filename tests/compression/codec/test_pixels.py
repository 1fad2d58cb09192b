"""Decoding pictures of every mode. Known answers: a flat or stepped picture whose 8-bit values are plain."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from tidesplit.compression.codec.image_codec import UNREADABLE
from tidesplit.compression.codec.pixels import MAX_PIXELS, load_square, natural_picture, squash

STEPS = np.array([[0, 64], [128, 255]])  # of 8 bits, `[2, 2]`


def saved(image: Image.Image, format_: str) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format_)
    file.seek(0)
    return file


def test_a_picture_is_turned_upright_as_its_exif_says():
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x112] = 6  # the camera was turned: the picture's top is on its left
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, :4] = 255
    Image.fromarray(picture).save(file, "png", exif=exif)
    found = load_square(file, 8)
    assert (found[:4] == 255).all()
    assert (found[4:] == 0).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_of_8_bits_are_as_pillow_has_them(mode):
    image = Image.fromarray(natural_picture(40)).convert(mode)
    expected = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(load_square(saved(image, "png"), 16), expected)


@pytest.mark.parametrize(
    ("values", "format_"),
    [
        ((STEPS * 256 + 17).astype(np.uint16), "png"),
        ((STEPS * 256 + 17).astype(np.uint16), "tiff"),
        ((STEPS * 256 + 17).astype(">u2"), "tiff"),
        ((STEPS * 256 + 17).astype(np.int32), "tiff"),
        (((STEPS - 128) * 1000).astype(np.int32), "tiff"),
        ((STEPS / 255).astype(np.float32), "tiff"),
        (STEPS.astype(np.float32), "tiff"),
        ((STEPS * 70.0 - 900).astype(np.float32), "tiff"),
    ],
)
def test_grey_of_more_than_8_bits_is_scaled(values, format_):
    found = load_square(saved(Image.fromarray(values), format_), 2)
    assert np.abs(found.astype(int) - STEPS[..., None]).max() <= 1
    assert np.array_equal(found[..., 0], found[..., 2])


def test_a_dark_picture_of_16_bits_stays_dark():
    assert load_square(saved(Image.fromarray(np.full((2, 2), 300, np.uint16)), "png"), 2).max() == 1


@pytest.mark.parametrize(("alpha", "expected"), [(255, 40), (0, 255), (128, 147)])
def test_transparent_pictures_lie_on_white(alpha, expected):
    image = Image.new("RGBA", (2, 2), (40, 40, 40, alpha))
    assert np.abs(load_square(saved(image, "png"), 2).astype(int) - expected).max() <= 1
    grey = Image.new("LA", (2, 2), (40, alpha))
    assert np.abs(load_square(saved(grey, "png"), 2).astype(int) - expected).max() <= 1


def test_a_transparent_colour_of_a_palette_is_white():
    image = Image.new("P", (2, 2), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    file = io.BytesIO()
    image.save(file, "png", transparency=1)
    assert load_square(file, 2).min() == 255


def png_of(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [20_000, 12_000, 8_193])
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_a_header_that_promises_too_many_pixels_is_unreadable(side, action):
    with warnings.catch_warnings():
        warnings.simplefilter(action, Image.DecompressionBombWarning)
        assert side**2 > MAX_PIXELS
        with pytest.raises(UNREADABLE, match="pixels"):
            load_square(io.BytesIO(png_of(side, side)), 16)


def test_values_that_are_no_numbers_are_unreadable():
    image = Image.fromarray(np.full((2, 2), np.nan, np.float32))
    with pytest.raises(UNREADABLE, match="no numbers"):
        load_square(saved(image, "tiff"), 2)


@pytest.mark.parametrize("format_", ["jpeg", "png", "webp", "bmp", "gif", "tiff", "avif"])
def test_damaged_pictures_are_decoded_or_unreadable(format_):
    try:
        data = saved(Image.fromarray(natural_picture(24)), format_).getvalue()
    except (OSError, KeyError):
        pytest.skip(f"Pillow was built without {format_}")
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
        for at in rng.integers(0, min(len(damaged), 200), 3):
            damaged[at] = rng.integers(256)
        try:
            assert load_square(io.BytesIO(damaged), 16).shape == (16, 16, 3)
        except UNREADABLE:
            continue


@pytest.mark.parametrize("size", [(12, 8), (8, 12), (8, 8)])
def test_the_middle_of_a_picture(size: tuple[int, int]) -> None:
    """At the picture's own scale a crop is a slice, and "resize to 256, crop 224" is the same as its middle at once."""
    width, height = size
    pixels = natural_picture(12)[:height, :width]
    top, left = (height - 4) // 2, (width - 4) // 2
    assert np.array_equal(squash(Image.fromarray(pixels), 4, 0.5), pixels[top : top + 4, left : left + 4])
    large = Image.fromarray(natural_picture(400)[: 40 * height // 2, : 40 * width // 2])
    scale = 64 / min(large.size)
    smaller = large.resize((round(large.width * scale), round(large.height * scale)), Image.Resampling.BICUBIC)
    left, top = (smaller.width - 56) // 2, (smaller.height - 56) // 2
    twice = np.asarray(smaller.crop((left, top, left + 56, top + 56))).astype(int)
    assert np.abs(squash(large, 56, 56 / 64).astype(int) - twice).max() <= 2
