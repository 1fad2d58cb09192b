"""Video offload, partition 0: pictures cross as a stream of H.264, each coded relative to the last one sent.

Encoder and decoder belong to one stream. The encoder sees only the pictures that are sent, so a picture that is not
sent costs nothing and makes the next one larger. A payload is

bytes 0-3  CRC-32 of all after byte 3, seeded with that of the payload before, or with 0 in a key, little endian
the rest   an H.264 access unit (Annex B), which any other decoder reads as well

So a decoder that missed a payload says so, and never shows a wrong picture.

PyAV, of the extra `video`, is imported when the first encoder or decoder is made.
"""

from __future__ import annotations

import re
import struct
import zlib
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from tidesplit.compression.codec.errors import PayloadError, ReferenceUnknownError
from tidesplit.compression.codec.image_codec import MAX_IMAGE_BYTES, Pixels, resized
from tidesplit.compression.codec.knobs import VIDEO_CODECS

CHECK_BYTES = 4
MAX_SIDE = 2048
PADDED = 64  # pixels that libavcodec adds to a side before it compares the picture with its limit
SUPPLEMENTAL, KEY_SLICE = 6, 5  # types of NAL units: remarks of the encoder (600 bytes of x264's name), part of a key
UNIT = re.compile(rb"\x00\x00\x01(?=.)", re.DOTALL)
# superfast takes far fewer bytes than ultrafast for little more time, and slower presets gain little. There is one
# reference, because the decoder's state is then one picture. Key frames are asked for.
X264 = {
    "preset": "superfast", "tune": "zerolatency", "forced-idr": "1",
    "x264-params": "keyint=infinite:scenecut=0:repeat-headers=1:annexb=1:ref=1:threads=1",
}  # fmt: skip
LIMITS = (0, 51)  # of the constant rate factor; above, x264 has no quantizer


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("video offload needs PyAV: pip install 'tidesplit[video]'", name="av") from error
    av.logging.set_level(None)  # a hostile payload must not fill the log
    return av


class _Colours:
    """Conversion between RGB and YUV: one that is kept, since to begin it takes longer than to convert, and exact, so
    that a decoder shows the same pixels on every processor."""

    def __init__(self, av: Any) -> None:
        kinds = av.video.reformatter.Interpolation
        self._flags = kinds.BILINEAR | kinds.ACCURATE_RND | kinds.BITEXACT
        self._reformatter = av.video.reformatter.VideoReformatter()

    def to(self, frame: Any, kind: str) -> Any:
        return self._reformatter.reformat(frame, format=kind, interpolation=self._flags, threads=1)


def _check_stream(codec: str, px: int) -> None:
    if codec not in VIDEO_CODECS:
        raise ValueError(f"video codec {codec!r} received, one of {VIDEO_CODECS} expected")
    if not 16 <= px <= MAX_SIDE or px % 2:
        raise ValueError(f"video of {px} pixels received, an even number from 16 to {MAX_SIDE} expected")


class VideoEncoder:
    """The device's end of one stream.

    Args:
        codec: one of VIDEO_CODECS.
        quality: constant rate factor, 0 to 51. A higher one means fewer bytes.
        px: side of the square that crosses, an even number.

    Raises:
        ValueError: a codec, quality or size that there is not.
        ModuleNotFoundError: PyAV is missing.
    """

    def __init__(self, codec: str, quality: int, px: int) -> None:
        _check_stream(codec, px)
        if not LIMITS[0] <= quality <= LIMITS[1]:
            raise ValueError(f"constant rate factor {quality} received, {LIMITS[0]} to {LIMITS[1]} expected")
        self._av, self._px, self._crf = _av(), px, quality
        self._colours = _Colours(self._av)
        self._context: Any = None
        self._check, self._sent = 0, 0

    def encode(self, pixels: Pixels, key: bool) -> bytes:
        """Payload of a picture `[H, W, 3]`, made `px x px` before. ``key``: True for one that needs no reference."""
        if self._context is None:
            self._context = self._opened()  # its first picture is a key by itself
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(resized(pixels, self._px)), format="rgb24")
        frame = self._colours.to(frame, "yuv420p")
        frame.pts, self._sent = self._sent, self._sent + 1
        if key:
            frame.pict_type = self._av.video.frame.PictureType.I
        unit = _without_remarks(b"".join(bytes(packet) for packet in self._context.encode(frame)))
        self._check = zlib.crc32(unit, 0 if _is_key(unit) else self._check)
        return struct.pack("<I", self._check) + unit

    def _opened(self) -> Any:
        context = self._av.CodecContext.create("libx264", "w")
        context.width = context.height = self._px
        context.pix_fmt, context.thread_count = "yuv420p", 1
        context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
        context.options = {**X264, "crf": str(self._crf)}
        return context


class VideoDecoder:
    """The server's end of one stream.

    Args:
        codec: one of VIDEO_CODECS.
        px: side of the square that crosses.

    Raises:
        ValueError: a codec or size that there is not.
        ModuleNotFoundError: PyAV is missing.
    """

    def __init__(self, codec: str, px: int) -> None:
        _check_stream(codec, px)
        self._av, self._codec, self._px = _av(), codec, px
        self._colours = _Colours(self._av)
        self._context: Any = None
        self._check = 0

    def decode(self, payload: bytes) -> Pixels:
        """Pixels `[px, px, 3]`. After an error the next payload has to be a key.

        Raises:
            ReferenceUnknownError: the payload is relative to a picture that this decoder does not have.
            PayloadError: no payload of such a stream, or a picture of another size.
        """
        unit = self._checked(payload)
        try:
            frames = self._context.decode(self._av.Packet(unit))
        except (self._av.FFmpegError, ValueError, MemoryError) as error:
            self._context = None
            raise PayloadError(f"not an H.264 picture of {self._px}x{self._px} pixels: {error}") from error
        if len(frames) != 1 or (frames[0].width, frames[0].height) != (self._px, self._px):
            self._context = None
            sizes = ", ".join(f"{f.width}x{f.height}" for f in frames[:3]) or "none"
            raise PayloadError(f"{len(frames)} pictures ({sizes}) received, one of {self._px}x{self._px} expected")
        pixels: Pixels = self._colours.to(frames[0], "rgb24").to_ndarray()
        return pixels

    def _checked(self, payload: bytes) -> bytes:
        """The access unit in a payload whose reference is here."""
        if not CHECK_BYTES < len(payload) <= MAX_IMAGE_BYTES:
            raise PayloadError(
                f"video payload of {len(payload)} bytes, {CHECK_BYTES + 1} to {MAX_IMAGE_BYTES} expected"
            )
        (check,), unit = struct.unpack_from("<I", payload), payload[CHECK_BYTES:]
        if _is_key(unit):
            if zlib.crc32(unit) != check:
                raise PayloadError("checksum does not match: the key picture was damaged on its way")
            self._context = self._opened()
        elif self._context is None or zlib.crc32(unit, self._check) != check:
            self._context = None
            raise ReferenceUnknownError("the picture is relative to one that this decoder does not have")
        self._check = check
        return unit

    def _opened(self) -> Any:
        context = self._av.CodecContext.create(self._codec, "r")
        context.thread_count = 1
        context.flags |= self._av.codec.context.Flags.low_delay
        context.options = {"max_pixels": str((self._px + PADDED) ** 2), "err_detect": "explode"}
        return context


def _units(data: bytes) -> list[tuple[int, bytes]]:
    """Type and bytes of the NAL units in an access unit, each with its start code."""
    starts = [found.start() for found in UNIT.finditer(data)]
    return [(data[start + 3] & 31, data[start:end]) for start, end in pairwise([*starts, len(data)])]


def _is_key(unit: bytes) -> bool:
    return any(kind == KEY_SLICE for kind, _ in _units(unit))


def _without_remarks(unit: bytes) -> bytes:
    return b"".join(data for kind, data in _units(unit) if kind != SUPPLEMENTAL)
