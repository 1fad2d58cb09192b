"""Accuracy and bytes of every operating point of a prepared net, by the models that device and server run."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tidesplit.compression.codec.image_codec import encode_image, seen_by_server
from tidesplit.compression.codec.knobs import device_id, read_knobs
from tidesplit.compression.codec.pixels import Pixels, to_input
from tidesplit.compression.codec.wire import WireCodec
from tidesplit.compression.pictures.labelled import Pictures
from tidesplit.compression.session import session
from tidesplit.prepare.cut_net import RATIO
from tidesplit.prepare.result.models_of_cut_net import Chains, Files
from tidesplit.prepare.task import Task
from tidesplit.profiling.measuring.counts import Counts
from tidesplit.profiling.measuring.trained import ImagePoint
from tidesplit.runtime.models import head_name, tail_name

Floats = npt.NDArray[np.float32]
IMAGE_POINTS = (
    *(ImagePoint("jpeg", q) for q in (10, 20, 50, 75, 95)),
    *(ImagePoint("webp", q) for q in (5, 20, 50)),
    ImagePoint("jpeg", 20, 128), *(ImagePoint("webp", q, px) for q, px in ((20, 128), (5, 128), (5, 112))),
)  # fmt: skip
"""Pictures that can cross. The smaller ones have sides that a server takes, and the smallest take the fewest bytes."""
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


class Judge:
    """Runs the points of a deployed CNN on pictures, one thread a picture.

    Chains of files that begin alike run once to where they part, and equal payloads have one answer. So an answer is
    that of device and server, which run the same files.

    Args:
        files: ONNX models.
        models: the chain of files of each deployed model.
        codec: of every cut.
        settings: of each point, by id, from `settings_of`.
        task: says what an answer is.
    """

    def __init__(
        self, files: Files, models: Chains, codec: WireCodec, settings: Mapping[str, Mapping[str, Any]], task: Task
    ) -> None:
        self._sessions = {name: session(data, threads=1) for name, data in files.items()}
        self._models, self._codec, self._settings, self._task = models, codec, settings, task

    def answers(self, pixels: Pixels) -> dict[str, tuple[Any, int]]:
        """Answer and bytes by point id, for a picture `[px, px, 3]`."""
        found, picture, px = dict[str, tuple[Any, int]](), to_input(pixels), pixels.shape[0]
        known, answered = dict[tuple[str, ...], list[Floats]](), dict[bytes, Any]()
        for point, row in self._settings.items():
            if (codec := row["codec"]) == "none":
                found[point] = self._task.answer(self._run(point, picture, known)[0][0]), 0
                continue
            if codec == "feature":
                knobs = read_knobs(point)
                *_, y, score = self._run(head_name(knobs.partition, knobs.ratio, row["precision"]), picture, known)
                payload = self._codec.encode(y[0], score[0, 0], knobs)
            else:
                payload = encode_image(pixels, codec, row["bits"], row["resolution"])
            if payload not in answered:
                cut = codec == "feature"
                x = self._codec.decode(payload)[0][None] if cut else to_input(seen_by_server(payload, px))
                answered[payload] = self._task.answer(self._run(tail_name(row["partition"]), x)[0][0])
            found[point] = answered[payload], len(payload)
        return found

    def reference(self, pixels: Pixels) -> Floats:
        """Values `[N]` that are taken for right where there are no labels: the server's for the undamaged picture."""
        values: Floats = self._run(tail_name(0), to_input(pixels))[0][0]
        return values

    def _run(self, model: str, x: Floats, known: dict[tuple[str, ...], list[Floats]] | None = None) -> list[Floats]:
        """Outputs of a model. ``known``: those of chains of files for the same input, which grow."""
        chain, known, outputs = self._models[model], {} if known is None else known, [x]
        for end, file in enumerate(chain, start=1):
            if chain[:end] not in known:
                known[chain[:end]] = self._sessions[file].run(None, {"x": outputs[0]})
            outputs = known[chain[:end]]
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
    counts: Mapping[str, Judged], settings: Mapping[str, Mapping[str, Any]], task: Task
) -> list[dict[str, Any]]:
    """Rows of the profile's table, but for the multiply-accumulates."""
    intervals = {point: task.interval(some.right, some.right_square, some.n) for point, some in counts.items()}
    return [
        {"id": point, **row, **counts[point].columns(), "accuracy_ci95": intervals[point]}
        for point, row in settings.items()
    ]
