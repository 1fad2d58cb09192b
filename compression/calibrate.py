"""Phase 5: exact BatchNorm statistics at the deployed picture size, for every width set and bottleneck."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from compression.knobs import BITS, RATIOS
from compression.measure import recalibrate
from compression.pictures import Bytes, CropStyle, recoded
from compression.system import SplitNet
from models.slim import WidthNorm, set_of_partition, set_of_ratio

__all__ = ["calibrate"]


def _norms_of(module: nn.Module, width_set: str) -> list[nn.BatchNorm2d]:
    """BatchNorms of one width set anywhere under `module`."""
    found: list[nn.BatchNorm2d] = []
    for child in module.modules():
        if isinstance(child, WidthNorm) and width_set in child.norms:
            norm = child.norms[width_set]
            assert isinstance(norm, nn.BatchNorm2d)
            found.append(norm)
    return found


def _decoder_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    """BatchNorms outside any width set."""
    inside = {id(n) for m in module.modules() if isinstance(m, WidthNorm) for n in m.norms.values()}
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and id(m) not in inside]


def _calibrate_ratio(system: SplitNet, ratio: float, images: Bytes) -> None:
    """Device-only net and every encoder at one ratio, in one pass."""
    width_set, net = set_of_ratio(ratio), system.net

    def run(image: Tensor) -> None:
        for partition, feature in enumerate(net.features(image, width_set)[0], start=1):
            system.bottleneck(partition).encode(feature, width_set)

    recalibrate(run, _norms_of(system, width_set), images)


def _calibrate_tail(system: SplitNet, partition: int, images: Bytes, rng: np.random.Generator) -> None:
    """Decoder and tail over the mixture of ratios, bits and regions they serve."""

    def run(image: Tensor) -> None:
        rows = torch.from_numpy(rng.integers(len(BITS), size=len(image)))
        share = torch.from_numpy(np.where(rng.random(len(image)) < 0.3, 0.5, 1.0))
        sizes = [len(part) for part in np.array_split(np.arange(len(image)), len(RATIOS))]
        system.mixed_cut(image, partition, sizes, rows.to(image.device), share.to(image.device))

    norms = _norms_of(system.net, set_of_partition(partition)) + _decoder_norms(system.bottleneck(partition))
    recalibrate(run, norms, images)


def calibrate(system: SplitNet, images: Bytes, seed: int) -> None:
    """Recompute all statistics from training pictures uint8 `[N, px, px, 3]`; leaves the system in eval mode."""
    system.eval()
    rng = np.random.default_rng(seed)
    for ratio in RATIOS:
        _calibrate_ratio(system, ratio, images)
    recalibrate(
        lambda image: system.offload(recoded(image, CropStyle(), rng)),
        _norms_of(system.net, set_of_partition(0)), images,
    )  # fmt: skip
    for partition in range(1, len(system.net.cuts) + 1):
        _calibrate_tail(system, partition, images, rng)
    system.eval()
