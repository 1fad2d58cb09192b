"""Phase 4: teach every bottleneck to rebuild its feature, before anything behind it is asked for an answer.

One frozen pass of the network serves all cuts, nothing is propagated through the tails: some hundred steps cost
what thirty steps of the joint phase do, and spare the shared weights the gradients of untrained decoders.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from compression.config import TrainConfig
from compression.knobs import BITS, RATIOS
from compression.loop import Progress, ThreadChooser, cosine, set_rate
from compression.measure import autocast
from compression.pictures import CropStyle, Ints, Pictures, batches
from compression.system import SplitNet
from models.slim import set_of_ratio

__all__ = ["warm_bottlenecks"]

RATE = 3e-3


@torch.no_grad()
def _match_scale(system: SplitNet, features: list[Tensor]) -> None:
    """Let decoders start at the mean and deviation of the feature they are to rebuild."""
    for partition, feature in enumerate(features, start=1):
        norm = system.bottleneck(partition).expand_norm
        norm.weight.copy_(feature.float().std(dim=(0, 2, 3)))
        norm.bias.copy_(feature.float().mean(dim=(0, 2, 3)))


def _loss(system: SplitNet, partition: int, feature: Tensor, rng: np.random.Generator) -> Tensor:
    """Squared error in units of each channel's variance; width, bits and region drawn at random."""
    ratio = float(rng.choice(RATIOS))
    rows = torch.from_numpy(rng.integers(len(BITS), size=len(feature))).to(feature.device)
    share = torch.from_numpy(np.where(rng.random(len(feature)) < 0.25, 0.5, 1.0)).to(feature.device)
    with autocast(feature.device):
        rebuilt = system.bottleneck(partition)(feature, set_of_ratio(ratio), rows, share)
    variance = feature.float().var(dim=(0, 2, 3), keepdim=True) + 1e-3
    error: Tensor = ((rebuilt.float() - feature.float()).square() / variance).mean()
    return error


def warm_bottlenecks(
    system: SplitNet, pictures: Pictures, index: Ints, config: TrainConfig, device: torch.device
) -> None:
    """Train the bottlenecks in place; the CNN stays as it is."""
    system.net.eval()
    system.bottlenecks.train()
    optimizer = torch.optim.AdamW(system.bottlenecks.parameters(), lr=RATE, weight_decay=0.0)
    optimizer.param_groups[0]["base_lr"] = RATE
    progress = Progress("warm-up", config.warmup_steps)
    chooser = ThreadChooser(config.threads if device.type == "cpu" else 1)
    errors = [0.0] * len(system.net.cuts)
    epoch = 0
    while progress.done < config.warmup_steps:
        style = CropStyle(config.start_px, (config.crop_area, 1.0))
        for image, _ in batches(pictures, index, config.batch, style, config.seed + 4, epoch):
            rng = np.random.default_rng((config.seed, 4, progress.done))
            set_rate(optimizer, cosine(progress.done, config.warmup_steps, 20))
            with torch.no_grad(), autocast(device):
                features, _ = system.net.features(image.to(device), "r100")
            if progress.done == 0:
                _match_scale(system, features)
            optimizer.zero_grad()
            for partition, feature in enumerate(features, start=1):
                loss = _loss(system, partition, feature, rng)
                loss.backward()  # type: ignore[no-untyped-call]
                errors[partition - 1] += 0.05 * (loss.item() - errors[partition - 1])
            torch.nn.utils.clip_grad_norm_(system.bottlenecks.parameters(), 5.0)
            optimizer.step()
            chooser.step()
            progress.step([(f"error-{i}", e) for i, e in enumerate(errors, start=1)])
            if progress.done >= config.warmup_steps:
                break
        epoch += 1
