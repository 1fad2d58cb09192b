"""Right answers and payload bytes, counted over a folder of pictures through the real codec.

Pictures are worked on in chunks, in parallel. Each finished chunk is kept in a file, so that an interrupted run goes on
where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from tidesplit.compression.codec.pixels import load_square
from tidesplit.compression.net.deploy import tail_model
from tidesplit.compression.net.measure import wilson
from tidesplit.compression.pictures.labelled import Bytes, list_pictures
from tidesplit.compression.session import session
from tidesplit.profiling.measuring.trained import load_trained

CHUNK = 48  # pictures: a few seconds of work, so that an interruption costs little
BATCH = 96  # pictures in one run of a tail, so that its largest activation fits into caches


@dataclass
class Counts:
    """Pictures of one operating point: all, those answered right, and sums of their bytes and of the bytes' squares.

    Where an answer is right in part, `right` has shares of pictures.
    """

    n: int = 0
    right: float = 0
    bytes_sum: float = 0.0
    bytes_square: float = 0.0

    @classmethod
    def of(cls, right: Tensor, sizes: Sequence[int]) -> Counts:
        """Counts of a few pictures. `right` `[B]`: True where the answer is, `sizes`: bytes of the payloads."""
        return cls(len(right), int(right.sum()), float(sum(sizes)), float(sum(s * s for s in sizes)))

    def add(self, other: Counts) -> None:
        """Add other pictures' counts."""
        self.n += other.n
        self.right += other.right
        self.bytes_sum += other.bytes_sum
        self.bytes_square += other.bytes_square

    def columns(self) -> dict[str, Any]:
        """Accuracy with its 95 % interval, mean and standard deviation of the bytes, number of pictures."""
        mean = self.bytes_sum / self.n
        deviation = math.sqrt(max(0.0, self.bytes_square / self.n - mean * mean))
        interval = wilson(self.right, self.n)
        return {
            "accuracy": self.right / self.n, "accuracy_ci95": interval, "bytes_mean": mean, "bytes_std": deviation,
            "n": self.n,
        }  # fmt: skip


Work = Callable[[str, Path | None, Bytes, Tensor, Any], dict[str, Counts]]
"""From a CNN's name, its weights, pictures uint8 `[B, px, px, 3]`, labels `[B]` and names to counts by name."""


def count(
    work: Work, name: str, weights: Path | None, images: Path, wanted: Sequence[Any], limit: int, kept: Path, jobs: int,
    ray: str | None = None,
) -> dict[str, Counts]:  # fmt: skip
    """Counts by point id over the first `limit` pictures of a fixed shuffle; 0 for all.

    Args:
        work: a function of a module, since other processes run it too.
        wanted: ids of points, or pairs of ids.
        kept: file of finished chunks.
        jobs: processes.
        ray: address of a Ray cluster to run on instead.

    Raises:
        ValueError, FileNotFoundError: class folders that the CNN does not know, or no readable picture.
    """
    from tidesplit.profiling.measuring.spread import run_chunks

    trained = load_trained(name, weights)
    files, labels, _ = list_pictures(images, trained.classes)
    order = np.random.default_rng(0).permutation(len(files))[: limit or None]
    files, labels = [files[i] for i in order], labels[order]
    key = hashlib.sha256(json.dumps([trained.sha256, sorted(wanted), [str(f) for f in files]]).encode()).hexdigest()
    threads = max(1, torch.get_num_threads() // max(1, jobs))
    spans = [slice(i, i + CHUNK) for i in range(0, len(files), CHUNK)]
    arguments = [(name, weights, files[s], labels[s], list(wanted), threads) for s in spans]
    totals: dict[str, Counts] = defaultdict(Counts)
    for found in run_chunks(partial(_chunk, work), arguments, kept, key, jobs, ray):
        for point, some in found.items():
            totals[point].add(Counts(**some))
    return totals


def _chunk(
    work: Work, name: str, weights: Path | None, files: list[Path], labels: Any, wanted: list[Any], threads: int
) -> dict[str, dict[str, Any]]:
    """Counts of a few pictures as plain values, fit for the file of finished chunks."""
    torch.set_num_threads(threads)
    px = load_trained(name, weights).system.net.input_px
    pixels = np.stack([load_square(path, px) for path in files])
    with torch.inference_mode():
        found = work(name, weights, pixels, torch.from_numpy(labels), wanted)
    return {point: asdict(some) for point, some in found.items()}


@lru_cache(maxsize=8)
def tail_of(name: str, weights: Path | None, partition: int) -> onnxruntime.InferenceSession:
    """A tail as the server runs it."""
    model = tail_model(load_trained(name, weights).system, partition)
    return session(model.SerializeToString(), torch.get_num_threads())


def right(tail: onnxruntime.InferenceSession, x: Tensor, labels: Tensor) -> Tensor:
    """True `[B]` where a tail answers its input `x` `[B, ...]` right."""
    answers = [tail.run(None, {"x": part.numpy()})[0].argmax(1) for part in torch.split(x.contiguous(), BATCH)]
    return torch.from_numpy(np.concatenate(answers)) == labels
