"""Accuracy and bytes of every operating point of a prepared net, by the models that device and server run."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tidesplit.compression.codec.image_codec import encode_image, seen_by_server
from tidesplit.compression.codec.knobs import BITS, FLOAT32, Knobs, Precision, cut_id, device_id
from tidesplit.compression.codec.pixels import Pixels, to_input
from tidesplit.compression.codec.wire import WireCodec
from tidesplit.compression.pictures.labelled import Pictures
from tidesplit.compression.session import session
from tidesplit.prepare.result.models_of_cut_net import RATIO, SERVER_FILE, Files, chains, encoder_file, part_file
from tidesplit.prepare.task import Task
from tidesplit.profiling.measuring.counts import Counts
from tidesplit.profiling.measuring.trained import ImagePoint
from tidesplit.runtime.models import tail_name

Floats = npt.NDArray[np.float32]
REGION = 1.0
QUALITIES = (
    ("jpeg", 10),
    ("jpeg", 20),
    ("jpeg", 50),
    ("jpeg", 75),
    ("jpeg", 95),
    ("webp", 5),
    ("webp", 20),
    ("webp", 50),
)
SMALLER = (("jpeg", 20, 128), ("webp", 20, 128), ("webp", 5, 128), ("webp", 5, 112))
"""Pictures of fewer pixels, of the sides that a server takes. The smallest ones take the fewest bytes."""
UNCUT = device_id(RATIO)
"""The uncut net in float32."""


@dataclass
class Judged(Counts):
    """Sums of one point's scores, and of its answers against those of the uncut net.

    Args:
        right_square: of the scores' squares.
        gained: of the scores' differences to the uncut net's.
        gained_square: of their squares.
        same: of the likeness of its answers to those of the uncut net, right or wrong.
    """

    right_square: float = 0
    gained: float = 0
    gained_square: float = 0
    same: float = 0

    def note(self, score: float, uncut: float, same: float, size: int) -> None:
        """Add one picture's scores of the point and of the uncut net, the likeness of both answers, and the bytes."""
        self.add(Counts(1, score, size, size * size))
        self.right_square += score * score
        self.gained += score - uncut
        self.gained_square += (score - uncut) ** 2
        self.same += same

    def gain(self) -> tuple[float, float]:
        """Mean difference of the score to the uncut net's, and the half width of its 95 % interval.

        The pictures are the same, so the differences by picture are averaged.
        """
        mean = self.gained / self.n
        return mean, 1.96 * math.sqrt(max(0.0, self.gained_square / self.n - mean * mean) / self.n)


def image_points(px: int) -> tuple[ImagePoint, ...]:
    """Image offload: pictures that can cross."""
    smaller = (ImagePoint(codec, quality, side) for codec, quality, side in SMALLER if side < px)
    return (*(ImagePoint(codec, quality) for codec, quality in QUALITIES), *smaller)


def knobs_of_cuts(partitions: int) -> list[Knobs]:
    """Settings of every inner cut that are offered."""
    return [Knobs(p, RATIO, REGION, bits) for p in range(1, partitions) for bits in BITS]


class Judge:
    """Runs the points on pictures, one thread a picture.

    Each part of a head runs once for all cuts behind it, and equal payloads of two heads have one answer. So an answer
    is that of device and server, which run the same files.

    Args:
        files: ONNX models.
        codec: of every cut.
        partitions: index of the last partition.
        precisions: in which a device can run the net.
        task: says what an answer is.
    """

    def __init__(
        self, files: Files, codec: WireCodec, partitions: int, precisions: tuple[Precision, ...], task: Task
    ) -> None:
        self._sessions = {name: session(data, threads=1) for name, data in files.items()}
        self._chains = chains(partitions, precisions, SERVER_FILE in files)
        self._codec, self._partitions, self._precisions, self._task = codec, partitions, precisions, task

    def answers(self, pixels: Pixels) -> dict[str, tuple[Any, int]]:
        """Answer and bytes by point id, for a picture `[px, px, 3]`."""
        found, px, picture = dict[str, tuple[Any, int]](), pixels.shape[0], to_input(pixels)
        for point in image_points(px):
            payload = encode_image(pixels, point.codec, point.quality, point.px)
            found[point.id] = self._tail(0, to_input(seen_by_server(payload, px))), len(payload)
        answered = dict[bytes, Any]()
        for precision in self._precisions:
            feature = picture
            for p in range(self._partitions):
                if p:
                    y, score = self._run(encoder_file(p), feature)
                    for knobs in (Knobs(p, RATIO, REGION, bits) for bits in BITS):
                        payload = self._codec.encode(y[0], score[0, 0], knobs)
                        if payload not in answered:
                            answered[payload] = self._tail(p, self._codec.decode(payload)[0][None])
                        found[cut_id(knobs, precision)] = answered[payload], len(payload)
                (feature,) = self._run(part_file(p, p + 1, precision), feature)
            found[device_id(RATIO, precision)] = self._task.answer(feature[0]), 0
        return found

    def reference(self, pixels: Pixels) -> Floats:
        """Values `[N]` that are taken for right where there are no labels: the server's for the undamaged picture."""
        return self._values(0, to_input(pixels))

    def _tail(self, partition: int, x: Floats) -> Any:
        """The server's answer to values, or at partition 0 to a picture."""
        return self._task.answer(self._values(partition, x))

    def _values(self, partition: int, x: Floats) -> Floats:
        for file in self._chains[tail_name(partition)]:
            (x,) = self._run(file, x)
        values: Floats = x[0]
        return values

    def _run(self, file: str, x: Floats) -> list[Floats]:
        outputs: list[Floats] = self._sessions[file].run(None, {"x": x})
        return outputs


def judge(
    judge_of: Judge, pictures: Pictures, task: Task, threads: int = 1, say: Callable[[float], None] = lambda _: None
) -> dict[str, Judged]:
    """Counts by point id, from the scores of the task.

    A net that answers the same to all pictures is named: the figures then say nothing about its cuts.
    """
    totals, images, first, alike = defaultdict[str, Judged](Judged), list(pictures.images), None, True
    with ThreadPoolExecutor(threads) as pool:
        task = task.knowing(lambda: pool.map(judge_of.reference, images))

        def one(picture: int, pixels: Pixels) -> tuple[dict[str, tuple[float, float, float, int]], Any]:
            expected = task.expected(picture, partial(judge_of.reference, pixels))
            answers = judge_of.answers(pixels)
            uncut = answers[UNCUT][0]
            right = task.score(uncut, expected)
            found = {
                point: (task.score(answer, expected), right, task.score(answer, uncut), size)
                for point, (answer, size) in answers.items()
            }
            return found, uncut

        for done, (scores, uncut) in enumerate(pool.map(one, range(len(images)), images), start=1):
            for point, noted in scores.items():
                totals[point].note(*noted)
            first = uncut if first is None else first
            alike = alike and task.score(uncut, first) == 1
            say(done / len(images))
    if alike:
        print(
            f"the uncut net answers {f'class {first}' if isinstance(first, int) else 'the same'} to all {len(images)} "
            "pictures: look at its weights and its pre-processing",
            file=sys.stderr,
        )
    return dict(totals)


def rows_of(
    counts: Mapping[str, Judged], partitions: int, precisions: Sequence[Precision], px: int, task: Task
) -> list[dict[str, Any]]:
    """Rows of the profile's table, but for the multiply-accumulates."""
    rows: list[dict[str, Any]] = []
    last = device_id(RATIO, precisions[-1])

    def add(point: str, partition: int, codec: str, bits: int, precision: Precision, **rest: Any) -> None:
        some = counts[point]
        interval = task.interval(some.right, some.right_square, some.n)
        rows.append(
            {"id": point, "partition": partition, "channel_ratio": RATIO, "region_ratio": REGION, "bits": bits,
             "codec": codec, "precision": precision, **some.columns(), "accuracy_ci95": interval, **rest}
        )  # fmt: skip

    for picture in image_points(px):
        add(picture.id, 0, picture.codec, picture.quality, FLOAT32, resolution=picture.px, fallback=last)
    for precision in precisions:
        for knobs in knobs_of_cuts(partitions):
            fallback = device_id(RATIO, precision)
            add(cut_id(knobs, precision), knobs.partition, "feature", knobs.bits, precision, fallback=fallback)
        add(device_id(RATIO, precision), partitions, "none", 0, precision)
    return rows
