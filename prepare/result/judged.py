"""Accuracy and bytes of every operating point of a prepared net, by the models that device and server run."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tidesplit.compression.codec.image_codec import encode_image, seen_by_server
from tidesplit.compression.codec.knobs import BITS, FLOAT32, Knobs, Precision, cut_id, device_id
from tidesplit.compression.codec.pixels import Pixels, to_input
from tidesplit.compression.codec.wire import WireCodec
from tidesplit.compression.pictures.labelled import Pictures
from tidesplit.compression.session import session
from tidesplit.prepare.result.models_of_cut_net import RATIO, SERVER_FILE, Files, chains, encoder_file, part_file
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
    """Counts of one point, and its answers against those of the uncut net.

    Args:
        won: pictures that it answers right and the uncut net wrong.
        lost: the reverse.
        same: pictures with the same answer, right or wrong.
    """

    won: int = 0
    lost: int = 0
    same: int = 0

    def note(self, answer: int, uncut: int, expected: int, size: int) -> None:
        """Count the answer for one picture."""
        self.add(Counts.of(torch.tensor([answer == expected]), [size]))
        self.won += answer == expected != uncut
        self.lost += uncut == expected != answer
        self.same += answer == uncut

    def gain(self) -> tuple[float, float]:
        """Mean difference of the accuracy to the uncut net's, and the half width of its 95 % interval.

        The pictures are the same, so the differences by picture are averaged. Each is -1, 0 or 1.
        """
        mean = (self.won - self.lost) / self.n
        return mean, 1.96 * math.sqrt(max(0.0, (self.won + self.lost) / self.n - mean * mean) / self.n)


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
    """

    def __init__(self, files: Files, codec: WireCodec, partitions: int, precisions: tuple[Precision, ...]) -> None:
        self._sessions = {name: session(data, threads=1) for name, data in files.items()}
        self._chains = chains(partitions, precisions, SERVER_FILE in files)
        self._codec, self._partitions, self._precisions = codec, partitions, precisions

    def answers(self, pixels: Pixels) -> dict[str, tuple[int, int]]:
        """Answer and bytes by point id, for a picture `[px, px, 3]`."""
        found, px, picture = dict[str, tuple[int, int]](), pixels.shape[0], to_input(pixels)
        for point in image_points(px):
            payload = encode_image(pixels, point.codec, point.quality, point.px)
            found[point.id] = self._tail(0, to_input(seen_by_server(payload, px))), len(payload)
        answered = dict[bytes, int]()
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
            found[device_id(RATIO, precision)] = int(np.argmax(feature)), 0
        return found

    def reference(self, pixels: Pixels) -> int:
        """The answer that is taken for right where there are no labels: the server's to the undamaged picture."""
        return self._tail(0, to_input(pixels))

    def _tail(self, partition: int, x: Floats) -> int:
        """The server's answer to values, or at partition 0 to a picture."""
        for file in self._chains[tail_name(partition)]:
            (x,) = self._run(file, x)
        return int(np.argmax(x))

    def _run(self, file: str, x: Floats) -> list[Floats]:
        outputs: list[Floats] = self._sessions[file].run(None, {"x": x})
        return outputs


def judge(
    judge_of: Judge, pictures: Pictures, labelled: bool, threads: int = 1, say: Callable[[float], None] = lambda _: None
) -> dict[str, Judged]:
    """Counts by point id. Without labels an answer is right where it equals the reference.

    A net that answers the same to all pictures is named: accuracy and agreement then say nothing about its cuts.
    """

    def one(pixels: Pixels, label: int) -> tuple[dict[str, tuple[int, int]], int]:
        return judge_of.answers(pixels), label if labelled else judge_of.reference(pixels)

    totals, uncut = defaultdict[str, Judged](Judged), set[int]()
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(one, map(np.asarray, pictures.images), map(int, pictures.labels))
        for done, (answers, expected) in enumerate(found, start=1):
            for point, (answer, size) in answers.items():
                totals[point].note(answer, answers[UNCUT][0], expected, size)
            uncut.add(answers[UNCUT][0])
            say(done / len(pictures.labels))
    if len(uncut) == 1:
        print(
            f"the uncut net answers class {uncut.pop()} to all {len(pictures.labels)} pictures: "
            "look at its weights and its pre-processing",
            file=sys.stderr,
        )
    return dict(totals)


def rows_of(
    counts: Mapping[str, Counts], partitions: int, precisions: Sequence[Precision], px: int
) -> list[dict[str, Any]]:
    """Rows of the profile's table, but for the multiply-accumulates."""
    rows: list[dict[str, Any]] = []
    last = device_id(RATIO, precisions[-1])

    def add(point: str, partition: int, codec: str, bits: int, precision: Precision, **rest: Any) -> None:
        rows.append(
            {"id": point, "partition": partition, "channel_ratio": RATIO, "region_ratio": REGION, "bits": bits,
             "codec": codec, "precision": precision, **counts[point].columns(), **rest}
        )  # fmt: skip

    for picture in image_points(px):
        add(picture.id, 0, picture.codec, picture.quality, FLOAT32, resolution=picture.px, fallback=last)
    for precision in precisions:
        for knobs in knobs_of_cuts(partitions):
            fallback = device_id(RATIO, precision)
            add(cut_id(knobs, precision), knobs.partition, "feature", knobs.bits, precision, fallback=fallback)
        add(device_id(RATIO, precision), partitions, "none", 0, precision)
    return rows
