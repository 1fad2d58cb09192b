"""The device's computation: heads, finishes, whole nets and encoders, by operating point.

With `--pace`, each run takes as long as another device of the profile needs, because the rest of the time is slept.
Frames, bytes and answers stay real. Results of such runs are called emulated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.compression.codec.image_codec import encode_image
from tidesplit.compression.codec.knobs import RATIOS, Knobs, device_id, split
from tidesplit.compression.codec.pixels import Pixels, to_input
from tidesplit.compression.session import Session
from tidesplit.profiling.points.profile import OperatingPoint
from tidesplit.runtime.cnn import ENGINES, Cnn, finish_name, head_name

__all__ = ["Engine", "HeadResult", "Pacer", "knobs_of", "wait"]

Floats = NDArray[np.float32]
SPIN_S = 0.0015  # the system's sleep ends up to 1 ms late, so the last part is slept in short steps


@dataclass(frozen=True)
class HeadResult:
    """A head's `payload`, or the `logits` of a whole net; `feature` is the input of a finish."""

    payload: bytes | None
    logits: Floats | None
    feature: Floats


class Engine:
    """All models that a device needs. They are loaded at once, so that a change of the point costs nothing.

    Each model and each encoder also runs once, because a first run takes several times as long as a later one.
    """

    def __init__(
        self, cnn: Cnn, points: tuple[OperatingPoint, ...], threads: int = 1, engine: str = ENGINES[0]
    ) -> None:
        self.cnn = cnn
        self.points = points
        self._by_id = {point.id: point for point in points}
        names = {name for point in points for name in (_first(point), _finish(point)) if name is not None}
        self._sessions: dict[str, Session] = {name: cnn.device_session(name, threads, engine) for name in sorted(names)}
        self._warm_up(np.zeros((cnn.input_px, cnn.input_px, 3), np.uint8))

    def _warm_up(self, pixels: Pixels) -> None:
        outputs: dict[str, list[Any]] = {}
        x = to_input(pixels)
        for point in self.points:
            first, last = _first(point), _finish(point)
            if first is not None and first not in outputs:
                outputs[first] = self._run(first, x)
            self._encode(point, pixels, outputs.get(first or "", []))
            if last is not None and last not in outputs:
                outputs[last] = self._run(last, x if first is None else outputs[first][0])

    def head(self, point_id: str, pixels: Pixels) -> HeadResult:
        """Run the device's part of a point and encode its payload. `pixels` uint8 `[px, px, 3]`."""
        point = self._point(point_id)
        first, x = _first(point), to_input(pixels)
        outputs = [] if first is None else self._run(first, x)
        payload = self._encode(point, pixels, outputs)
        return HeadResult(payload, outputs[0][0] if payload is None else None, outputs[0] if outputs else x)

    def _encode(self, point: OperatingPoint, pixels: Pixels, outputs: list[Any]) -> bytes | None:
        """The payload of a picture, or of the outputs of a head; None for a whole net."""
        if point.codec in ("jpeg", "webp"):
            return encode_image(pixels, point.codec, point.bits)
        if point.codec == "none":
            return None
        _, values, score = outputs
        return self.cnn.codec.encode(values[0], score[0, 0], knobs_of(point))

    def values(self, point_id: str, pixels: Pixels) -> tuple[Floats, Floats]:
        """The inputs of a cut's codec: values `[k, h, w]` and attention score `[h, w]`."""
        first = _first(self._point(point_id))
        assert first is not None
        _, values, score = self._run(first, to_input(pixels))
        return values[0], score[0, 0]

    def finish(self, point_id: str, feature: Floats) -> Floats:
        """Logits `[classes]`: the rest of the CNN, run on the device."""
        name = _finish(self._point(point_id))
        assert name is not None
        logits: Floats = self._run(name, feature)[0][0]
        return logits

    def _point(self, point_id: str) -> OperatingPoint:
        """The device's part of a point."""
        return self._by_id[split(point_id)[0]]

    def _run(self, name: str, x: Floats) -> list[Any]:
        return list(self._sessions[name].run(None, {"x": x}))


def knobs_of(point: OperatingPoint) -> Knobs:
    """The settings of a point at an inner cut."""
    return Knobs(point.partition, point.channel_ratio, point.region_ratio, point.bits)


def _first(point: OperatingPoint) -> str | None:
    """The model that runs before anything is sent; None for image offload."""
    if point.codec == "none":
        return device_id(point.channel_ratio)
    return None if point.partition == 0 else head_name(point.partition, point.channel_ratio)


def _finish(point: OperatingPoint) -> str | None:
    """The model that finishes a frame without an answer; after image offload it is the narrowest whole net."""
    if point.codec == "none" or point.fallback is None:
        return None
    if point.partition == 0:
        return device_id(RATIOS[0])
    return finish_name(point.partition, point.channel_ratio)


class Pacer:
    """Makes work take a given time on the single processor of the emulated device.

    A finish interrupts other work there. The end of that work moves back by the finish's time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._finished_s = 0.0  # processor time of the finishes that have ended
        self._finish_from_s: float | None = None

    def taken_s(self) -> float:
        """Processor time of all finishes until now."""
        with self._lock:
            under_way = 0.0 if self._finish_from_s is None else self._clock() - self._finish_from_s
            return self._finished_s + under_way

    def work(self, begun_s: float, duration_s: float, taken_s: float) -> float:
        """Wait until work has had `duration_s` of the processor since `begun_s`. Returns the time of that.

        `taken_s` is the value of `taken_s()` when the work began. Finishes since then move the end back, also those
        during the real work.
        """
        while True:
            end_s = begun_s + duration_s + (self.taken_s() - taken_s)
            left = end_s - self._clock()
            if left <= 0.0:
                return end_s
            wait(left)

    def finish_begins(self, now_s: float) -> None:
        """A finish takes the processor."""
        with self._lock:
            self._finish_from_s = now_s

    def finish_ends(self) -> None:
        """The finish gives the processor back."""
        with self._lock:
            if self._finish_from_s is not None:
                self._finished_s += self._clock() - self._finish_from_s
                self._finish_from_s = None


def wait(duration_s: float) -> None:
    """Sleep, the last 1.5 ms in steps of 0.1 ms."""
    end = time.perf_counter() + duration_s
    if duration_s > SPIN_S:
        time.sleep(duration_s - SPIN_S)
    while (left := end - time.perf_counter()) > 0.0:
        time.sleep(min(left, 1e-4))
