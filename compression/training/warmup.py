"""Phase 6: set the cuts back to the uncut net as it is now, and teach each new bottleneck to rebuild its feature.

Each tail starts as the uncut net's own, so a well rebuilt feature gets that net's answer. Tails kept from before the
full width was trained did worse: they erred on the uncut net's exact feature about as much as on the rebuilt one. One
frozen pass of the network serves all cuts, and no gradient passes through the tails.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tidesplit.compression.codec.knobs import BITS
from tidesplit.compression.net.measure import autocast
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.phase.parts import by_steps
from tidesplit.compression.phase.phase_loop import Phase, TrainingJob
from tidesplit.compression.pictures.labelled import CropStyle
from tidesplit.models.slim import set_of_ratio

RATE = 3e-3
WARMUP = 20  # steps in which the rate rises


@torch.no_grad()
def _match_scale(system: SplitNet, partition: int, feature: Tensor) -> None:
    """Start a decoder at the mean and deviation of the feature that it has to rebuild."""
    norm = system.bottleneck(partition).expand_norm
    norm.weight.copy_(feature.float().std(dim=(0, 2, 3)))
    norm.bias.copy_(feature.float().mean(dim=(0, 2, 3)))


def _loss(system: SplitNet, partition: int, ratio: float, feature: Tensor, rng: np.random.Generator) -> Tensor:
    """Squared error in units of each channel's variance. Bits and region are drawn for each picture."""
    rows = torch.from_numpy(rng.integers(len(BITS), size=len(feature))).to(feature.device)
    share = torch.from_numpy(np.where(rng.random(len(feature)) < 0.25, 0.5, 1.0)).to(feature.device)
    with autocast(feature.device):
        rebuilt = system.bottleneck(partition)(feature, set_of_ratio(ratio), rows, share)
    variance = feature.float().var(dim=(0, 2, 3), keepdim=True) + 1e-3
    error: Tensor = ((rebuilt.float() - feature.float()).square() / variance).mean()
    return error


def warm_bottlenecks(system: SplitNet, job: TrainingJob) -> None:
    """Renew the cuts asked for and train their bottlenecks in place. Of the CNN only the tails of these cuts change."""
    config, partitions = job.config, job.config.cuts(system.partitions)
    for partition in partitions:
        system.renew(partition, job.device)
    system.eval()
    trained = nn.ModuleList(system.bottleneck(p) for p in partitions).train()
    phase = Phase(
        job, "warmup", steps=config.warmup_steps, schedule=by_steps(config.warmup_steps, WARMUP),
        optimizer=torch.optim.AdamW(trained.parameters(), lr=RATE, weight_decay=0.0),
        groups=[list(trained.parameters())],
    )  # fmt: skip
    style = CropStyle(config.start_px, (config.crop_area, 1.0))
    for image, _ in phase.batches(config.seed + 4, lambda _: style):
        rng = np.random.default_rng((config.seed, 4, phase.done))
        with torch.no_grad(), autocast(job.device):
            ratio = float(rng.choice(system.ratios))
            features = system.net.heads(image, set_of_ratio(ratio), max(partitions))
        errors = {}
        for partition in partitions:
            feature = features[partition - 1]
            if phase.done == 0:
                _match_scale(system, partition, feature)
            loss = _loss(system, partition, ratio, feature, rng)
            loss.backward()  # type: ignore[no-untyped-call]
            errors[f"error-{partition}"] = loss.item()
        phase.step(errors)
    phase.finish()
