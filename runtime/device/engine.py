"""The device's own computing: heads, finishes, whole nets and encoders, by operating point.

With `--pace` a run takes as long as the profile says of another device: frames, bytes and answers stay real, the time
that is missing is slept. What is so obtained is called emulated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tidesplit.compression.codec.image_codec import encode_image
from tidesplit.compression.codec.knobs import RATIOS, Knobs, device_id, split
from tidesplit.compression.codec.pixels import Pixels, to_input
from tidesplit.profiling.points.profile import OperatingPoint
from tidesplit.runtime.cnn import Cnn, finish_name, head_name

__all__ = ["Engine", "HeadResult", "Pacer", "knobs_of", "wait"]

Floats = NDArray[np.float32]
SPIN_S = 0.0015  # the system's sleep ends up to a millisecond late: the rest is waited for by looking at the clock


@dataclass(frozen=True)
class HeadResult:
    """What a head left: `payload` for the link, or the whole net's `logits`; `feature` is what a finish starts from."""

    payload: bytes | None
    logits: Floats | None
    feature: Floats


class Engine:
    """Every model that a device needs, loaded at once: going from one point to another loads nothing."""

    def __init__(self, cnn: Cnn, points: tuple[OperatingPoint, ...], threads: int = 1) -> None:
        self.cnn = cnn
        self.points = points
        self._by_id = {point.id: point for point in points}
        names = {name for point in points for name in (_first(point), _finish(point)) if name is not None}
        self._sessions: dict[str, onnxruntime.InferenceSession] = {
            name: cnn.session(name, threads) for name in sorted(names)
        }

    def head(self, point_id: str, pixels: Pixels) -> HeadResult:
        """Run what a point runs on the device, and encode. `pixels` uint8 `[px, px, 3]`."""
        point = self._point(point_id)
        if point.codec in ("jpeg", "webp"):
            payload = encode_image(pixels, point.codec, point.bits)
            return HeadResult(payload, None, to_input(pixels))
        first = _first(point)
        assert first is not None
        outputs = self._run(first, to_input(pixels))
        if point.codec == "none":
            return HeadResult(None, outputs[0][0], outputs[0])
        feature, values, score = outputs
        return HeadResult(self.cnn.codec.encode(values[0], score[0, 0], knobs_of(point)), None, feature)

    def values(self, point_id: str, pixels: Pixels) -> tuple[Floats, Floats]:
        """What a cut's codec encodes: values `[k, h, w]` and attention score `[h, w]`."""
        first = _first(self._point(point_id))
        assert first is not None
        _, values, score = self._run(first, to_input(pixels))
        return values[0], score[0, 0]

    def finish(self, point_id: str, feature: Floats) -> Floats:
        """Logits `[classes]` of the rest of the CNN on the device."""
        name = _finish(self._point(point_id))
        assert name is not None
        logits: Floats = self._run(name, feature)[0][0]
        return logits

    def _point(self, point_id: str) -> OperatingPoint:
        """What the device does of a point: in three tiers its name goes on behind a ">"."""
        return self._by_id[split(point_id)[0]]

    def _run(self, name: str, x: Floats) -> list[Any]:
        return list(self._sessions[name].run(None, {"x": x}))


def knobs_of(point: OperatingPoint) -> Knobs:
    """What a point behind a cut sets."""
    return Knobs(point.partition, point.channel_ratio, point.region_ratio, point.bits)


def _first(point: OperatingPoint) -> str | None:
    """Model that runs before anything is sent."""
    if point.codec == "none":
        return device_id(point.channel_ratio)
    return None if point.partition == 0 else head_name(point.partition, point.channel_ratio)


def _finish(point: OperatingPoint) -> str | None:
    """Model that finishes a frame whose answer does not come; image offload falls back on the narrowest net."""
    if point.codec == "none" or point.fallback is None:
        return None
    if point.partition == 0:
        return device_id(RATIOS[0])
    return finish_name(point.partition, point.channel_ratio)


class Pacer:
    """Makes work take a given time on the one processor of the device that is emulated.

    A finish goes before other work there: while one runs, the end of what it interrupts moves back by as much.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._finished_s = 0.0  # processor time that finishes have taken so far
        self._finish_from_s: float | None = None

    def taken_s(self) -> float:
        """Processor time that finishes have taken until now."""
        with self._lock:
            under_way = 0.0 if self._finish_from_s is None else self._clock() - self._finish_from_s
            return self._finished_s + under_way

    def work(self, begun_s: float, duration_s: float, taken_s: float) -> float:
        """Wait until work begun then has had `duration_s` of the processor; returns when that was to be.

        `taken_s`: what `taken_s` said as it began. What finishes take from then on comes on top, also while the work is
        really done, which is sooner than here it may end.
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
        """It gives it back."""
        with self._lock:
            if self._finish_from_s is not None:
                self._finished_s += self._clock() - self._finish_from_s
                self._finish_from_s = None


def wait(duration_s: float) -> None:
    """Sleep, and look at the clock for the last moment."""
    end = time.perf_counter() + duration_s
    if duration_s > SPIN_S:
        time.sleep(duration_s - SPIN_S)
    while (left := end - time.perf_counter()) > 0.0:
        time.sleep(min(left, 1e-4))
