"""Training crops as the frozen heads see them, computed once: features at every cut, and the target.

Heads do not change while bottlenecks and tails are refined, so each crop's head and teacher run once and every
partition trains from the same file. One epoch is one folder; it takes its name when it is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compression.config import TrainConfig
from compression.knobs import RATIOS
from compression.loop import Progress
from compression.measure import autocast
from compression.pictures import CropStyle, Ints, Pictures, batches
from compression.system import SplitNet
from compression.teacher import Teacher
from models.slim import set_of_ratio

__all__ = ["Crop", "epochs_in", "read_crops", "write_epoch"]

RATIO_SHARES = (0.15, 0.2, 0.25, 0.4)


@dataclass(frozen=True)
class Crop:
    """One batch at one cut: the head's ratio, features `[B, C, H, W]` float32, target `[B, classes]`."""

    ratio: float
    feature: Tensor
    target: Tensor


def _create(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float16]]:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)


def write_epoch(
    folder: Path, epoch: int, system: SplitNet, teacher: Teacher, pictures: Pictures, index: Ints,
    px: int, config: TrainConfig, device: torch.device,
) -> None:  # fmt: skip
    """One crop of every picture of `index` (but the last incomplete batch). Does nothing if the epoch is there."""
    final = folder / f"crops-{epoch:02d}"
    if final.exists():
        return
    partial = folder / f"crops-{epoch:02d}.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    net, size = system.net.eval(), config.batch
    count = len(index) // size
    shapes = [net.feature_shape(cut, px) for cut in net.cuts]
    files = [_create(partial / f"p{p}.npy", (count, size, h, w, c)) for p, (c, h, w) in enumerate(shapes, start=1)]
    targets = _create(partial / "targets.npy", (count, size, net.classes))
    rng = np.random.default_rng((config.seed, 7, epoch))
    ratios = rng.choice(RATIOS, size=count, p=RATIO_SHARES)
    np.save(partial / "ratios.npy", ratios)
    progress = Progress(f"crops, epoch {epoch}", count)
    style = CropStyle(px, (config.crop_area, 1.0))
    for i, (image, label) in enumerate(batches(pictures, index, size, style, config.seed + 7, epoch)):
        image = image.to(device)
        with torch.no_grad(), autocast(device):
            features, _ = net.features(image, set_of_ratio(float(ratios[i])))
            soft = teacher(image).cpu()
        hard = F.one_hot(label, net.classes).float()
        targets[i] = (config.teacher_share * soft + (1 - config.teacher_share) * hard).numpy()
        for file, feature in zip(files, features, strict=True):
            file[i] = feature.float().permute(0, 2, 3, 1).cpu().numpy()
        progress.step([])
    for file in (*files, targets):
        file.flush()
    os.replace(partial, final)


def epochs_in(folder: Path) -> list[Path]:
    """Complete epochs, oldest first."""
    return sorted(path for path in folder.glob("crops-*") if path.suffix != ".tmp")


def read_crops(folder: Path, partition: int, rng: np.random.Generator) -> Iterator[Crop]:
    """Every batch of every complete epoch at one cut, all in random order."""
    epochs = epochs_in(folder)
    if not epochs:
        raise FileNotFoundError(f"{folder} has no crops: call write_epoch first")
    features = [np.load(path / f"p{partition}.npy", mmap_mode="r") for path in epochs]
    targets = [np.load(path / "targets.npy", mmap_mode="r") for path in epochs]
    ratios = [np.load(path / "ratios.npy") for path in epochs]
    places = [(epoch, i) for epoch, found in enumerate(ratios) for i in range(len(found))]
    for k in rng.permutation(len(places)):
        epoch, i = places[k]
        feature = torch.from_numpy(features[epoch][i].astype(np.float32)).permute(0, 3, 1, 2)
        yield Crop(float(ratios[epoch][i]), feature, torch.from_numpy(targets[epoch][i].astype(np.float32)))
