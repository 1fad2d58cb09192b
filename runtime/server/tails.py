"""The server's computation, in worker threads: decode, run a tail or a middle model, encode for the second hop."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from tidesplit.compression.codec.errors import PayloadError
from tidesplit.compression.codec.image_codec import resized, seen_by_server, sides_seen
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.compression.codec.pixels import to_input
from tidesplit.compression.codec.video import VideoDecoder
from tidesplit.runtime.cnn import Cnn, CnnError
from tidesplit.runtime.models import middle_name, tail_name
from tidesplit.runtime.wire.messages import RefusedError, Request
from tidesplit.runtime.wire.refusals import expect, no_video

Floats = NDArray[np.float32]
# Frames wait for those that are computed with them. More frames at once hardly save time: on one core, batches of this
# length take 2 to 10 % less time for each frame, and longer ones no less.
LONGEST_BATCH_S = 0.025


@dataclass(frozen=True)
class Item:
    """One payload of a partition. The result is the payload at `next_cut`, or logits where that is None.

    `values` `[C, h, w]` is the model's input where the payload is one of a stream, which was decoded already.
    """

    partition: int
    payload: bytes
    next_cut: Knobs | None = None
    values: Floats | None = None


class Tails:
    """All tails of a folder, and with `middles` all models between two cuts. They are loaded at once."""

    def __init__(self, cnn: Cnn, middles: bool = False) -> None:
        self.cnn = cnn
        self.partitions = tuple(p for p in range(cnn.partitions) if cnn.has(tail_name(p)))
        if not self.partitions:
            raise CnnError(f"{cnn.folder} holds no tails: it was exported for a device")
        names = [tail_name(p) for p in self.partitions]
        if middles:
            pairs = [middle_name(a, b) for a in (0, *cnn.codec.cuts) for b in cnn.codec.cuts if a < b]
            names += [name for name in pairs if cnn.has(name)]
            if not any(name.startswith("middle") for name in names):
                raise CnnError(f"{cnn.folder} holds no model between two cuts, which --next needs")
        # One thread a run: frames of several devices run in parallel, and each then costs the least processor time.
        self._sessions = {name: cnn.session(name, threads=1) for name in names}
        self._memory = threading.local()  # of batches; fresh pages for each one take a tenth of a picture's time
        self._limits = {name: _most_at_once(session) for name, session in self._sessions.items()}

    def has(self, key: str) -> bool:
        """True where that model is loaded."""
        return key in self._sessions

    def limit(self, key: str) -> int:
        """Frames to compute at once: as many as take `LONGEST_BATCH_S`, or the model's one if it was made for one."""
        return self._limits[key]

    def run(self, key: str, items: Sequence[Item]) -> list[Any]:
        """For each item its logits `[classes]`, its payload for the second hop, or the error in it."""
        inputs = [self._input(item) for item in items]
        sound = [i for i, x in enumerate(inputs) if not isinstance(x, Exception)]
        results: list[Any] = list(inputs)
        if sound:
            x = inputs[sound[0]][None] if len(sound) == 1 else self._stacked([inputs[i] for i in sound])
            outputs = self._sessions[key].run(None, {"x": x})
            for row, i in enumerate(sound):
                results[i] = self._result(items[i], [output[row] for output in outputs])
        return results

    def _stacked(self, inputs: Sequence[Floats]) -> Floats:
        """The inputs as one batch, valid until this thread's next one."""
        shape = len(inputs), *inputs[0].shape
        memory: Floats = getattr(self._memory, "floats", np.empty(0, np.float32))
        if memory.size < math.prod(shape):
            memory = self._memory.floats = np.empty(math.prod(shape), np.float32)
        return np.stack(inputs, out=memory[: math.prod(shape)].reshape(shape))

    def _input(self, item: Item) -> Any:
        """The model's input `[C, h, w]`, without the batch, or the error."""
        if item.values is not None:
            return item.values
        try:
            if item.partition == 0:
                return to_input(seen_by_server(item.payload, self.cnn.input_px))[0]
            values, knobs = self.cnn.codec.decode(item.payload)
            _check_partition(knobs, item.partition)
            return values
        except PayloadError as error:
            return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    def decode_next(self, request: Request, state: Any) -> tuple[Floats, Any, int]:
        """Decode a payload of a stream relative to `state`: the tail's input, the next state and its bytes.

        Raises:
            PayloadError: a damaged payload, or one that is relative to another state.
            RefusedError: UNIMPLEMENTED where there is no decoder for it.
        """
        if request.partition == 0:
            decoder = state or self._video_decoder(request)
            pixels = resized(decoder.decode(request.payload), self.cnn.input_px)
            return to_input(pixels)[0], decoder, _video_bytes(self.cnn.input_px)
        values, knobs, memory = self.cnn.codec.decode_next(request.payload, state)
        _check_partition(knobs, request.partition)
        return values, memory, memory.codes.nbytes

    def _video_decoder(self, request: Request) -> VideoDecoder:
        """A decoder for the stream that a request names, such as `p0-h264-q34-160px`."""
        assert request.place is not None
        _, codec, _, *side = request.place.name.split("-")
        px = int(side[0].removesuffix("px")) if side else self.cnn.input_px
        sides = sides_seen(self.cnn.input_px)
        expect(px in sides, f"stream of {px} x {px} pixels, one of {sides} expected")
        try:
            return VideoDecoder(codec, px)
        except ImportError as error:
            raise no_video(str(error)) from error

    def _result(self, item: Item, outputs: list[Floats]) -> Any:
        if item.next_cut is None:
            return outputs[0]
        _, values, score = outputs
        cut = self.cnn.codec.cuts[item.next_cut.partition]
        return self.cnn.codec.encode(values[: cut.kept_channels(item.next_cut.ratio)], score[0], item.next_cut)


def _most_at_once(session: Any) -> int:
    """Frames that a model shall compute at once, by processor time. The first run takes twice as long as others."""
    frames, *shape = session.get_inputs()[0].shape
    x, times = np.zeros([1, *shape], np.float32), []
    for _ in range(3):
        begun_s = time.thread_time()
        session.run(None, {"x": x})
        times.append(time.thread_time() - begun_s)
    return frames if isinstance(frames, int) else max(1, int(LONGEST_BATCH_S / max(min(times), 1e-6)))


def _video_bytes(px: int) -> int:
    """About the memory of a decoder: 1 MiB at 224 pixels, measured. libavcodec has no count of its own."""
    return (256 << 10) + 16 * px * px


def _check_partition(knobs: Knobs, expected: int) -> None:
    if knobs.partition != expected:
        raise PayloadError(f"payload of partition {knobs.partition} sent to the model of {expected}")
