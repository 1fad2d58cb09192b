"""Phase 3: one training run for every width, cut, region and bit width (sandwich rule, self-distillation).

A step sums four losses: the full-width uncut net (every other step, in turn on clean pictures and on pictures from
JPEG or WebP), one slim device-only net, and two random cuts. Bits and region are drawn picture by picture, and ratios
for parts of the batch, so that a tail's BatchNorm sees in each batch the mixture it will serve. The target is half
the label, half the answer of the frozen fine-tuned net to the same crop.
"""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from compression.config import TrainConfig
from compression.knobs import BITS, RATIOS
from compression.loop import Average, Progress, ThreadChooser, cosine, load_checkpoint, save_checkpoint, set_rate
from compression.measure import autocast
from compression.pictures import CropStyle, Ints, Pictures, batches, recoded
from compression.system import SplitNet
from models.slim import SlimNet

__all__ = ["sandwich"]

SLIM_SHARES = (0.45, 0.30, 0.25)  # device-only draws of ratio 0.25, 0.5, 0.75: the narrowest is farthest from its start
RATIO_SHARES = (0.12, 0.19, 0.25, 0.44)  # of a batch at a cut, by ratio
BIT_SHARES = (0.3, 0.35, 0.25, 0.1)
REGION_SHARE = 0.3  # share of pictures that send half the positions
TEACHER = 0.5  # weight of the teacher's answer in the target
CUTS_A_STEP = 2
SMALL_UNTIL = 0.7  # share of the phase that runs on small crops


def _optimizer(system: SplitNet, config: TrainConfig) -> torch.optim.Optimizer:
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in system.named_parameters():
        groups.setdefault((name.startswith("bottlenecks"), parameter.dim() > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": members,
                "base_lr": config.sandwich_lr * (5.0 if new else 1.0),
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (new, decays), members in groups.items()
        ],
        lr=config.sandwich_lr,
    )


def _losses(
    system: SplitNet, image: Tensor, target: Tensor, step: int, rng: np.random.Generator, config: TrainConfig
) -> dict[str, Tensor]:
    """Backward of each path in turn (so that only one path's activations live at a time); losses by path."""
    losses: dict[str, Tensor] = {}

    def backward(name: str, logits: Tensor, weight: float) -> None:
        loss = F.cross_entropy(logits.float(), target)
        (loss * weight).backward()  # type: ignore[no-untyped-call]
        losses[name] = loss.detach()

    device = image.device
    if step % 4 == 0:
        with autocast(device):
            logits = system.device(image, 1.0)
        backward("full", logits, 1.0)
    elif step % 4 == 2:
        coded = recoded(image, CropStyle(config.px), rng)
        with autocast(device):
            logits = system.offload(coded)
        backward("image", logits, 1.0)
    ratio = float(rng.choice(RATIOS[:3], p=SLIM_SHARES))
    with autocast(device):
        logits = system.device(image, ratio)
    backward(f"device-{ratio}", logits, 0.7)
    partitions = rng.choice(len(system.net.cuts), size=CUTS_A_STEP, replace=False) + 1
    for partition in partitions.tolist():
        rows = torch.from_numpy(rng.choice(len(BITS), size=len(image), p=BIT_SHARES)).to(device)
        share = torch.from_numpy(np.where(rng.random(len(image)) < REGION_SHARE, 0.5, 1.0)).to(device)
        with autocast(device):
            logits = system.mixed_cut(image, partition, _sizes(len(image)), rows, share)
        backward(f"cut-{partition}", logits, 0.7)
    return losses


def _sizes(batch: int) -> list[int]:
    """How many pictures of a batch run at each ratio."""
    edges = [round(batch * sum(RATIO_SHARES[: i + 1])) for i in range(len(RATIOS))]
    return [edge - before for before, edge in zip([0, *edges], edges, strict=False)]


def _target(teacher: SlimNet, image: Tensor, label: Tensor) -> Tensor:
    with torch.no_grad(), autocast(image.device):
        soft: Tensor = teacher(image, "r100").float().softmax(1)
    target: Tensor = TEACHER * soft + (1 - TEACHER) * F.one_hot(label, soft.shape[1])
    return target


def sandwich(
    system: SplitNet, teacher: SlimNet, pictures: Pictures, index: Ints, config: TrainConfig, device: torch.device
) -> None:
    """Train in place; on return the system holds the averaged weights. Checkpoint every ten minutes or epoch."""
    path = config.folder / "sandwich.pt"
    optimizer, average = _optimizer(system, config), Average(system, config.average)
    teacher.eval()
    per_epoch = len(index) // config.batch
    steps = int(per_epoch * config.sandwich_epochs)
    spent, done = _resume(path, system, optimizer, average) if config.resume and path.exists() else (0.0, 0)
    progress = Progress("sandwich", steps, done)
    log = SummaryWriter(str(config.folder / "tensorboard"))
    smooth: dict[str, float] = {}
    chooser = ThreadChooser(config.threads if device.type == "cpu" else 1)
    start = last_save = time.perf_counter()
    system.train()
    epoch = progress.done // per_epoch
    fraction = progress.done / steps
    while fraction < 1.0:
        style = CropStyle(config.start_px if fraction < SMALL_UNTIL else config.px, (config.crop_area, 1.0))
        for image, label in batches(pictures, index, config.batch, style, config.seed + 2, epoch):
            step = progress.done
            rng = np.random.default_rng((config.seed, 3, step))
            image, label = image.to(device), label.to(device)
            used = spent + time.perf_counter() - start
            fraction = used / (60 * config.minutes) if config.minutes else step / steps
            if fraction >= 1.0:
                break
            warm = min(1.0, (step + 1) / 100)
            set_rate(optimizer, warm * cosine(round(fraction * 10000), 10000, 0))
            optimizer.zero_grad()
            losses = _losses(system, image, _target(teacher, image, label), step, rng, config)
            torch.nn.utils.clip_grad_norm_([p for p in system.parameters() if p.grad is not None], 5.0)
            optimizer.step()
            average.update(system)
            chooser.step()
            for name, loss in losses.items():
                smooth[name] = 0.95 * smooth.get(name, loss.item()) + 0.05 * loss.item()
            if progress.step([("used", fraction), ("threads", torch.get_num_threads()), *sorted(smooth.items())]):
                for name, value in smooth.items():
                    log.add_scalar(f"sandwich/{name}", value, step)
            if time.perf_counter() - last_save > 240:
                last_save = time.perf_counter()
                save_checkpoint(
                    path, step=progress.done, seconds=used, system=system.state_dict(), average=average.weights,
                    optimizer=optimizer.state_dict(), average_steps=average.steps,
                )  # fmt: skip
        epoch += 1
    average.copy_to(system)
    log.close()


def _resume(path: object, system: SplitNet, optimizer: torch.optim.Optimizer, average: Average) -> tuple[float, int]:
    state = load_checkpoint(path)  # type: ignore[arg-type]
    system.load_state_dict(state["system"])
    optimizer.load_state_dict(state["optimizer"])
    average.weights, average.steps = state["average"], state["average_steps"]
    return float(state["seconds"]), int(state["step"])
