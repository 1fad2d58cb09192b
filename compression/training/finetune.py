"""Phase 1: fine-tune the full-width, uncut network; part of its pictures pass through JPEG or WebP."""

from __future__ import annotations

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.tensorboard import SummaryWriter

from tidesplit.compression.net.measure import autocast
from tidesplit.compression.pictures.labelled import CropStyle, Ints, Pictures, batches
from tidesplit.compression.training.config import TrainConfig
from tidesplit.compression.training.loop import (
    Average,
    Progress,
    cosine,
    load_checkpoint,
    mixup,
    save_checkpoint,
    set_rate,
)
from tidesplit.models.slim import SlimNet

__all__ = ["finetune"]


def _optimizer(net: SlimNet, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with a faster rate for the new classifier and no decay on one-dimensional parameters."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        key = (name.startswith("classifier"), parameter.dim() > 1)
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": members,
                "base_lr": config.finetune_lr * (5.0 if new else 1.0),
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (new, decays), members in groups.items()
        ],
        lr=config.finetune_lr,
    )


def finetune(net: SlimNet, pictures: Pictures, index: Ints, config: TrainConfig, device: torch.device) -> None:
    """Train in place; on return the net holds the averaged weights. Checkpoint after every epoch."""
    path = config.folder / "finetune.pt"
    optimizer, average = _optimizer(net, config), Average(net, config.average)
    start = _resume(path, net, optimizer, average) if config.resume and path.exists() else 0
    per_epoch = len(index) // config.batch
    steps = per_epoch * config.finetune_epochs
    progress = Progress("finetune", steps, start * per_epoch)
    style = CropStyle(config.px, (config.crop_area, 1.0), codec_share=config.codec_share)
    log = SummaryWriter(str(config.folder / "tensorboard"))
    net.train()
    for epoch in range(start, config.finetune_epochs):
        for image, label in batches(pictures, index, config.batch, style, config.seed, epoch):
            step = progress.done
            set_rate(optimizer, cosine(step, steps, per_epoch // 2))
            mixed, target = mixup(
                image.to(device), label.to(device), net.classes, config.mixup if step % 2 else 0.0, config.smoothing
            )
            with autocast(device):
                logits = net(mixed, "r100")
            loss = F.cross_entropy(logits.float(), target)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_([p for p in net.parameters() if p.grad is not None], 5.0)
            optimizer.step()
            average.update(net)
            if progress.step([("loss", loss.item())]):
                log.add_scalar("finetune/loss", loss.item(), step)
        save_checkpoint(
            path, epoch=epoch + 1, net=net.state_dict(), optimizer=optimizer.state_dict(),
            average=average.weights, average_steps=average.steps, saved_at=time.time(),
        )  # fmt: skip
    average.copy_to(net)
    log.close()


def _resume(path: Path, net: SlimNet, optimizer: torch.optim.Optimizer, average: Average) -> int:
    state = load_checkpoint(path)
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    average.weights, average.steps = state["average"], state["average_steps"]
    return int(state["epoch"])
