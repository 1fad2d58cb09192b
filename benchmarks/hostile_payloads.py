"""Hostile payloads and messages in this process: what decodes them is called as the server calls it.

True payloads of cuts, streams, video and pictures, and true messages, are mutated: bits flipped, bytes removed,
repeated, inserted and taken from others. Most get the right checksum again, so that the decoder behind it is reached.
Each must be decoded, or refused by an error of its kind. The peak of the process's memory is read from /proc and set
back after each `A_BATCH`, so that a batch's growth bounds the growth by any one of its payloads.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tidesplit.benchmarks.processes import memory_mib
from tidesplit.compression.codec.errors import PayloadError
from tidesplit.compression.codec.image_codec import encode_image, seen_by_server
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.compression.codec.memory import CutMemory
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.codec.video import CHECK_BYTES, VideoDecoder
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.wire.messages import PROBE, Request, build_probe, build_request, read_probe, read_request
from tidesplit.runtime.wire.protocol import METHODS
from tidesplit.runtime.wire.refusals import RefusedError
from tidesplit.runtime.wire.stream_place import StreamPlace
from tidesplit.runtime.wire.wire_format import parse

A_BATCH = 1000
SEALED = 0.85  # share with the right checksum
SHARES = {"messages": 0.45, "cuts": 0.3, "streams": 0.12, "pictures": 0.1, "video": 0.03}
TYPED = (PayloadError, RefusedError)
HEADER = 4  # bytes of a cut's payload before its checksum


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """The bytes with one to six damages."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(made) + 1)
        match rng.randrange(8):
            case 0 if at < len(made):
                made[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(made):
                made[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del made[at : at + rng.choice((1, 2, 4, 50))]
            case 3:
                made[at:at] = rng.randbytes(rng.choice((1, 2, 4, 50)))
            case 4:
                made[at:at] = made[at : at + rng.choice((1, 8, 100))] * rng.choice((1, 2, 20))
            case 5:
                del made[at:]
            case 6:
                other = rng.choice(others)
                made[at:] = other[rng.randrange(len(other) + 1) :]
            case _:
                made[at : at + 4] = struct.pack("<I", rng.choice((0, 1, 2**16, 2**31, 2**32 - 1)))
    return bytes(made[: 1 << 20])


def resealed(payload: bytes, check: int = 0) -> bytes:
    """A cut's payload with the right checksum; ``check`` is that of its reference."""
    start, body = payload[:HEADER], payload[2 * HEADER :]
    return start + struct.pack("<I", zlib.crc32(body, zlib.crc32(start, check))) + body


@dataclass
class Hostile:
    """Makes payloads and messages from true ones, and takes what becomes of them. ``streams``: see `honest_streams`."""

    cnn: Cnn
    streams: dict[str, list[bytes]]
    rng: random.Random
    ends: Counter[str] = field(default_factory=Counter)
    untyped: list[str] = field(default_factory=list)
    most_mib: float = 0.0

    def __post_init__(self) -> None:
        self._keys = [self._key(knobs) for knobs in self._all_knobs()]
        pixels = natural_picture(self.cnn.input_px)
        self._pictures = [encode_image(pixels, codec, quality) for codec in ("jpeg", "webp") for quality in (10, 75)]
        self._pictures += [_saved(pixels, kind) for kind in ("PNG", "GIF", "BMP", "TIFF")]
        self._memories: dict[str, list[CutMemory | None]] = {
            name: self._course(payloads) for name, payloads in self.streams.items() if "h264" not in name
        }
        self._messages = [message.SerializeToString() for message in self._true_messages()]

    def run(self, count: int) -> None:
        """Try so many."""
        ways: dict[str, Callable[[], object]] = {
            "messages": self._message, "cuts": self._cut, "streams": self._stream, "pictures": self._picture,
            "video": self._video,
        }  # fmt: skip
        shares = {kind: share for kind, share in SHARES.items() if kind != "video" or self._videos()}
        for done in range(0, count, A_BATCH):
            before_mib = memory_mib("self")
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on, see proc(5)
            for kind in self.rng.choices(list(shares), list(shares.values()), k=min(A_BATCH, count - done)):
                self.ends[f"{kind} {self._end(ways[kind])}"] += 1
            self.most_mib = max(self.most_mib, memory_mib("self", "VmHWM") - before_mib)

    def _end(self, way: Callable[[], object]) -> str:
        try:
            way()
        except TYPED as error:
            return type(error).__name__
        except Exception as error:  # of any other kind: a fault of ours
            self.untyped.append(f"{way.__name__}: {type(error).__name__}: {error}")
            return f"UNTYPED {type(error).__name__}"
        return "decoded"

    def _all_knobs(self) -> list[Knobs]:
        return [
            Knobs(partition, ratio, region, bits)
            for partition in self.cnn.codec.cuts
            for ratio in (0.25, 1.0) for region in (0.5, 1.0) for bits in (1, 2, 4, 8)
        ]  # fmt: skip

    def _key(self, knobs: Knobs) -> bytes:
        cut = self.cnn.codec.cuts[knobs.partition]
        values = np.random.default_rng(0).normal(size=(cut.kept_channels(knobs.ratio), cut.height, cut.width))
        y = values.astype(np.float32)
        return self.cnn.codec.encode(y, y[0], knobs)

    def _course(self, payloads: Sequence[bytes]) -> list[CutMemory | None]:
        """The memory before each payload of a true stream."""
        memories: list[CutMemory | None] = [None]
        for payload in payloads[:-1]:
            memories.append(self.cnn.codec.decode_next(payload, memories[-1])[2])
        return memories

    def _true_messages(self) -> list[Any]:
        cnn, payload = self.cnn, self._keys[-1]
        partition = max(cnn.codec.cuts)
        place = StreamPlace(f"p{partition}", 7, 6, "device")
        plain = Request(cnn.name, partition, cnn.version, "7", payload, "point", "cloud", probe_next=True)
        picture = Request(cnn.name, 0, "", "8", self._pictures[0])
        streamed = Request(cnn.name, partition, "", "9", payload, place=place)
        contents = build_request(plain)
        contents.inputs[0].contents.uint_contents.extend(contents.raw_input_contents.pop())
        asking = build_request(picture)
        asking.outputs.add(name="logits").parameters["classification"].int64_param = 3
        return [build_request(plain), build_request(picture), build_request(streamed), build_probe("1", bytes(100)),
                contents, asking]  # fmt: skip

    def _videos(self) -> list[str]:
        return [name for name in self.streams if "h264" in name]

    def _message(self) -> None:
        data = mutated(self.rng.choice(self._messages), self._messages, self.rng)
        kind = (
            METHODS["ModelInfer"].request if self.rng.random() < 0.9 else self.rng.choice([*METHODS.values()]).request
        )
        message = parse(kind, data)
        if kind is METHODS["ModelInfer"].request:
            if message.model_name == PROBE:
                read_probe(message)
            else:
                read_request(message, self.cnn.name, self.cnn.version, self.cnn.form)

    def _cut(self) -> None:
        payload = mutated(self.rng.choice(self._keys), self._keys, self.rng)
        self.cnn.codec.decode(resealed(payload) if self.rng.random() < SEALED else payload)

    def _stream(self) -> None:
        """A payload with the memory of its place, or with another one."""
        name = self.rng.choice([*self._memories])
        payloads, memories = self.streams[name], self._memories[name]
        at = self.rng.randrange(len(payloads))
        memory = memories[at] if self.rng.random() < 0.8 else self.rng.choice(memories)
        payload = mutated(payloads[at], payloads, self.rng)
        if self.rng.random() < SEALED:
            payload = resealed(payload, 0 if memory is None else memory.check)
        self.cnn.codec.decode_next(payload, memory)

    def _picture(self) -> None:
        seen_by_server(mutated(self.rng.choice(self._pictures), self._pictures, self.rng), self.cnn.input_px)

    def _video(self) -> None:
        """The first payloads of a stream of video, the last one damaged."""
        payloads = self.streams[self.rng.choice(self._videos())]
        decoder, last = VideoDecoder("h264", self.cnn.input_px), self.rng.randrange(3)
        for payload in payloads[:last]:
            decoder.decode(payload)
        unit = mutated(payloads[last][CHECK_BYTES:], payloads, self.rng)
        (check,) = struct.unpack_from("<I", payloads[last - 1]) if last and self.rng.random() < SEALED else (0,)
        decoder.decode(struct.pack("<I", zlib.crc32(unit, check)) + unit)


def _saved(pixels: np.ndarray[Any, np.dtype[np.uint8]], kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).resize((64, 64)).save(file, kind)
    return file.getvalue()
