import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.errors import PayloadError
from compression.image_codec import MAX_IMAGE_BYTES, decode_image, encode_image
from profiling.latency import natural_picture


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


def test_unknown_codec_is_the_callers_fault():
    with pytest.raises(ValueError, match="gif"):
        encode_image(natural_picture(32), "gif", 50)
