import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compression.tables import EVEN, SKEWED
from tidesplit.compression.codec.errors import PayloadError
from tidesplit.compression.codec.huffman import LONGEST, Huffman, Reader, code_lengths

HUFFMAN = Huffman(np.array([EVEN, SKEWED], dtype=np.uint8))


def ints(values):
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([4, 2, 1, 1], [1, 2, 3, 3]), ([1, 1, 1, 1], [2, 2, 2, 2]), ([9, 1], [1, 1]), ([5, 5, 3, 3], [2, 2, 2, 2])],
)
def test_known_lengths(counts, expected):
    assert code_lengths(np.array(counts, dtype=np.float64)) == expected


def test_lengths_are_limited_and_complete():
    lengths = np.array(code_lengths(1.618 ** np.arange(40.0)))
    assert lengths.max() == LONGEST
    assert (2.0**-lengths).sum() == 1.0


@pytest.mark.parametrize(
    ("symbols", "tables", "expected"),
    [
        ([7, 255], [0, 0], "07ff"),
        ([0, 1, 2], [1, 1, 1], "404080"),  # 0, 10000000, 100000010
        ([0, 165], [1, 0], "5280"),
        ([], [], ""),
    ],
)
def test_known_codes(symbols, tables, expected):
    data = HUFFMAN.encode(np.array(symbols, dtype=np.uint8), ints(tables))
    assert data.hex() == expected
    reader = Reader(HUFFMAN, data)
    assert list(reader.read(ints(tables))) == symbols
    reader.finish()


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 1)), max_size=300), st.integers(0, 300))
def test_round_trip_in_two_parts(coded, cut):
    symbols, tables = (np.array(coded, dtype=np.uint8).reshape(-1, 2)).T
    data = HUFFMAN.encode(symbols, ints(tables))
    reader = Reader(HUFFMAN, data)
    assert reader.read(ints(tables[:cut])) + reader.read(ints(tables[cut:])) == symbols.tobytes()
    reader.finish()


@pytest.mark.parametrize(
    ("data", "reads"), [("4040", 3), ("404081", 3), ("40408000", 3), ("", 1), ("c0", 1), ("00", 0)]
)
def test_codes_that_end_early_or_late_are_refused(data, reads):
    reader = Reader(HUFFMAN, bytes.fromhex(data))

    def read_all():
        reader.read(ints([1] * reads))
        reader.finish()

    with pytest.raises(PayloadError, match="Huffman codes"):
        read_all()


@pytest.mark.parametrize("lengths", [[8] * 255 + [9], [0] + [8] * 255, [1] * 256, [14] * 256])
def test_lengths_of_no_complete_code_are_refused(lengths):
    with pytest.raises(ValueError, match="complete codes"):
        Huffman(np.array([lengths], dtype=np.uint8))
