import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tidesplit.compression.codec.errors import PayloadError
from tidesplit.compression.codec.image_codec import (
    MAX_IMAGE_BYTES,
    SMALLER_PX,
    decode_image,
    encode_image,
    seen_by_server,
)
from tidesplit.compression.codec.pixels import natural_picture


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_quality_trades_bytes_for_error(codec):
    pixels = natural_picture(64)
    found = []
    for quality in (10, 50, 90):
        payload = encode_image(pixels, codec, quality)
        found.append((len(payload), float(np.abs(decode_image(payload, 64).astype(int) - pixels).mean())))
    assert found == sorted(found)
    errors = [error for _, error in found]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_damage_is_a_typed_error_or_a_picture_of_the_right_size(codec):
    payload = encode_image(natural_picture(64), codec, 50)
    for length in range(0, len(payload), 7):
        try:
            assert decode_image(payload[:length], 64).shape == (64, 64, 3)
        except PayloadError:
            continue


@given(st.binary(max_size=100))
def test_foreign_bytes_are_refused(data):
    with pytest.raises(PayloadError):
        decode_image(data, 64)


def test_other_sizes_are_refused_from_the_header():
    with pytest.raises(PayloadError, match="32x32"):
        decode_image(encode_image(natural_picture(32), "webp", 50), 64)
    with pytest.raises(PayloadError, match="at most"):
        decode_image(b"\0" * (MAX_IMAGE_BYTES + 1), 64)


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
@pytest.mark.parametrize("px", SMALLER_PX)
def test_a_smaller_picture_has_fewer_bytes_and_is_scaled_up_for_the_tail(codec, px):
    pixels = natural_picture(224)
    whole, small = encode_image(pixels, codec, 50), encode_image(pixels, codec, 50, px)
    assert len(small) < len(whole)
    assert decode_image(small, px).shape == (px, px, 3)
    seen = seen_by_server(small, 224)
    expected = Image.fromarray(decode_image(small, px)).resize((224, 224), Image.Resampling.BICUBIC)
    assert np.array_equal(seen, np.asarray(expected))
    assert np.array_equal(seen_by_server(whole, 224), decode_image(whole, 224))


def test_the_server_takes_the_allowed_sizes_only():
    for px in (96, 224, 256):  # too small, the input of a larger CNN, too large
        with pytest.raises(PayloadError, match=f"{px}x{px} pixels, 192x192 or 160x160 or 128x128 or 112x112 expected"):
            seen_by_server(encode_image(natural_picture(px), "jpeg", 50), 192)
    with pytest.raises(PayloadError, match="112x112 pixels, 32x32 expected"):
        seen_by_server(encode_image(natural_picture(112), "jpeg", 50), 32)


def animation(width, height):
    """A WebP of 16x16 pixels that announces a canvas of other size."""
    data = io.BytesIO()
    frames = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (0, 200)]
    frames[0].save(data, "webp", save_all=True, append_images=frames[1:])
    made = bytearray(data.getvalue())
    made[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(made)


def plain(width, height):
    """A WebP whose frame's header announces another size."""
    made = bytearray(encode_image(natural_picture(16), "webp", 50))
    made[26:30] = struct.pack("<HH", width, height)
    return bytes(made)


def lossless(width, height):
    data = io.BytesIO()
    Image.fromarray(natural_picture(16)).save(data, "webp", lossless=True)
    made = bytearray(data.getvalue())
    made[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return bytes(made)


def jpeg(width, height):
    made = bytearray(encode_image(natural_picture(16), "jpeg", 50))
    at = made.index(b"\xff\xc0") + 5
    made[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(made)


@pytest.mark.parametrize("forge", [animation, plain, lossless, jpeg])
def test_a_header_that_promises_many_pixels_gets_no_memory(forge, monkeypatch):
    """Pillow allocates a WebP's whole canvas as it opens the file: up to 2 GiB for a few bytes."""
    if forge is not jpeg:
        monkeypatch.setattr(Image, "open", lambda *_args, **_more: pytest.fail("opened"))
    for size in ((16_383, 16_383), (10_000, 10_000), (16, 65)):
        with pytest.raises(PayloadError, match=f"{size[0]}x{size[1]} pixels|could be decompression bomb"):
            decode_image(forge(*size), 64)


def test_lossless_and_animated_pictures_are_read_too():
    assert decode_image(lossless(16, 16), 16).shape == (16, 16, 3)
    assert decode_image(animation(16, 16), 16).shape == (16, 16, 3)
    with pytest.raises(PayloadError, match="RIFF with b'WAVE'"):
        decode_image(b"RIFF\0\0\0\0WEBPWAVE", 16)


def test_unknown_codec_is_the_callers_fault():
    with pytest.raises(ValueError, match="gif"):
        encode_image(natural_picture(32), "gif", 50)
