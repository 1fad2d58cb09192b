"""How an operating point sends the frames of a clip through its real codec: payloads out, and in again.

A sender belongs to one stream and one run over a clip. A stateless point has no stream: each of its payloads is a key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tidesplit.compression.codec.image_codec import encode_image, resized, seen_by_server
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.compression.codec.memory import CutMemory
from tidesplit.compression.codec.pixels import Pixels
from tidesplit.compression.codec.video import VideoDecoder, VideoEncoder
from tidesplit.compression.codec.wire import WireCodec

Floats = npt.NDArray[np.float32]


class Sender(Protocol):
    """Both ends of one stream over the frames of a clip."""

    def send(self, k: int, key: bool) -> bytes:
        """Payload of frame `k`, a key if asked for."""

    def receive(self, payload: bytes) -> Pixels | Floats:
        """What the server's tail gets: a picture `[px, px, 3]`, or values `[Kmax, h, w]`."""


class ImageSender:
    """Pictures as JPEG or WebP."""

    def __init__(self, frames: Sequence[Pixels], codec: str, quality: int, px: int | None) -> None:
        self._frames, self._how = frames, (codec, quality, px)

    def send(self, k: int, key: bool) -> bytes:  # noqa: ARG002 (each payload is a key)
        """The picture in JPEG or WebP."""
        return encode_image(self._frames[k], *self._how)

    def receive(self, payload: bytes) -> Pixels:
        """The picture that the server sees."""
        return seen_by_server(payload, self._frames[0].shape[0])


class VideoSender:
    """Pictures as a stream of video. `px`: side at which they cross; None for their own."""

    def __init__(self, frames: Sequence[Pixels], codec: str, quality: int, px: int | None) -> None:
        self._frames, self._side = frames, frames[0].shape[0]
        self._encoder = VideoEncoder(codec, quality, px or self._side)
        self._decoder = VideoDecoder(codec, px or self._side)

    def send(self, k: int, key: bool) -> bytes:
        """The picture relative to the one sent before."""
        return self._encoder.encode(self._frames[k], key)

    def receive(self, payload: bytes) -> Pixels:
        """The picture that the server sees."""
        return resized(self._decoder.decode(payload), self._side)


class Values(NamedTuple):
    """A head's outputs by frame: `y` `[k, h, w]`, `score` `[h, w]`."""

    y: Floats
    score: Floats


class CutSender:
    """Codes of a cut, each payload by itself."""

    def __init__(self, values: Callable[[int], Values], codec: WireCodec, knobs: Knobs) -> None:
        self._values, self._codec, self._knobs = values, codec, knobs

    def send(self, k: int, key: bool) -> bytes:  # noqa: ARG002 (each payload is a key)
        """The codes."""
        return self._codec.encode(*self._values(k), self._knobs)

    def receive(self, payload: bytes) -> Floats:
        """The tail's input."""
        return self._codec.decode(payload)[0]


class MemorySender:
    """Codes of a cut relative to the last ones sent."""

    def __init__(self, values: Callable[[int], Values], codec: WireCodec, knobs: Knobs) -> None:
        self._values, self._codec, self._knobs = values, codec, knobs
        self._device: CutMemory | None = None
        self._server: CutMemory | None = None

    def send(self, k: int, key: bool) -> bytes:
        """The codes relative to those sent before."""
        payload, self._device = self._codec.encode_next(*self._values(k), self._knobs, None if key else self._device)
        return payload

    def receive(self, payload: bytes) -> Floats:
        """The tail's input."""
        values, _, self._server = self._codec.decode_next(payload, self._server)
        return values
