import contextlib
import os
import struct
import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compression.tables import tables_of
from tests.memory import forget_peak, memory_mib
from tidesplit.compression.codec.errors import PayloadError
from tidesplit.compression.codec.knobs import CutSpec, Knobs
from tidesplit.compression.codec.payload import HEADER_BYTES, MAX_BYTES, body_bytes, pack_payload, unpack_payload

EXAMPLES = int(os.environ.get("TIDESPLIT_EXAMPLES", "200"))
CUT = CutSpec(partition=2, channels=4, height=2, width=3)
CUTS = {2: CUT}
TAG = 0xBEEF
TABLES = {(2, bits): tables_of(CUT, bits) for bits in (1, 2, 4)}


def payload_of(region=1.0, bits=2, ratio=1.0):
    knobs = Knobs(2, ratio, region, bits)
    shape = (CUT.kept_channels(ratio), CUT.height, CUT.width)
    codes = (np.arange(np.prod(shape)).reshape(shape) % 2**bits).astype(np.uint8)
    mask = np.ones(shape[1:], dtype=np.bool_)
    if region < 1.0:
        mask[:, 0] = mask[0, 1] = True
        mask[0, 2] = mask[1, 1] = mask[1, 2] = False
    return pack_payload(codes, mask, knobs, CUT, TAG), codes, mask, knobs


# Golden vectors: these bytes must decode to the same codes on every machine and in every later version.
GOLDEN = [
    (1.0, 1, 1.0, "a92cefbe", "aaaaaa"),
    (1.0, 2, 1.0, "a92defbe", "e4e4e4e4e4e4"),
    (0.5, 4, 0.5, "a826efbe", "0b106397"),
]


@pytest.mark.parametrize(("region", "bits", "ratio", "start", "body"), GOLDEN)
def test_golden_vectors(region, bits, ratio, start, body):
    payload, codes, mask, knobs = payload_of(region, bits, ratio)
    assert payload[:4].hex() == start
    assert payload[HEADER_BYTES:].hex() == body
    first = bytes.fromhex(start)
    assert payload[4:8] == struct.pack("<I", zlib.crc32(bytes.fromhex(body), zlib.crc32(first)))
    found, where, read = unpack_payload(payload, CUTS, TAG)
    assert read == knobs
    assert np.array_equal(where, mask)
    assert np.array_equal(found, codes * mask)


def test_map_of_positions_is_charged():
    assert body_bytes(CUT, Knobs(2, 1.0, 0.5, 8)) == 1 + 4 * 3
    assert body_bytes(CUT, Knobs(2, 1.0, 1.0, 8)) == 4 * 6


@given(st.integers(0, 200), st.integers(1, 255))
def test_every_flipped_byte_is_noticed(where, flip):
    payload = bytearray(payload_of()[0])
    payload[where % len(payload)] ^= flip
    with pytest.raises(PayloadError):
        unpack_payload(bytes(payload), CUTS, TAG)


def test_every_truncation_is_noticed():
    payload = payload_of(region=0.5)[0]
    for length in range(len(payload)):
        with pytest.raises(PayloadError):
            unpack_payload(payload[:length], CUTS, TAG)


@given(st.binary(max_size=80))
def test_foreign_bytes_are_refused(data):
    with pytest.raises(PayloadError):
        unpack_payload(data, CUTS, TAG)


def any_body():
    """A body behind a sound header and checksum, so that what reads it is reached; a few of them bombs."""
    second = st.sampled_from([0x2C, 0x2D, 0x2E, 0x2F, 0x22])
    body = st.binary(max_size=80) | st.sampled_from([bomb(1 << size) for size in (0, 4, 10, 20, 27)])
    return st.builds(forged, st.sampled_from([0xA8, 0xA9, 0xAA, 0xAB, 0xAC, 0xAD]), second, body)


def test_any_payload_is_read_or_refused_within_64_mib():
    """TIDESPLIT_EXAMPLES=100000 asks for more."""
    payloads = any_body() | st.binary(max_size=200)

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(payloads)
    def read(payload):
        forget_peak("self")  # each time: what Hypothesis remembers of 100,000 examples is not the codec's
        before = memory_mib("self", "VmRSS")
        with contextlib.suppress(PayloadError):
            unpack_payload(payload, CUTS, TAG, TABLES)
        assert memory_mib("self", "VmHWM") - before < 64.0

    read()


def forged(first, second, body, tag=TAG):
    start = struct.pack("<BBH", first, second, tag)
    return start + struct.pack("<I", zlib.crc32(body, zlib.crc32(start))) + body


def test_payload_of_other_weights_is_refused():
    with pytest.raises(PayloadError, match="weights"):
        unpack_payload(payload_of()[0], CUTS, TAG + 1)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\0" * (MAX_BYTES + 1), "bytes"),
        (forged(0xA9, 0x0D, b"123456"), "partition 0"),
        (forged(0xA9, 0x5D, b"123456"), "no partition 5"),
        (forged(0xA9, 0x2D, b"12345"), "expected 6 plain bytes"),
        (forged(0xAF, 0x2D, b"123456"), "relative to codes of partition 2, none are here"),
        (forged(0xAD, 0x2D, b"12345"), "no tables here for partition 2 at 2 bits"),
        (forged(0xA8, 0x2D, b"\xff123"), "map marks 8|map marks 6"),
        (forged(0xA8, 0x2D, b"\x3f123"), "map marks 6"),
        (forged(0xAB, 0x2D, b"no frame"), "zstd"),
    ],
)
def test_forged_headers_are_refused(payload, reason):
    with pytest.raises(PayloadError, match=reason):
        unpack_payload(payload, CUTS, TAG)


def bomb(size):
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, write_content_size=True, write_dict_id=False, format=zstandard.FORMAT_ZSTD1_MAGICLESS
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(b"\0" * size)


def test_decompression_bomb_is_refused_before_it_is_unpacked():
    frame = bomb(1 << 28)
    assert len(frame) < MAX_BYTES
    with pytest.raises(PayloadError, match="268435456"):
        unpack_payload(forged(0xAB, 0x2D, frame), CUTS, TAG)


def test_zstd_is_used_where_it_helps():
    cut = CutSpec(2, 40, 14, 14)
    codes, mask = np.zeros((40, 14, 14), dtype=np.uint8), np.ones((14, 14), dtype=np.bool_)
    payload = pack_payload(codes, mask, Knobs(2, 1.0, 1.0, 8), cut, TAG)
    assert len(payload) < 60
    assert np.array_equal(unpack_payload(payload, {2: cut}, TAG)[0], codes)


def test_wrong_shapes_are_the_callers_fault():
    knobs = Knobs(2, 1.0, 0.5, 2)
    with pytest.raises(ValueError, match="expected codes"):
        pack_payload(np.zeros((3, 2, 3), np.uint8), np.ones((2, 3), np.bool_), knobs, CUT, TAG)
    with pytest.raises(ValueError, match="mask keeps 6"):
        pack_payload(np.zeros((4, 2, 3), np.uint8), np.ones((2, 3), np.bool_), knobs, CUT, TAG)


# Golden vectors of the method with tables, which are those of `tests.compression.tables`
GOLDEN_TABLES = [
    (1.0, 2, 1.0, "ad2defbe", "00004400"),
    (1.0, 4, 1.0, "ad2eefbe", "000004400000"),
    (0.5, 4, 0.5, "ac26efbe", "072200"),
    (0.5, 4, 1.0, "ac2eefbe", "07000880"),
]


def skewed(region, bits, ratio):
    """Codes that follow the tables' orders but for a few, so that tables help."""
    knobs, tables = Knobs(2, ratio, region, bits), TABLES[2, bits]
    mask = np.ones((2, 3), dtype=np.bool_)
    if region < 1.0:
        mask[1] = False
    ranks = np.zeros((CUT.kept_channels(ratio), 2, 3), dtype=np.uint8)
    ranks[0, 0, 2] = 1
    codes = np.zeros_like(ranks)
    for y, x in np.argwhere(mask):
        grid = np.full((12, len(codes)), 2**bits)
        at = (y + 1) * 4 + x + 1
        if x:
            grid[at - 1] = codes[:, y, x - 1]
        if y:
            grid[at - 4] = codes[:, y - 1, x]
        rows = tables.rows(grid, np.array([at]))[0]
        codes[:, y, x] = tables.order.reshape(-1, 2**bits)[rows, ranks[:, y, x]]
    return codes, mask, knobs


@pytest.mark.parametrize(("region", "bits", "ratio", "start", "body"), GOLDEN_TABLES)
def test_golden_vectors_with_tables(region, bits, ratio, start, body):
    codes, mask, knobs = skewed(region, bits, ratio)
    payload = pack_payload(codes, mask, knobs, CUT, TAG, TABLES)
    assert payload[:4].hex() == start
    assert payload[HEADER_BYTES:].hex() == body
    found, where, read = unpack_payload(payload, CUTS, TAG, TABLES)
    assert read == knobs
    assert np.array_equal(where, mask)
    assert np.array_equal(found, codes)
    for length in range(len(payload)):
        with pytest.raises(PayloadError):
            unpack_payload(forged(payload[0], payload[1], payload[HEADER_BYTES:length]), CUTS, TAG, TABLES)
    with pytest.raises(PayloadError, match="bytes coded with tables received"):
        unpack_payload(forged(payload[0], payload[1], bytes(60000)), CUTS, TAG, TABLES)
    with pytest.raises(PayloadError, match="no tables here"):
        unpack_payload(payload, CUTS, TAG)
