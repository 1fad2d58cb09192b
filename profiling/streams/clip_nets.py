"""The deployed models that clips run through: heads for all cuts of a width at once, int8 heads, tails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from tidesplit.compression.codec.knobs import INT8, Knobs, Precision
from tidesplit.compression.codec.pixels import Pixels, to_input
from tidesplit.compression.net.deploy import heads_model
from tidesplit.compression.session import session
from tidesplit.profiling.measuring.accuracy import int8_session
from tidesplit.profiling.measuring.counts import tail_of
from tidesplit.profiling.measuring.trained import load_trained
from tidesplit.profiling.streams.senders import Values

Ints = npt.NDArray[np.int64]


class ClipHeads:
    """Outputs of the heads for some frames of a clip, computed once for each width. `used`: numbers of the frames."""

    def __init__(self, name: str, weights: Path | None, frames: Sequence[Pixels], used: Sequence[int]) -> None:
        self._net, self._frames, self._used = (name, weights), frames, used
        self._found: dict[tuple[int, float, Precision], dict[int, Values]] = {}

    def of(self, knobs: Knobs, precision: Precision) -> Callable[[int], Values]:
        """Values of a frame by its number."""
        key = (knobs.partition, knobs.ratio, precision)
        if key not in self._found:
            self._run(*key)
        return self._found[key].__getitem__

    def _run(self, partition: int, ratio: float, precision: Precision) -> None:
        """A run of an int8 head, or one of a float32 net that gives the outputs of all cuts."""
        int8 = precision == INT8
        model = int8_session(*self._net, partition, ratio) if int8 else _heads(*self._net, ratio)
        first, skipped = (partition, 1) if int8 else (1, 0)  # an int8 head's first output is its feature
        for k in self._used:
            outputs = model.run(None, {"x": to_input(self._frames[k])})[skipped:]
            for at, (y, score) in enumerate(zip(outputs[::2], outputs[1::2], strict=True), start=first):
                self._found.setdefault((at, ratio, precision), {})[k] = Values(y[0], score[0, 0])


def answers(name: str, weights: Path | None, partition: int, inputs: Sequence[Any]) -> Ints:
    """Classes that the server answers to a tail's inputs: pictures uint8 at partition 0, values float32 at others."""
    tail = tail_of(name, weights, partition)
    ready = (to_input(one) if partition == 0 else one[None] for one in inputs)
    return np.array([int(tail.run(None, {"x": one})[0].argmax()) for one in ready], dtype=np.int64)


@lru_cache(maxsize=4)
def _heads(name: str, weights: Path | None, ratio: float) -> onnxruntime.InferenceSession:
    model = heads_model(load_trained(name, weights).system, ratio)
    return session(model.SerializeToString(), torch.get_num_threads())
