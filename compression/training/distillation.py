"""The teachers of phase 5: EfficientNet-Lite2, fine-tuned as the flagship is, or the flagship itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tidesplit.compression.net.measure import autocast
from tidesplit.compression.phase.phase_loop import TrainingJob
from tidesplit.compression.training.finetune import finetune
from tidesplit.models.efficientnet_lite0 import LITE2_BLOCKS, EfficientNetLite0
from tidesplit.models.imagenet import load_imagenet

Teacher = Callable[[Tensor], Tensor]  # pictures `[B, 3, H, W]` to probabilities `[B, classes]`


def untrained_lite2(classes: int) -> EfficientNetLite0:
    """EfficientNet-Lite2 without cuts."""
    return EfficientNetLite0(classes, cuts=(), blocks=LITE2_BLOCKS)


def train_lite2(job: TrainingJob) -> EfficientNetLite0:
    """Fine-tune from ImageNet weights. Checkpoints go to a folder of their own."""
    net, config = untrained_lite2(len(job.pictures.classes)), job.config
    load_imagenet(net)
    net.to(job.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    shorter = replace(
        config, out=str(config.folder / "teacher"), finetune_epochs=config.teacher_epochs, codec_share=0.0,
        average=0.995,
    )  # fmt: skip
    finetune(net, replace(job, config=shorter))
    return net


def answer(network: Callable[[Tensor], Tensor]) -> Teacher:
    """The teacher made of a network that gives logits. It has no gradients."""

    def probabilities(image: Tensor) -> Tensor:
        with torch.no_grad(), autocast(image.device):
            return network(image).float().softmax(1)

    return probabilities
