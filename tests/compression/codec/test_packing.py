import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidesplit.compression.codec.packing import pack, packed_size, unpack


@pytest.mark.parametrize(
    ("codes", "bits", "expected"),
    [
        ([1, 0, 1, 1, 0, 0, 0, 1], 1, b"\x8d"),
        ([1, 1, 1], 1, b"\x07"),
        ([3, 0, 1, 2], 2, b"\x93"),
        ([15, 1, 7], 4, b"\x1f\x07"),
        ([255, 0, 17], 8, b"\xff\x00\x11"),
        ([], 4, b""),
    ],
)
def test_known_answers(codes, bits, expected):
    packed = pack(np.array(codes, dtype=np.uint8), bits)
    assert packed == expected
    assert unpack(expected, len(codes), bits).tolist() == codes


@given(st.sampled_from([1, 2, 4, 8]), st.data())
def test_round_trip(bits, data):
    codes = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=70)), dtype=np.uint8)
    packed = pack(codes, bits)
    assert len(packed) == packed_size(len(codes), bits)
    assert np.array_equal(unpack(packed, len(codes), bits), codes)


def test_codes_too_large_are_refused():
    with pytest.raises(ValueError, match="does not fit"):
        pack(np.array([4], dtype=np.uint8), 2)


def test_wrong_length_is_refused():
    with pytest.raises(ValueError, match="got 3"):
        unpack(b"abc", 3, 4)
