"""Phase 6: refine the bottlenecks and the tails' BatchNorm scales with everything else frozen.

All statistics stay as calibrated, so the net that is trained is exactly the one that is deployed; heads, device-only
nets and image offload do not change at all. One pass of the network serves the heads of all cuts.
"""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compression.config import TrainConfig
from compression.knobs import BITS, RATIOS
from compression.loop import Average, Progress, ThreadChooser, cosine, set_rate
from compression.measure import autocast
from compression.pictures import CropStyle, Ints, Pictures, batches
from compression.system import SplitNet
from models.slim import set_of_partition, set_of_ratio

__all__ = ["refine"]

RATE = 1.5e-3
RATIO_SHARES = (0.2, 0.25, 0.2, 0.35)
BIT_SHARES = (0.25, 0.35, 0.3, 0.1)
REGION_SHARE = 0.25
TEACHER = 0.6


def _trained(system: SplitNet) -> nn.ParameterList:
    """Bottlenecks, and the BatchNorm scales and shifts of the inner partitions' tails."""
    sets = {set_of_partition(p) for p in range(1, system.net.partitions)}
    scales = [p for name, p in system.net.named_parameters() if sets & set(name.split("."))]
    return nn.ParameterList([*system.bottlenecks.parameters(), *scales])


def _step(system: SplitNet, image: Tensor, label: Tensor, rng: np.random.Generator, losses: list[float]) -> None:
    """Backward of every cut at one drawn ratio; bits and region are drawn picture by picture."""
    ratio = float(rng.choice(RATIOS, p=RATIO_SHARES))
    with autocast(image.device), torch.no_grad():
        features, logits = system.net.features(image, set_of_ratio(ratio))
        if ratio < 1.0:
            logits = system.device(image, 1.0)
    logits = logits.float()
    target = TEACHER * logits.softmax(1) + (1 - TEACHER) * F.one_hot(label, logits.shape[1])
    for partition, feature in enumerate(features, start=1):
        rows = torch.from_numpy(rng.choice(len(BITS), size=len(image), p=BIT_SHARES)).to(image.device)
        share = torch.from_numpy(np.where(rng.random(len(image)) < REGION_SHARE, 0.5, 1.0)).to(image.device)
        with autocast(image.device):
            rebuilt = system.bottleneck(partition)(feature, set_of_ratio(ratio), rows, share)
            answer = system.net.tail(rebuilt, set_of_partition(partition), system.net.cuts[partition - 1])
        loss = F.cross_entropy(answer.float(), target)
        loss.backward()  # type: ignore[no-untyped-call]
        losses[partition - 1] += 0.05 * (loss.item() - losses[partition - 1])


def refine(system: SplitNet, pictures: Pictures, index: Ints, config: TrainConfig, device: torch.device) -> None:
    """Train in place, for `refine_steps` or, if given, `refine_minutes`; on return the averaged weights are in."""
    system.eval()
    trained = _trained(system)
    system.requires_grad_(False)
    trained.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=RATE, weight_decay=0.0)
    optimizer.param_groups[0]["base_lr"] = RATE
    average = Average(trained, 0.99)
    progress = Progress("refine", config.refine_steps)
    chooser = ThreadChooser(config.threads if device.type == "cpu" else 1)
    losses = [1.0] * len(system.net.cuts)
    start, epoch, fraction = time.perf_counter(), 0, 0.0
    while fraction < 1.0:
        style = CropStyle(config.px, (config.crop_area, 1.0))
        for image, label in batches(pictures, index, config.batch, style, config.seed + 5, epoch):
            spent = (time.perf_counter() - start) / 60
            fraction = spent / config.refine_minutes if config.refine_minutes else progress.done / config.refine_steps
            if fraction >= 1.0:
                break
            rng = np.random.default_rng((config.seed, 5, progress.done))
            set_rate(optimizer, min(1.0, (progress.done + 1) / 20) * cosine(round(fraction * 10000), 10000, 0))
            optimizer.zero_grad()
            _step(system, image.to(device), label.to(device), rng, losses)
            torch.nn.utils.clip_grad_norm_(trained.parameters(), 5.0)
            optimizer.step()
            average.update(trained)
            chooser.step()
            progress.step([("used", fraction), *((f"cut-{i}", loss) for i, loss in enumerate(losses, start=1))])
        epoch += 1
    average.copy_to(trained)
    system.requires_grad_(True)
