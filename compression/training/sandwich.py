"""Phase 3: one training run for every channel ratio (sandwich rule, self-distillation).

A step sums three losses: of the full-width net, of the narrowest net, and of one in between. The full-width net sees
clean pictures in three steps of four, and pictures from JPEG or WebP in the fourth. The target is half the label, half
the answer of the frozen fine-tuned net to the same crop. The slim nets also rebuild that net's features at every cut,
so that one tail can serve every ratio's head.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tidesplit.compression.net.measure import autocast
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.phase.config import TrainConfig
from tidesplit.compression.phase.parts import adamw, by_share
from tidesplit.compression.phase.phase_loop import Phase, TrainingJob
from tidesplit.compression.pictures.labelled import CropStyle, recoded
from tidesplit.models.slim import set_of_ratio
from tidesplit.models.slim_net import SlimNet

SLIM_SHARES = (0.55, 0.45)  # draws of ratio 0.5 and 0.75; the narrowest net has most to learn, so it runs every step
TEACHER = 0.5  # weight of the teacher's answer in the target
FEATURES = 1.0  # weight of the rebuilt features
WARMUP = 100  # steps
SMALL_UNTIL = 0.7  # share of the phase with small crops


def _losses(
    system: SplitNet, teacher: SlimNet, image: Tensor, label: Tensor, step: int, rng: np.random.Generator,
    config: TrainConfig,
) -> dict[str, float]:  # fmt: skip
    """Losses by net. Backward runs for each net in turn, so that only one net's activations are alive at a time."""
    losses: dict[str, float] = {}
    features, target = _target(teacher, image, label)

    def backward(name: str, logits: Tensor, further: Tensor | float = 0.0) -> None:
        loss = F.cross_entropy(logits.float(), target) + further
        loss.backward()  # type: ignore[no-untyped-call]
        losses[name] = loss.item()

    if step % 4 < 3:
        with autocast(image.device):
            logits = system.device(image, 1.0)
        backward("full", logits)
    else:
        coded = recoded(image, CropStyle(config.px), rng)
        with autocast(image.device):
            logits = system.offload(coded)
        backward("image", logits)
    for ratio in (system.ratios[0], float(rng.choice(system.ratios[1:3], p=SLIM_SHARES))):
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


def sandwich(system: SplitNet, teacher: SlimNet, job: TrainingJob) -> None:
    """Train in place, for `sandwich_epochs` or, if given, `minutes`. The averaged weights are in on return."""
    config, net = job.config, system.net
    phase = Phase(
        job, "sandwich", steps=int(job.epoch_steps * config.sandwich_epochs), minutes=config.minutes,
        optimizer=adamw(net, config.sandwich_lr, config.weight_decay), schedule=by_share(WARMUP),
        groups=[list(net.parameters())], decay=config.average, kept=net,
    )  # fmt: skip
    teacher.eval()
    net.train()

    def style(share: float) -> CropStyle:
        return CropStyle(config.start_px if share < SMALL_UNTIL else config.px, (config.crop_area, 1.0))

    for image, label in phase.batches(config.seed + 2, style):
        rng = np.random.default_rng((config.seed, 3, phase.done))
        phase.step(_losses(system, teacher, image, label, phase.done, rng, config))
    phase.finish()
