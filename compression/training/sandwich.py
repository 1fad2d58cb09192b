"""Phase 3: one training run for every channel ratio (sandwich rule, self-distillation).

A step sums three losses: the full-width net (in turn on clean pictures and on pictures from JPEG or WebP), the
narrowest net, and one in between. The target is half the label, half the answer of the frozen fine-tuned net to the
same crop; the slim nets also rebuild that net's features at every cut, so that one tail can serve every ratio's head.
"""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from tidesplit.compression.codec.knobs import RATIOS
from tidesplit.compression.net.measure import autocast
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.labelled import CropStyle, Ints, Pictures, batches, recoded
from tidesplit.compression.training.config import TrainConfig
from tidesplit.compression.training.loop import (
    Average,
    Progress,
    ThreadChooser,
    cosine,
    load_checkpoint,
    save_checkpoint,
    set_rate,
)
from tidesplit.models.slim import SlimNet, set_of_ratio

__all__ = ["sandwich"]

SLIM_SHARES = (0.55, 0.45)  # draws of ratio 0.5 and 0.75; the narrowest, farthest from its start, runs every step
TEACHER = 0.5  # weight of the teacher's answer in the target
FEATURES = 1.0  # weight of the rebuilt features
SMALL_UNTIL = 0.7  # share of the phase that runs on small crops


def _optimizer(net: SlimNet, config: TrainConfig) -> torch.optim.Optimizer:
    groups: dict[bool, list[torch.nn.Parameter]] = {}
    for parameter in net.parameters():
        groups.setdefault(parameter.dim() > 1, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "base_lr": config.sandwich_lr, "weight_decay": config.weight_decay if decays else 0.0}
            for decays, members in groups.items()
        ],
        lr=config.sandwich_lr,
    )


def _losses(
    system: SplitNet, teacher: SlimNet, image: Tensor, label: Tensor, step: int, rng: np.random.Generator,
    config: TrainConfig,
) -> dict[str, Tensor]:  # fmt: skip
    """Backward of each net in turn (so that only one net's activations live at a time); losses by net."""
    losses: dict[str, Tensor] = {}
    features, target = _target(teacher, image, label)

    def backward(name: str, logits: Tensor, further: Tensor | float = 0.0) -> None:
        loss = F.cross_entropy(logits.float(), target) + further
        loss.backward()  # type: ignore[no-untyped-call]
        losses[name] = loss.detach()

    if step % 4 < 3:
        with autocast(image.device):
            logits = system.device(image, 1.0)
        backward("full", logits)
    else:
        coded = recoded(image, CropStyle(config.px), rng)
        with autocast(image.device):
            logits = system.offload(coded)
        backward("image", logits)
    for ratio in (RATIOS[0], float(rng.choice(RATIOS[1:3], p=SLIM_SHARES))):
        with autocast(image.device):
            rebuilt, logits = system.net.features(image, set_of_ratio(ratio))
        backward(f"device-{ratio}", logits, FEATURES * _distance(rebuilt, features))
    return losses


def _distance(rebuilt: list[Tensor], features: list[Tensor]) -> Tensor:
    """Mean over cuts of the squared error in units of each channel's variance."""
    errors = [
        ((ours.float() - theirs).square() / (theirs.var(dim=(0, 2, 3), keepdim=True) + 1e-3)).mean()
        for ours, theirs in zip(rebuilt, (f.float() for f in features), strict=True)
    ]
    return torch.stack(errors).mean()


def _target(teacher: SlimNet, image: Tensor, label: Tensor) -> tuple[list[Tensor], Tensor]:
    """The teacher's features at every cut, and the target `[B, classes]`."""
    with torch.no_grad(), autocast(image.device):
        features, logits = teacher.features(image, "r100")
        soft = logits.float().softmax(1)
    return features, TEACHER * soft + (1 - TEACHER) * F.one_hot(label, soft.shape[1])


def sandwich(
    system: SplitNet, teacher: SlimNet, pictures: Pictures, index: Ints, config: TrainConfig, device: torch.device
) -> None:
    """Train in place; on return the net holds the averaged weights. Checkpoint every ten minutes or epoch."""
    path = config.folder / "sandwich.pt"
    net = system.net
    optimizer, average = _optimizer(net, config), Average(net, config.average)
    teacher.eval()
    per_epoch = len(index) // config.batch
    steps = int(per_epoch * config.sandwich_epochs)
    spent, done = _resume(path, net, optimizer, average) if config.resume and path.exists() else (0.0, 0)
    progress = Progress("sandwich", steps, done)
    log = SummaryWriter(str(config.folder / "tensorboard"))
    smooth: dict[str, float] = {}
    chooser = ThreadChooser(config.threads if device.type == "cpu" else 1)
    start = last_save = time.perf_counter()
    net.train()
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
            losses = _losses(system, teacher, image, label, step, rng, config)
            torch.nn.utils.clip_grad_norm_([p for p in net.parameters() if p.grad is not None], 5.0)
            optimizer.step()
            average.update(net)
            chooser.step()
            for name, loss in losses.items():
                smooth[name] = 0.95 * smooth.get(name, loss.item()) + 0.05 * loss.item()
            if progress.step([("used", fraction), ("threads", torch.get_num_threads()), *sorted(smooth.items())]):
                for name, value in smooth.items():
                    log.add_scalar(f"sandwich/{name}", value, step)
            if time.perf_counter() - last_save > 240:
                last_save = time.perf_counter()
                save_checkpoint(
                    path, step=progress.done, seconds=used, net=net.state_dict(), average=average.weights,
                    optimizer=optimizer.state_dict(), average_steps=average.steps,
                )  # fmt: skip
        epoch += 1
    average.copy_to(net)
    log.close()


def _resume(path: object, net: SlimNet, optimizer: torch.optim.Optimizer, average: Average) -> tuple[float, int]:
    state = load_checkpoint(path)  # type: ignore[arg-type]
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    average.weights, average.steps = state["average"], state["average_steps"]
    return float(state["seconds"]), int(state["step"])
