"""What the net makes of training pictures, computed once: the feature at every cut, and the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tidesplit.compression.pictures.labelled import CropStyle, Pictures, batches
from tidesplit.prepare.cut_net import Part, run

CROPS = 4096
"""Training crops, if their features fit: several of each picture."""
CROPS_EACH = 8
"""Most crops of one picture."""
LARGEST_BYTES = 384 * 2**20
"""Of one cut's features, or of the answers. Large ones are kept of fewer crops."""
AREA = (0.5, 1.0)  # share of the picture that a crop shows
LOGITS = "logits.npy"


class Cached:
    """Features at one cut and the uncut net's answers, from the folder that `cache_features` wrote."""

    def __init__(self, folder: Path, partition: int) -> None:
        self._features: npt.NDArray[np.float16] = np.load(folder / _file(partition), mmap_mode="r")
        self._logits: npt.NDArray[np.float32] = np.load(folder / LOGITS, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._features)

    def rows(self, which: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Features `[B, C, H, W]` and answers `[B, N]` of some crops."""
        return torch.from_numpy(self._features[which].astype(np.float32)), torch.from_numpy(self._logits[which])


def _file(partition: int) -> str:
    return f"feature-p{partition}.npy"


def crops_of(features: Sequence[tuple[int, ...]], batch: int, pictures: int, values: int = 1) -> list[int]:
    """Crops to keep for each cut, in whole batches, from the features' shapes `[C, H, W]` and an answer's `values`."""
    most = min(CROPS, CROPS_EACH * pictures, LARGEST_BYTES // (4 * values))
    sizes = [2 * int(np.prod(shape)) for shape in features]
    return [max(batch, min(most, LARGEST_BYTES // size) // batch * batch) for size in sizes]


@torch.no_grad()
def cache_features(
    parts: Sequence[Part], pictures: Pictures, px: int, crops: Sequence[int], batch: int, seed: int, half: bool,
    folder: Path, show: Callable[[float], None],
) -> None:  # fmt: skip
    """Write the features of random crops, as half floats, and the answers.

    Args:
        parts: of the net, for batches of that size.
        pictures: to draw crops from, larger than the net's.
        px: side of a crop.
        crops: to keep, by cut.
        batch: pictures in one run.
        seed: of the crops.
        half: True where bfloat16 is quicker on this machine.
        folder: to write.
        show: called with the share that is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    most, done, kept = max(crops), 0, dict[str, npt.NDArray[np.float16 | np.float32]]()
    for image in _crops(pictures, px, batch, seed):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found = []
            for part in parts:
                image = run([part], image)
                found.append(image.float().numpy())
        for p, values in enumerate(found, start=1):
            last = p == len(parts)
            name, size = (LOGITS, most) if last else (_file(p), crops[p - 1])
            if name not in kept:
                kind = np.float32 if last else np.float16
                kept[name] = np.lib.format.open_memmap(folder / name, "w+", kind, (size, *values.shape[1:]))
            rows = kept[name][done : done + batch]
            rows[:] = values[: len(rows)] if last else np.clip(values[: len(rows)], -65504, 65504)
        done += batch
        show(done / most)
        if done >= most:
            break


def _crops(pictures: Pictures, px: int, batch: int, seed: int) -> Iterator[Tensor]:
    every, style = np.arange(len(pictures.labels)), CropStyle(px, AREA)
    for epoch in count():
        for image, _ in batches(pictures, every, batch, style, seed, epoch):
            yield image


def half_is_quicker(parts: Sequence[Part], image: Tensor) -> bool:
    """True where bfloat16 takes less time than float32 on this machine, for a batch `[B, 3, px, px]`."""
    times = {}
    with torch.no_grad():
        for half in (False, True, False, True):
            begun_s = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                run(parts, image)
            times[half] = time.perf_counter() - begun_s
    return times[True] < 0.8 * times[False]
