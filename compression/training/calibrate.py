"""Phase 4: exact BatchNorm statistics at the deployed picture size, for every width and for image offload."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import nn

from tidesplit.compression.net.measure import recalibrate
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.labelled import Bytes, CropStyle, recoded
from tidesplit.models.slim import WidthNorm, set_of_partition, set_of_ratio


def _norms_of(module: nn.Module, width_set: str) -> list[nn.BatchNorm2d]:
    """All BatchNorms of one width set in `module`."""
    found: list[nn.BatchNorm2d] = []
    for child in module.modules():
        if isinstance(child, WidthNorm) and width_set in child.norms:
            norm = child.norms[width_set]
            assert isinstance(norm, nn.BatchNorm2d)
            found.append(norm)
    return found


def calibrate(system: SplitNet, images: Bytes, seed: int) -> None:
    """Recompute all statistics from training pictures uint8 `[N, px, px, 3]`. Leaves the system in eval mode."""
    system.eval()
    rng = np.random.default_rng(seed)
    for ratio in system.ratios:
        recalibrate(partial(system.device, ratio=ratio), _norms_of(system.net, set_of_ratio(ratio)), images)
    recalibrate(
        lambda image: system.offload(recoded(image, CropStyle(), rng)),
        _norms_of(system.net, set_of_partition(0)), images,
    )  # fmt: skip
    system.eval()
