import contextlib
import os
import struct
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compression.tables import change_tables_of, tables_of
from tests.memory import forget_peak, memory_mib
from tidesplit.compression.codec.errors import PayloadError, ReferenceUnknownError
from tidesplit.compression.codec.knobs import BITS, RATIOS, CutSpec, Knobs
from tidesplit.compression.codec.learned_entropy import CODED_BITS
from tidesplit.compression.codec.memory import ChangeTables, CutMemory, rate_of
from tidesplit.compression.codec.wire import MARGINS, WireCodec

EXAMPLES = int(os.environ.get("TIDESPLIT_EXAMPLES", "3000"))
CUT = CutSpec(partition=2, channels=8, height=3, width=4)
TAG = 0xBEEF


def codec_of(cut, tag=TAG):
    """Levels of all bit widths over -1 to 1; those of the channels differ a little."""
    tops = np.array([2**b - 1 for b in BITS], dtype=np.float32)[:, None]
    wide = np.linspace(0.9, 1.1, cut.channels, dtype=np.float32)[None]
    return WireCodec(
        cuts={cut.partition: cut},
        low={cut.partition: np.repeat(-wide, len(BITS), axis=0)},
        step={cut.partition: 2 * wide / tops},
        tag=tag,
        tables={(cut.partition, bits): tables_of(cut, bits) for bits in CODED_BITS},
        changes={(cut.partition, bits): change_tables_of(cut, bits) for bits in CODED_BITS},
    )


CODEC = codec_of(CUT)
SCORE = np.zeros((CUT.height, CUT.width), dtype=np.float32)


def values(seed, ratio=1.0, cut=CUT):
    shape = (cut.kept_channels(ratio), cut.height, cut.width)
    return np.random.default_rng(seed).uniform(-1.2, 1.2, shape).astype(np.float32)


def knobs_of(bits=2, ratio=1.0, region=1.0):
    return Knobs(2, ratio, region, bits)


def relative(payload):
    return payload[0] >> 1 & 3 == 3


def sealed(first, second, body, check, codec=CODEC):
    tables = codec.changes.get((2, BITS[second & 3]))
    start = struct.pack("<BBH", first, second, TAG ^ (tables.tag if tables else 0))
    return start + struct.pack("<I", zlib.crc32(body, zlib.crc32(start, check))) + body


def same(one, other):
    return (one.partition, one.bits, one.check) == (other.partition, other.bits, other.check) and np.array_equal(
        one.codes, other.codes
    )


# Golden vectors: these bytes must decode to the same codes on every machine and in every later version.
@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (1, "ea75491f2558f1111113111100"),
        (2, "ea75491d893c4444444a11846371c4670aa080"),
        (4, "ea752e4ee12a22622361184a08608206963085ff642108c2aaaa22082080c9249240f601282280"),
    ],
)
def test_golden_vectors(bits, expected):
    old = (np.arange(96) ** 2 // 7 % 2**bits).astype(np.uint8).reshape(8, 3, 4)
    new = old.copy()
    new.ravel()[[0, 1, 5, 12, 13, 40, 41, 60, 61, 95]] = [0, 1, 0, 1, 0, 1, 1, 0, 0, 1]
    new[:, 1, 2] = 2**bits - 1 - new[:, 1, 2]
    tables = CODEC.changes[2, bits]
    assert tables.encode(old, new).hex() == expected
    assert np.array_equal(tables.decode(bytes.fromhex(expected), old), new)


def test_golden_payload():
    y = values(0)
    first, memory = CODEC.encode_next(y, SCORE, knobs_of(), None)
    assert not relative(first)
    assert first == CODEC.encode(y, SCORE, knobs_of())
    y[3, 1, 2] += 0.7
    payload, after = CODEC.encode_next(y, SCORE, knobs_of(), memory)
    assert (payload.hex(), memory.check) == ("af2db76a896bcbdf7555d52c4900", 338291638)
    found, read, received = CODEC.decode_next(payload, memory)
    assert read == knobs_of()
    assert same(after, received)
    assert np.argwhere(found != CODEC.decode(first)[0]).tolist() == [[3, 1, 2]]


def test_a_still_frame_takes_nine_bytes():
    cut = CutSpec(2, 48, 14, 14)
    tables = still_tables(cut)
    codes = np.random.default_rng(0).integers(0, 4, (48, 14, 14)).astype(np.uint8)
    data = tables.encode(codes, codes)
    assert len(data) == 1
    assert np.array_equal(tables.decode(data, codes), codes)


def still_tables(cut, bits=2):
    """Long runs everywhere."""
    tables = change_tables_of(cut, bits)
    return replace(tables, **{name: np.full_like(getattr(tables, name), 12) for name in tables.names()[1:]})


@settings(deadline=None)
@given(st.sampled_from(CODED_BITS), st.sampled_from(RATIOS), st.data())
def test_changes_round_trip(bits, ratio, data):
    count = CUT.kept_channels(ratio) * CUT.positions
    some = st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count)
    old, new = (np.array(data.draw(some), dtype=np.uint8).reshape(-1, 3, 4) for _ in range(2))
    tables = CODEC.changes[2, bits]
    assert np.array_equal(tables.decode(tables.encode(old, new), old), new)


@settings(deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(
        st.tuples(
            st.sampled_from(CODED_BITS),
            st.sampled_from(RATIOS),
            st.sampled_from(["arrives", "arrives", "arrives", "is lost", "is damaged", "has been forgotten"]),
        ),
        max_size=30,
    ),
)
def test_a_stream_with_switches_and_losses(seed, frames):
    """The receiver has exactly the sender's codes, or it says that it lacks the reference and gets a key."""
    rng, y = np.random.default_rng(seed), values(seed)
    sender = receiver = None
    for bits, ratio, fate in frames:
        y = (y + rng.normal(0, 0.2, y.shape) * (rng.random(y.shape) < 0.3)).astype(np.float32)
        sent = y[: CUT.kept_channels(ratio)]
        payload, sender = CODEC.encode_next(sent, SCORE, knobs_of(bits, ratio), sender)
        if fate == "is lost":
            continue
        if fate == "has been forgotten":
            receiver = None
        if fate == "is damaged":
            broken = bytearray(payload)
            broken[rng.integers(len(payload))] ^= rng.integers(1, 256)
            with pytest.raises(PayloadError):
                CODEC.decode_next(bytes(broken), receiver)
        try:
            found, knobs, receiver = CODEC.decode_next(payload, receiver)
        except ReferenceUnknownError:
            assert relative(payload)
            payload, sender = CODEC.encode_next(sent, SCORE, knobs_of(bits, ratio), None)
            found, knobs, receiver = CODEC.decode_next(payload, None)
        assert knobs == knobs_of(bits, ratio)
        assert same(sender, receiver)
        assert not found[len(sent) :].any()
        low, step = (table[2][BITS.index(bits), : len(sent), None, None] for table in (CODEC.low, CODEC.step))
        inside = np.clip(sent, low, low + step * (2**bits - 1))
        assert (abs(found[: len(sent)] - inside) < (0.5 + MARGINS[bits]) * step + 1e-6).all()


@pytest.mark.parametrize("bits", CODED_BITS)
def test_small_movements_change_no_code(bits):
    top = 2**bits - 1
    levels = np.random.default_rng(0).integers(0, top + 1, (8, 3, 4))
    low, step = (table[2][BITS.index(bits), :, None, None] for table in (CODEC.low, CODEC.step))
    y = (low + levels * step).astype(np.float32)
    _, memory = CODEC.encode_next(y, SCORE, knobs_of(bits), None)
    assert np.array_equal(memory.codes, levels)
    for part, changes in ((0.98, False), (1.02, True)):
        moved = (y + part * (0.5 + MARGINS[bits]) * step * np.where(levels == top, -1, 1)).astype(np.float32)
        codes = CODEC.codes(moved, knobs_of(bits), memory.codes)
        assert (codes != memory.codes).all() == (codes != memory.codes).any() == changes
    outside = np.where(levels == 0, low - 9, np.where(levels == top, low + (top + 9) * step, y)).astype(np.float32)
    assert np.array_equal(CODEC.codes(outside, knobs_of(bits), memory.codes), levels)


def test_channels_that_were_never_sent_have_their_usual_code():
    _, memory = CODEC.encode_next(values(1, 0.25), SCORE, knobs_of(2, 0.25), None)
    usual = CODEC.changes[2, 2].usual
    assert np.array_equal(memory.codes[2:], np.broadcast_to(usual[2:, None, None], (6, 3, 4)))
    _, wider = CODEC.encode_next(values(2), SCORE, knobs_of(), None)
    _, narrow = CODEC.encode_next(values(3, 0.5)[:4], SCORE, knobs_of(2, 0.5), wider)
    if narrow.check != CODEC.changes[2, 2].first(2, narrow.codes[:4]).check:  # no key
        assert np.array_equal(narrow.codes[4:], wider.codes[4:])


def test_memory_in_other_bits():
    """By hand: levels of 2 bits are -w, -w/3, w/3, w, those of 1 bit -w and w, of 4 bits every 2w/15 from -w."""
    codes = np.broadcast_to(np.arange(4, dtype=np.uint8), (8, 3, 4))
    memory = CutMemory(2, 2, codes)
    assert CODEC.requantized(memory, 2) is memory
    assert CODEC.requantized(memory, 1).codes[0, 0].tolist() == [0, 0, 1, 1]
    fine = CODEC.requantized(memory, 4)
    assert fine.codes[0, 0].tolist() == [0, 5, 10, 15]
    assert (fine.partition, fine.bits) == (2, 4)
    assert np.array_equal(CODEC.requantized(fine, 2).codes, codes)


def test_what_another_scene_would_need_is_a_key():
    _, memory = CODEC.encode_next(values(1), SCORE, knobs_of(), None)
    payload, after = CODEC.encode_next(values(2), SCORE, knobs_of(), memory)
    assert not relative(payload)
    assert np.array_equal(after.codes, CODEC.codes(values(2), knobs_of()))


def a_relative_payload():
    y = values(0)
    _, memory = CODEC.encode_next(y, SCORE, knobs_of(), None)
    y[3, 1, 2] += 0.7
    return CODEC.encode_next(y, SCORE, knobs_of(), memory)[0], memory


def test_another_reference_or_none_is_said():
    payload, memory = a_relative_payload()
    other = memory.updated(1 - memory.codes[:1] // 2)
    for reference in (None, other, CutMemory(2, 4, memory.codes), CutMemory(3, 2, memory.codes)):
        with pytest.raises(ReferenceUnknownError):
            CODEC.decode_next(payload, reference)
    with pytest.raises(ReferenceUnknownError, match="none are here"):
        CODEC.decode(payload)
    with pytest.raises(PayloadError, match="weights"):
        codec_of(CUT, TAG + 1).decode_next(payload, memory)
    tables = {**CODEC.changes, (2, 2): still_tables(CUT)}
    with pytest.raises(PayloadError, match="tables"):
        replace(CODEC, changes=tables).decode_next(payload, memory)


def test_every_flipped_byte_and_truncation_is_noticed():
    payload, memory = a_relative_payload()
    for at in range(len(payload)):
        for flip in (1, 2, 4, 128, 255):
            broken = bytearray(payload)
            broken[at] ^= flip
            with pytest.raises(PayloadError):
                CODEC.decode_next(bytes(broken), memory)
        with pytest.raises(PayloadError):
            CODEC.decode_next(payload[:at], memory)


def test_no_stream_at_half_the_region_nor_without_tables():
    y = values(0)
    for codec, knobs in ((CODEC, knobs_of(region=0.5)), (CODEC, knobs_of(8)), (replace(CODEC, changes={}), knobs_of())):
        with pytest.raises(ValueError, match="cannot be a stream"):
            codec.encode_next(y, SCORE, knobs, None)
        with pytest.raises(PayloadError, match="received in a stream"):
            codec.decode_next(codec.encode(y, SCORE, knobs), None)
    with pytest.raises(ValueError, match="not finite"):
        CODEC.encode_next(y * np.nan, SCORE, knobs_of(), None)


def test_any_changes_are_read_or_refused():
    """TIDESPLIT_EXAMPLES=100000 asks for more."""
    rng, memory = np.random.default_rng(0), a_relative_payload()[1]
    forget_peak("self")
    before, read = memory_mib("self", "VmRSS"), 0
    for _ in range(EXAMPLES):
        second = 2 << 4 | int(rng.integers(4)) << 2 | int(rng.integers(3))
        body = rng.bytes(int(rng.integers(12)))
        try:
            found, _, after = CODEC.decode_next(sealed(0xAF, second, body, memory.check), memory)
        except PayloadError:
            continue
        read += 1
        assert np.isfinite(found).all()
        assert after.codes.max() < 2**after.bits
    assert read
    assert memory_mib("self", "VmHWM") - before < 64.0


def test_the_longest_changes_are_read_in_time():
    cut = CutSpec(2, 48, 14, 14)
    codec, codes = codec_of(cut), np.zeros((48, 14, 14), dtype=np.uint8)
    for tables in (codec.changes[2, 2], still_tables(cut)):
        hostile = replace(codec, changes={(2, 2): tables})
        for byte in (b"\0", b"\x55", b"\xff"):
            start = time.perf_counter()
            with contextlib.suppress(PayloadError):
                hostile.decode_next(
                    sealed(0xAF, 0x2D, byte * 2352, CutMemory(2, 2, codes).check, hostile), CutMemory(2, 2, codes)
                )
            assert time.perf_counter() - start < 1.0
    for first, body, reason in ((0xAF, bytes(2353), "more than all codes take"), (0xAE, b"", r"region ratio 1\.0")):
        payload = sealed(first, 0x2D, body, CutMemory(2, 2, codes).check, codec)
        with pytest.raises(PayloadError, match=reason):
            codec.decode_next(payload, CutMemory(2, 2, codes))


def test_the_memory_cannot_be_written():
    _, memory = CODEC.encode_next(values(0), SCORE, knobs_of(), None)
    with pytest.raises(ValueError, match="read-only"):
        memory.codes[0, 0, 0] = 1


@pytest.mark.parametrize("bits", CODED_BITS)
def test_stored_tables_are_the_same(bits):
    tables = CODEC.changes[2, bits]
    found = ChangeTables.from_bytes(tables.to_bytes(), CUT, bits)
    assert found.to_bytes() == tables.to_bytes()
    for name in tables.names():
        assert np.array_equal(getattr(found, name), getattr(tables, name))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"usual": np.zeros(7, dtype=np.uint8)}, r"usual of shape \(7,\) received, \(8,\) expected"),
        ({"usual": np.full(8, 4, dtype=np.uint8)}, "usual holds 4"),
        ({"rises": np.full((3, 4), 13, dtype=np.uint8)}, "rises holds 13"),
        ({"further": np.full((6, 4), 32, dtype=np.uint8)}, "further holds 32"),
    ],
)
def test_unsound_tables_are_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        replace(CODEC.changes[2, 2], **change)
    with pytest.raises(ValueError, match="bytes expected, 3 received"):
        ChangeTables.from_bytes(b"abc", CUT, 2)


def test_classes_of_the_rate():
    old = np.zeros((10, 10, 10), dtype=np.uint8)
    for changed, expected in ((0, 0), (1, 1), (2, 1), (3, 2), (95, 6), (96, 7), (1000, 7)):
        new = old.copy()
        new.ravel()[:changed] = 1
        assert rate_of(old, new) == expected
