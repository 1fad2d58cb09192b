"""The device's computation: heads, finishes, whole nets and encoders, by operating point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.compression.codec.image_codec import encode_image
from tidesplit.compression.codec.knobs import VIDEO_CODECS, sender, stream_of
from tidesplit.compression.codec.memory import CutMemory
from tidesplit.compression.codec.pixels import Pixels, to_input
from tidesplit.compression.codec.video import VideoEncoder
from tidesplit.compression.session import Session
from tidesplit.profiling.points.profile import OperatingPoint
from tidesplit.runtime.cnn import Cnn, CnnError
from tidesplit.runtime.device.priority import with_low_priority
from tidesplit.runtime.models import finish_model, first_model, knobs_of, points_of, raced_net

__all__ = ["Engine", "HeadResult", "knobs_of", "points_of"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class HeadResult:
    """A head's `payload`, or the `logits` of a whole net; `feature` is the input of `Engine.finish`."""

    payload: bytes | None
    logits: Floats | None
    feature: Floats


class Engine:
    """All models that a device needs. They are loaded at once, so that a change of the point costs nothing.

    Each model and each encoder also runs once, because a first run takes several times as long as a later one.

    Raises CnnError where a model cannot be used, or where a point sends video and PyAV is missing.

    Heads run on so many `threads`. Whole nets and finishes run at low priority on one thread fewer, so that encoding
    and sending need not wait for them.
    """

    def __init__(self, cnn: Cnn, points: tuple[OperatingPoint, ...], threads: int = 1) -> None:
        self.cnn = cnn
        self.points = points
        self._by_id = {point.id: point for point in points}
        self._memories: dict[str, CutMemory] = {}  # what was last sent in each stream of cuts
        self._video = {point.id: _video_encoder(point, cnn) for point in points if point.codec in VIDEO_CODECS}
        names = {name for point in points for name in (first_model(point), finish_model(point)) if name is not None}
        heads = {first_model(point) for point in points if point.codec != "none"}
        self._sessions: dict[str, Session] = {n: cnn.device_session(n, threads) for n in sorted(names & heads)}
        others, fewer = sorted(names - heads), max(1, threads - 1)
        self._sessions |= with_low_priority(lambda: {n: cnn.device_session(n, fewer) for n in others})
        self._warm_up(np.zeros((cnn.input_px, cnn.input_px, 3), np.uint8))

    def _warm_up(self, pixels: Pixels) -> None:
        outputs: dict[str, list[Any]] = {}
        x = to_input(pixels)
        for point in self.points:
            first, last = first_model(point), finish_model(point)
            if first is not None and first not in outputs:
                outputs[first] = self._run(first, x)
            self._encode(point, pixels, outputs.get(first or "", []), key=True)
            if last is not None and last not in outputs:
                outputs[last] = self._run(last, x if first is None else outputs[first][0])
        self._memories.clear()

    def head(self, point_id: str, pixels: Pixels, key: bool = True) -> HeadResult:
        """Run the device's part of a point and encode its payload. `pixels` uint8 `[px, px, 3]`.

        In a stream, the payload is relative to the last one unless it shall be a `key`. It has to be sent.
        """
        point = self._point(point_id)
        first, x = first_model(point), to_input(pixels)
        outputs = [] if first is None else self._run(first, x)
        payload = self._encode(point, pixels, outputs, key)
        feature = outputs[0] if outputs and not raced_net(point_id) else x
        return HeadResult(payload, outputs[0][0] if payload is None else None, feature)

    def _encode(self, point: OperatingPoint, pixels: Pixels, outputs: list[Any], key: bool) -> bytes | None:
        """The payload of a picture, or of the outputs of a head; None for a whole net."""
        if point.id in self._video:
            return self._video[point.id].encode(pixels, key)
        if point.codec in ("jpeg", "webp"):
            return encode_image(pixels, point.codec, point.bits, point.resolution)
        if point.codec == "none":
            return None
        _, values, score = outputs
        coded = values[0], score[0, 0], knobs_of(point)
        if not (stream := stream_of(point.id)):
            return self.cnn.codec.encode(*coded)
        payload, self._memories[stream] = self.cnn.codec.encode_next(*coded, None if key else self._memories[stream])
        return payload

    def values(self, point_id: str, pixels: Pixels) -> tuple[Floats, Floats]:
        """The inputs of a cut's codec: values `[k, h, w]` and attention score `[h, w]`."""
        first = first_model(self._point(point_id))
        assert first is not None
        _, values, score = self._run(first, to_input(pixels))
        return values[0], score[0, 0]

    def finish(self, point_id: str, feature: Floats) -> Floats:
        """Logits `[classes]` of the device's own run for a point that sends: its finish, or the net of its race."""
        net = raced_net(point_id)
        name = first_model(self._by_id[net]) if net else finish_model(self._point(point_id))
        assert name is not None
        logits: Floats = self._run(name, feature)[0][0]
        return logits

    def _point(self, point_id: str) -> OperatingPoint:
        """The point by which a frame leaves the device."""
        return self._by_id[sender(point_id)]

    def _run(self, name: str, x: Floats) -> list[Any]:
        return list(self._sessions[name].run(None, {"x": x}))


def _video_encoder(point: OperatingPoint, cnn: Cnn) -> VideoEncoder:
    try:
        return VideoEncoder(point.codec, point.bits, point.resolution or cnn.input_px)
    except ImportError as error:
        raise CnnError(f"{point.id}: {error}") from error
