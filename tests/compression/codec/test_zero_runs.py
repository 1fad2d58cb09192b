import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidesplit.compression.codec.errors import PayloadError
from tidesplit.compression.codec.zero_runs import FLIPPED, LARGEST, FlagReader, FlagWriter, best_class, cost


def written(classes, flags):
    writer = FlagWriter()
    writer.flags(np.array(classes, dtype=np.uint8), np.array(flags, dtype=np.bool_))
    return writer.finish()


def read(data, classes):
    reader = FlagReader(data)
    flags = reader.flags(np.array(classes, dtype=np.uint8)).astype(int).tolist()
    reader.finish()
    return flags


# Golden vectors: these bits must be the same on every machine and in every later version.
@pytest.mark.parametrize(
    ("classes", "flags", "bits"),
    [
        ([], [], ""),
        ([0, 0, 0, 0], [1, 0, 0, 1], "1001"),
        ([2] * 9, [0] * 9, "000"),  # blocks of four; the last one reaches beyond the end
        ([2] * 9, [0, 0, 0, 1, 0, 0, 0, 0, 1], "111" + "0" + "100"),
        ([FLIPPED + 2] * 5, [1, 1, 0, 1, 1], "110" + "0"),
        ([3, 0, 3, 0], [0, 1, 1, 0], "10" + "1001"),  # size 0 first: 1, 0; then 0, 1 in a block of eight
        ([1, FLIPPED], [0, 1], "0" + "0"),
        ([LARGEST] * 4097, [0] * 4096 + [1], "0" + "1" + LARGEST * "0"),
    ],
)
def test_bits_of_known_flags(classes, flags, bits):
    size = -(-len(bits) // 8)
    expected = int(bits.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")
    assert written(classes, flags) == expected
    assert read(expected, classes) == flags


@given(st.lists(st.tuples(st.integers(0, LARGEST), st.booleans(), st.booleans()), max_size=80), st.integers(0, 7))
def test_round_trip_after_a_number(given, number):
    classes = np.array([size + FLIPPED * flip for size, flip, _ in given], dtype=np.uint8)
    flags = np.array([flag for *_, flag in given], dtype=np.bool_)
    writer = FlagWriter()
    writer.number(number, 3)
    writer.flags(classes, flags)
    writer.flags(classes, ~flags)
    reader = FlagReader(writer.finish())
    assert reader.number(3) == number
    assert np.array_equal(reader.flags(classes), flags)
    assert np.array_equal(reader.flags(classes), ~flags)
    reader.finish()


@pytest.mark.parametrize(
    ("data", "classes", "reason"),
    [
        ("", [0], "0 bytes of flags end before the last one"),
        ("ff", [0] * 9, "1 bytes of flags end before the last one"),
        ("ff", [7], "end before|a flag at 127 of 1"),
        ("f0", [2] * 3, "a flag at 3 of 3"),
        ("40", [0], "1 bytes of flags received, 1 and zeros"),
        ("0000", [0], "2 bytes of flags received, 1 and zeros"),
    ],
)
def test_bits_that_were_never_written(data, classes, reason):
    with pytest.raises(PayloadError, match=reason):
        read(bytes.fromhex(data), classes)


def test_a_number_after_the_end():
    with pytest.raises(PayloadError, match="end before"):
        FlagReader(b"").number(3)


@pytest.mark.parametrize("share", [0.0005, 0.003, 0.02, 0.07, 0.15, 0.25, 0.382, 0.5, 0.6, 0.85, 0.99])
def test_the_best_class_takes_at_most_five_percent_more_than_the_entropy(share):
    found = best_class(np.array([share]))
    entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    expected = float(cost(np.array([min(share, 1 - share)]), int(found[0]) % FLIPPED)[0])
    assert entropy <= expected < 1.05 * entropy
    flags = np.zeros(40_000, dtype=np.bool_)
    flags[: round(40_000 * share)] = True
    np.random.default_rng(0).shuffle(flags)
    taken = 8 * len(written(np.full(len(flags), found[0]), flags))
    assert taken == pytest.approx(expected * len(flags), rel=0.02, abs=8)


def test_flags_that_never_or_always_occur():
    assert best_class(np.array([0.0, 1.0])).tolist() == [LARGEST, FLIPPED + LARGEST]
