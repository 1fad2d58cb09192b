import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compression.tables import tables_of
from tidesplit.compression.codec.errors import PayloadError
from tidesplit.compression.codec.knobs import CutSpec
from tidesplit.compression.codec.learned_entropy import CODED_BITS, CodeTables, context_count, named, parse

CUT = CutSpec(partition=2, channels=5, height=3, width=4)
ALL = {bits: tables_of(CUT, bits) for bits in CODED_BITS}


def test_contexts_are_pairs_or_the_sum():
    assert [context_count(bits) for bits in CODED_BITS] == [9, 25, 32]
    grid = np.full((20, 1), 16)
    grid[[6, 7, 11]] = [[3], [9], [15]]
    # Rows of the grid are 5 cells. 12 has 15 on its left and 9 above, 6 has no neighbour, 7 and 11 have only the 3
    assert ALL[4].rows(grid, np.array([12, 6, 7, 11])).ravel().tolist() == [24, 31, 6, 6]


# Golden vectors: these bytes must decode to the same codes on every machine and in every later version.
@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (1, "14890ac660b188e02c0c"),
        (2, "c9805800f4c08e404c40a9c05cf815600f4008"),
        (4, "bb20c07f35605c2cf80caf80362540015ed403fcd7c2dcd580b1b69860"),
    ],
)
def test_golden_vectors(bits, expected):
    codes, mask = (np.arange(60) ** 2 // 7 % 2**bits).astype(np.uint8).reshape(5, 3, 4), np.arange(12) % 5 != 1
    mask = mask.reshape(3, 4)
    assert ALL[bits].encode(codes, mask).hex() == expected
    assert np.array_equal(ALL[bits].decode(bytes.fromhex(expected), mask, 5), codes * mask)


def test_codes_along_their_orders_are_all_rank_zero():
    """Each code the likeliest of its context: every byte is a zero, which the skewed table codes with one bit."""
    tables = replace(
        ALL[2],
        uncertainty=np.full((5, 25), 6, dtype=np.uint8),  # 4 * 6 = 24 of 32 a bit: table 1, then only 6: table 0
        order=np.broadcast_to(np.array([2, 0, 1, 3], dtype=np.uint8), (5, 25, 4)),
    )
    codes, mask = np.full((5, 3, 4), 2, dtype=np.uint8), np.ones((3, 4), dtype=np.bool_)
    data = tables.encode(codes, mask)
    assert data == bytes(-(-12 * (1 + 8) // 8))
    assert np.array_equal(tables.decode(data, mask, 5), codes)


@given(st.sampled_from(CODED_BITS), st.integers(1, 5), st.data())
def test_round_trip(bits, channels, data):
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=channels * 12, max_size=channels * 12))
    sent = data.draw(st.lists(st.booleans(), min_size=12, max_size=12))
    mask = np.array(sent).reshape(3, 4)
    codes = np.array(codes, dtype=np.uint8).reshape(channels, 3, 4)
    coded = ALL[bits].encode(codes, mask)
    assert np.array_equal(ALL[bits].decode(coded, mask, channels), codes * mask)


@given(st.sampled_from(CODED_BITS), st.binary(max_size=70))
def test_any_bytes_are_read_or_refused(bits, data):
    with contextlib.suppress(PayloadError):
        codes = ALL[bits].decode(data, np.ones((3, 4), dtype=np.bool_), 5)
        assert codes.shape == (5, 3, 4)
        assert codes.max() < 2**bits


@pytest.mark.parametrize("bits", CODED_BITS)
def test_stored_tables_are_the_same(bits):
    stored = named({(2, bits): ALL[bits]})
    (found,) = parse(CodeTables, stored, {2: CUT}).values()
    assert stored.keys() == {f"p2-b{bits}"}
    assert found.to_bytes() == ALL[bits].to_bytes()
    codes, mask = (np.arange(60) % 2**bits).astype(np.uint8).reshape(5, 3, 4), np.ones((3, 4), dtype=np.bool_)
    assert found.encode(codes, mask) == ALL[bits].encode(codes, mask)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"order": np.zeros((5, 9, 2), dtype=np.uint8)}, "every code once"),
        ({"order": np.zeros((4, 9, 2), dtype=np.uint8)}, "order of shape"),
        ({"uncertainty": np.full((5, 9), 33, dtype=np.uint8)}, "33/32 bit"),
        ({"lengths": np.full((16, 256), 9, dtype=np.uint8)}, "complete codes"),
    ],
)
def test_unsound_tables_are_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        replace(ALL[1], **change)


def test_stored_tables_of_another_net_are_refused():
    with pytest.raises(ValueError, match=r"\['p3-b1'\] received"):
        parse(CodeTables, {"p3-b1": b""}, {2: CUT})
    with pytest.raises(ValueError, match="bytes expected, 3 received"):
        CodeTables.from_bytes(b"abc", CUT, 1)
