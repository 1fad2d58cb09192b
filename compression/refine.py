"""Phase 7: refine bottlenecks and tails, one partition after the other, with everything that they share frozen.

Of a partition are its bottleneck, and its tail's BatchNorm scales and low-rank additions. All statistics stay as
calibrated, so the net that is trained is exactly the one that is deployed; heads, device-only nets and image offload do
not change at all. Features come from `compression.crops`: no head runs here.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compression.config import TrainConfig
from compression.crops import Crop, read_crops
from compression.knobs import BITS
from compression.loop import Average, Progress, ThreadChooser, cosine, load_checkpoint, save_checkpoint, set_rate
from compression.measure import autocast
from compression.system import SplitNet
from models.slim import set_of_partition, set_of_ratio

__all__ = ["refine", "refine_partition", "trained_of"]

RATE = 1.5e-3
BIT_SHARES = (0.2, 0.4, 0.3, 0.1)
REGION_SHARE = 0.3
SAVE_S = 120.0


def trained_of(system: SplitNet, partition: int) -> nn.ParameterList:
    """What belongs to one inner partition alone."""
    name = set_of_partition(partition)
    own = [p for title, p in system.net.named_parameters() if name in title.split(".")]
    return nn.ParameterList([*system.bottleneck(partition).parameters(), *own])


def _loss(system: SplitNet, partition: int, crop: Crop, rng: np.random.Generator, device: torch.device) -> Tensor:
    """Cross-entropy through the cut; bits and region are drawn picture by picture."""
    size = len(crop.target)
    rows = torch.from_numpy(rng.choice(len(BITS), size=size, p=BIT_SHARES)).to(device)
    share = torch.from_numpy(np.where(rng.random(size) < REGION_SHARE, 0.5, 1.0)).to(device)
    with autocast(device):
        width_set = set_of_ratio(crop.ratio)
        rebuilt = system.bottleneck(partition)(crop.feature.to(device), width_set, rows, share)
        answer = system.net.tail(rebuilt, set_of_partition(partition), system.net.cuts[partition - 1])
    return F.cross_entropy(answer.float(), crop.target.to(device))


def _resume(path: Path, trained: nn.ParameterList, optimizer: torch.optim.Optimizer, average: Average) -> float:
    """Fill in what a checkpoint holds; the seconds it had been trained for."""
    state = load_checkpoint(path)
    optimizer.load_state_dict(state["optimizer"])
    average.weights, average.steps = state["average"], state["step"]
    with torch.no_grad():
        for parameter, value in zip(trained, state["weights"], strict=True):
            parameter.copy_(value)
    return float(state["spent_s"])


def refine_partition(system: SplitNet, partition: int, folder: Path, config: TrainConfig, device: torch.device) -> None:
    """Train one partition in place, for `refine_steps` or, if given, `refine_minutes`; averaged weights on return."""
    system.eval()
    trained = trained_of(system, partition)
    system.requires_grad_(False)
    trained.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=RATE, weight_decay=0.0)
    optimizer.param_groups[0]["base_lr"] = RATE
    average = Average(trained, 0.99)
    path = config.folder / f"refine-p{partition}.pt"
    before_s = _resume(path, trained, optimizer, average) if config.resume and path.exists() else 0.0
    progress = Progress(f"refine p{partition}", config.refine_steps, average.steps)
    chooser = ThreadChooser(config.threads if device.type == "cpu" else 1)
    losses: dict[float, float] = {}
    start = last_save = time.perf_counter()
    fraction = 0.0
    while fraction < 1.0:
        pick = np.random.default_rng((config.seed, 5, partition, progress.done))
        for crop in read_crops(folder, partition, pick):
            spent = before_s + time.perf_counter() - start
            limit = 60 * config.refine_minutes
            fraction = spent / limit if limit else progress.done / config.refine_steps
            if fraction >= 1.0:
                break
            rng = np.random.default_rng((config.seed, 5, partition, progress.done))
            set_rate(optimizer, min(1.0, (progress.done + 1) / 20) * cosine(round(fraction * 10000), 10000, 0))
            optimizer.zero_grad()
            loss = _loss(system, partition, crop, rng, device)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained.parameters(), 5.0)
            optimizer.step()
            average.update(trained)
            chooser.step()
            losses[crop.ratio] = 0.95 * losses.get(crop.ratio, loss.item()) + 0.05 * loss.item()
            progress.step([("used", fraction), *((f"c{r:.2f}", losses[r]) for r in sorted(losses))])
            if time.perf_counter() - last_save > SAVE_S:
                last_save = time.perf_counter()
                save_checkpoint(
                    path, spent_s=spent, step=progress.done, weights=[p.detach() for p in trained],
                    average=average.weights, optimizer=optimizer.state_dict(),
                )  # fmt: skip
    average.copy_to(trained)
    system.requires_grad_(True)


def refine(system: SplitNet, folder: Path, config: TrainConfig, device: torch.device) -> None:
    """The partitions asked for, in turn."""
    every = range(1, system.net.partitions)
    for partition in [int(p) for p in config.partitions.split(",") if p] or every:
        refine_partition(system, partition, folder, config, device)
