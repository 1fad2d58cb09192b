"""Phase 1: fine-tune the full-width, uncut network. Part of its pictures pass through JPEG or WebP."""

from __future__ import annotations

import torch.nn.functional as F

from tidesplit.compression.net.measure import autocast
from tidesplit.compression.phase.parts import adamw, by_steps, mixup
from tidesplit.compression.phase.phase_loop import Phase, TrainingJob
from tidesplit.compression.pictures.labelled import CropStyle
from tidesplit.models.slim_net import SlimNet

CLASSIFIER = 5.0  # times the rate of the pretrained weights


def finetune(net: SlimNet, job: TrainingJob) -> None:
    """Train in place. The averaged weights are in on return."""
    config = job.config
    steps = job.epoch_steps * config.finetune_epochs
    phase = Phase(
        job, "finetune", steps=steps, schedule=by_steps(steps, job.epoch_steps // 2), groups=[list(net.parameters())],
        optimizer=adamw(net, config.finetune_lr, config.weight_decay, CLASSIFIER), decay=config.average, kept=net,
        gives_way=False,
    )  # fmt: skip
    net.train()
    style = CropStyle(config.px, (config.crop_area, 1.0), codec_share=config.codec_share)
    for image, label in phase.batches(config.seed, lambda _: style):
        alpha = config.mixup if phase.done % 2 else 0.0
        mixed, target = mixup(image, label, net.classes, alpha, config.smoothing)
        with autocast(job.device):
            logits = net(mixed, "r100")
        loss = F.cross_entropy(logits.float(), target)
        loss.backward()  # type: ignore[no-untyped-call]
        phase.step({"loss": loss.item()})
    phase.finish()
