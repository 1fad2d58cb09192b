"""Image offload, partition 0: the picture crosses as JPEG or WebP. It is the baseline that a cut has to beat."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from tidesplit.compression.codec.errors import PayloadError

CODECS = {"jpeg": "JPEG", "webp": "WEBP"}
SMALLER_PX = (160, 128, 112)  # sides to which a picture may be made smaller before it crosses
MAX_IMAGE_BYTES = 1 << 20
# What Pillow raises at a damaged or foreign picture, found by feeding it damaged ones. MemoryError and the bomb are
# headers that promise too many pixels. Warnings are here for programs in which they are errors.
UNREADABLE = (
    OSError, SyntaxError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, EOFError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError, Warning,
)  # fmt: skip

Pixels = npt.NDArray[np.uint8]


def resized(pixels: Pixels, px: int) -> Pixels:
    """A square picture at `[px, px, 3]`. Device, training and server all use this filter: bicubic, antialiased."""
    if pixels.shape[:2] == (px, px):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((px, px), Image.Resampling.BICUBIC))


def encode_image(pixels: Pixels, codec: str, quality: int, px: int | None = None) -> bytes:
    """Compress `[H, W, 3]`, made smaller to `px` before if that is given.

    JPEG gets optimised Huffman tables (10 % smaller at this size), WebP method 4.
    """
    if codec not in CODECS:
        raise ValueError(f"codec {codec!r} received, one of {tuple(CODECS)} expected")
    buffer = io.BytesIO()
    options = {"optimize": True} if codec == "jpeg" else {"method": 4}
    image = Image.fromarray(pixels if px is None else resized(pixels, px))
    image.save(buffer, CODECS[codec], quality=quality, **options)
    return buffer.getvalue()


def decode_image(payload: bytes, *sides: int) -> Pixels:
    """Pixels `[px, px, 3]`, where px is one of `sides`. Format and size are checked before the picture is decoded.

    Raises:
        PayloadError: no JPEG or WebP picture of such a size.
    """
    if len(payload) > MAX_IMAGE_BYTES:
        raise PayloadError(f"image of {len(payload)} bytes, at most {MAX_IMAGE_BYTES} expected")
    if payload[:4] == b"RIFF":
        _check_size(_webp_size(payload), sides)
    try:
        with Image.open(io.BytesIO(payload), formats=list(CODECS.values())) as image:
            _check_size(image.size, sides)
            return np.asarray(image.convert("RGB"))
    except UNREADABLE as error:
        if isinstance(error, PayloadError):
            raise
        raise PayloadError(f"not a JPEG or WebP picture: {error}") from error


def seen_by_server(payload: bytes, px: int) -> Pixels:
    """The picture in a payload as the tail's input `[px, px, 3]`. A smaller picture is scaled up.

    Raises:
        PayloadError: no JPEG or WebP picture of side `px` or of an allowed smaller one.
    """
    return resized(decode_image(payload, *sides_seen(px)), px)


def sides_seen(px: int) -> tuple[int, ...]:
    """Sides of the pictures and videos that a server takes for a tail's input of `px` pixels."""
    return (px, *(side for side in SMALLER_PX if side < px))


def _check_size(size: tuple[int, int], sides: tuple[int, ...]) -> None:
    if size[0] != size[1] or size[0] not in sides:
        expected = " or ".join(f"{side}x{side}" for side in sides)
        raise PayloadError(f"image of {size[0]}x{size[1]} pixels, {expected} expected")


def _webp_size(payload: bytes) -> tuple[int, int]:
    """Width and height in a WebP header (RFC 9649). Pillow allocates that many pixels, up to 2 GiB, as it opens one."""
    kind, at = payload[12:16], payload[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        return 1 + int.from_bytes(at[4:7], "little"), 1 + int.from_bytes(at[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(at[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind != b"VP8 ":
        raise PayloadError(f"not a JPEG or WebP picture: RIFF with {kind!r}")
    return int.from_bytes(at[6:8], "little") & 0x3FFF, int.from_bytes(at[8:10], "little") & 0x3FFF
