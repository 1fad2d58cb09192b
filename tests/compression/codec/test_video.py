"""Video streams: both ends together, references, damaged and hostile payloads."""

from __future__ import annotations

import hashlib
import random
import struct
import sys
import zlib

import numpy as np
import pytest

from tidesplit.compression.codec.errors import PayloadError, ReferenceUnknownError
from tidesplit.compression.codec.image_codec import MAX_IMAGE_BYTES
from tidesplit.compression.codec.pixels import Pixels, natural_picture

pytest.importorskip("av", reason="the extra `video` is not installed")

from tidesplit.compression.codec.video import CHECK_BYTES, VideoDecoder, VideoEncoder

PX = 48
BIG = natural_picture(128)


def frame(k: int) -> Pixels:
    """Frame `k` of a camera that moves to the right."""
    return BIG[10 : 10 + PX, k : k + PX]


def sent(numbers: list[int], quality: int = 28, keys: tuple[int, ...] = ()) -> list[bytes]:
    encoder = VideoEncoder("h264", quality, PX)
    return [encoder.encode(frame(k), k in keys) for k in numbers]


def test_the_decoder_shows_what_was_sent() -> None:
    decoder = VideoDecoder("h264", PX)
    for k, payload in enumerate(sent(list(range(12)))):
        seen = decoder.decode(payload)
        assert seen.shape == (PX, PX, 3)
        assert np.abs(seen.astype(int) - frame(k)).mean() < 8


def test_the_first_payload_is_a_key_and_others_are_small() -> None:
    sizes = [len(payload) for payload in sent(list(range(12)))]
    assert max(sizes[1:]) < sizes[0] / 2


def test_a_key_on_request_needs_no_reference() -> None:
    payloads = sent(list(range(8)), keys=(5,))
    seen = VideoDecoder("h264", PX).decode(payloads[5])
    whole = VideoDecoder("h264", PX)
    for payload in payloads[:6]:
        last = whole.decode(payload)
    assert (seen == last).all()


def test_without_its_reference_a_payload_is_refused_until_a_key_comes() -> None:
    payloads = sent(list(range(8)), keys=(6,))
    decoder = VideoDecoder("h264", PX)
    with pytest.raises(ReferenceUnknownError):
        decoder.decode(payloads[1])
    decoder.decode(payloads[0])
    decoder.decode(payloads[1])
    for missing_two in payloads[3:6]:
        with pytest.raises(ReferenceUnknownError):
            decoder.decode(missing_two)
    decoder.decode(payloads[6])
    decoder.decode(payloads[7])


def test_frames_that_are_not_sent_cost_bytes_later_and_no_key() -> None:
    """The encoder's reference is the last picture it was given, and the decoder follows."""
    numbers = [0, 1, 2, 18, 19]
    payloads, decoder = sent(numbers), VideoDecoder("h264", PX)
    for k, payload in zip(numbers, payloads, strict=True):
        assert np.abs(decoder.decode(payload).astype(int) - frame(k)).mean() < 8
    assert len(payloads[2]) < len(payloads[3]) < len(payloads[0])


def test_a_higher_factor_takes_fewer_bytes() -> None:
    sizes = [sum(map(len, sent(list(range(6)), quality))) for quality in (20, 28, 36)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_pictures_are_made_smaller_before_they_cross() -> None:
    encoder, decoder = VideoEncoder("h264", 28, 32), VideoDecoder("h264", 32)
    assert decoder.decode(encoder.encode(frame(0), True)).shape == (32, 32, 3)


def test_known_payloads_decode_to_known_pixels() -> None:
    decoder = VideoDecoder("h264", 32)
    found = [hashlib.sha256(decoder.decode(bytes.fromhex(text)).tobytes()).hexdigest()[:16] for text in GOLDEN]
    assert found == GOLDEN_PIXELS


@pytest.mark.parametrize("size", [0, CHECK_BYTES, MAX_IMAGE_BYTES + 1])
def test_a_payload_of_impossible_length_is_refused(size: int) -> None:
    with pytest.raises(PayloadError, match=f"{size} bytes"):
        VideoDecoder("h264", PX).decode(bytes(size))


def test_a_damaged_key_is_refused() -> None:
    payload = bytearray(sent([0])[0])
    payload[-3] ^= 4
    with pytest.raises(PayloadError, match="damaged"):
        VideoDecoder("h264", PX).decode(bytes(payload))


def test_a_picture_of_another_size_is_refused() -> None:
    payload = sent([0])[0]
    for px in (32, 64):
        with pytest.raises(PayloadError, match=f"{px}x{px}"):
            VideoDecoder("h264", px).decode(payload)
    large = VideoEncoder("h264", 40, 512).encode(natural_picture(512), True)
    with pytest.raises(PayloadError, match="48x48"):  # refused before 512 x 512 pixels are decoded
        VideoDecoder("h264", PX).decode(large)


def test_hostile_payloads_with_a_right_checksum_never_crash() -> None:
    good, rng = [payload[CHECK_BYTES:] for payload in sent(list(range(4)))], random.Random(0)
    outcomes = {"shown": 0, "refused": 0}
    for _ in range(150):
        decoder, check = VideoDecoder("h264", PX), 0
        for k, unit in enumerate(good):
            bad = bytearray(unit)
            if rng.random() < 0.5:
                for _ in range(rng.randint(1, 4)):
                    at = rng.randrange(len(bad))
                    bad[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
            check = zlib.crc32(bad, check if k else 0)
            try:
                assert decoder.decode(struct.pack("<I", check) + bad).shape == (PX, PX, 3)
            except PayloadError:
                outcomes["refused"] += 1
                break
            outcomes["shown"] += 1
    assert min(outcomes.values()) > 50


def test_what_there_is_not_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="'theora' received"):
        VideoEncoder("theora", 28, PX)
    with pytest.raises(ValueError, match="even number"):
        VideoDecoder("h264", 33)
    with pytest.raises(ValueError, match="factor 52"):
        VideoEncoder("h264", 52, PX)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        VideoDecoder("h264", PX)


GOLDEN = (
    "7dc6ee1b0000016764000aacb44b42000003000200000300791e244d400000000168ef039cb00000016588847f601149a3666d63155dfd02912f456f18e0ef21929ad3e56837bdfa9d319a62f0a8ba22a088d66da45c51",
    "ccd754f3000001419a26223ff358668c",
    "1557fda8000001419a4626fff06a7aed23f6329e252b42726688ec7224221f81",
)
GOLDEN_PIXELS = ["06fb4c4bd3392a64", "cb988beda72f4baf", "0b2410941cbb0076"]
