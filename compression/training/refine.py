"""Phase 7: refine bottlenecks and tails, all partitions in one run, with everything that they share frozen.

A partition trains its bottleneck, and its tail's BatchNorm scales and low-rank additions. All statistics stay as
calibrated, so the trained net is exactly the deployed one. Heads, device-only nets and image offload do not change.

A cut learns from the uncut net's view of the same crop: its answer, mixed with the label, and the vector that its
classifier sees. On a crop known by heart, that vector holds much more than an answer close to the label. No crop is
drawn twice, and half of every batch is blended from two. Heads and uncut net cost more than the tail of a late cut. So
a batch's features are kept for a few steps, each with other bits and regions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.compression.codec.knobs import BITS
from tidesplit.compression.net.measure import autocast
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.phase.parts import by_share
from tidesplit.compression.phase.phase_loop import Phase, TrainingJob
from tidesplit.models.slim import set_of_partition, set_of_ratio

RATIO_SHARES = (0.1, 0.15, 0.3, 0.45)
BIT_SHARES = (0.25, 0.4, 0.25, 0.1)
REGION_SHARE = 0.2
TEACHER_SHARE = 0.8  # weight of the uncut net's answer in the target; the label gets the rest
POOLED = 1.0  # weight of the pooled vector's relative squared error
WARMUP = 20  # steps


@dataclass(frozen=True)
class Lesson:
    """A batch as the cuts see it.

    Args:
        ratio: channel ratio of the head.
        features: its features `[B, C, H, W]`, by partition.
        target: probabilities `[B, classes]`, from the uncut net and the label.
        pooled: vectors `[B, C]` that the uncut net's classifier sees.
    """

    ratio: float
    features: dict[int, Tensor]
    target: Tensor
    pooled: Tensor


def trained_of(system: SplitNet, partition: int) -> nn.ParameterList:
    """Parameters that only one inner partition uses."""
    name = set_of_partition(partition)
    own = [p for title, p in system.net.named_parameters() if name in title.split(".")]
    return nn.ParameterList([*system.bottleneck(partition).parameters(), *own])


def blend(image: Tensor, hard: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Blend the second half of a batch with the first. Pictures `[B, 3, H, W]`, labels `[B, classes]`."""
    half = len(image) // 2
    share = torch.ones(len(image), device=image.device)
    share[-half:] = torch.from_numpy(rng.uniform(0.5, 1.0, half)).float().to(image.device)
    other = image.roll(half, 0)  # for the second half, the pictures of the first
    picture, label = share[:, None, None, None], share[:, None]
    return image * picture + other * (1.0 - picture), hard * label + hard.roll(half, 0) * (1.0 - label)


@torch.no_grad()
def _lesson(
    system: SplitNet, partitions: Sequence[int], image: Tensor, label: Tensor, rng: np.random.Generator
) -> Lesson:
    """Features of a head of random width at these cuts, and the uncut net's view of the crops."""
    net, ratio = system.net, float(rng.choice(system.ratios, p=RATIO_SHARES))
    image, hard = blend(image, F.one_hot(label, net.classes).float(), rng)
    with autocast(image.device):
        full = net.heads(image, set_of_ratio(1.0), len(net.cuts))
        pooled = net.pooled(full[-1], set_of_ratio(1.0), len(net.cuts))
        soft = net.classify(pooled).float().softmax(1)
        features = full if ratio == 1.0 else net.heads(image, set_of_ratio(ratio), max(partitions))
    target = TEACHER_SHARE * soft + (1 - TEACHER_SHARE) * hard
    return Lesson(ratio, {p: features[p - 1] for p in partitions}, target, pooled.float())


def _loss(system: SplitNet, partition: int, lesson: Lesson, rng: np.random.Generator) -> Tensor:
    """Cross-entropy through the cut, plus the error of the pooled vector. Each picture has its own bits and region."""
    size, device, net = len(lesson.target), lesson.target.device, system.net
    rows = torch.from_numpy(rng.choice(len(BITS), size=size, p=BIT_SHARES)).to(device)
    share = torch.from_numpy(np.where(rng.random(size) < REGION_SHARE, 0.5, 1.0)).to(device)
    with autocast(device):
        rebuilt = system.bottleneck(partition)(
            lesson.features[partition].float(), set_of_ratio(lesson.ratio), rows, share
        )
        pooled = net.pooled(rebuilt, set_of_partition(partition), partition)
        answer = net.classify(pooled)
    off = (pooled.float() - lesson.pooled).square().sum(1) / lesson.pooled.square().sum(1)
    return F.cross_entropy(answer.float(), lesson.target) + POOLED * off.mean()


def refine(system: SplitNet, job: TrainingJob) -> None:
    """Train in place, for `refine_steps` or, if given, `refine_minutes`. The averaged weights are in on return."""
    config, partitions = job.config, job.config.cuts(system.partitions)
    system.eval()
    trained = [list(trained_of(system, partition)) for partition in partitions]
    every = [parameter for own in trained for parameter in own]
    system.requires_grad_(False)
    for parameter in every:
        parameter.requires_grad_(True)
    phase = Phase(
        job, "refine", steps=config.refine_steps, schedule=by_share(WARMUP), groups=trained, decay=0.99, kept=system,
        optimizer=torch.optim.AdamW(every, lr=config.refine_lr, weight_decay=0.0), minutes=config.refine_minutes,
    )  # fmt: skip
    kept: deque[Lesson] = deque(maxlen=max(1, config.refine_kept))
    for image, label in phase.batches(config.seed + 7, config.crops, by_epoch=False):
        rng = np.random.default_rng((config.seed, 7, phase.done))
        kept.append(_lesson(system, partitions, image, label, rng))
        reuse = config.refine_reuse if phase.minutes else min(config.refine_reuse, phase.steps - phase.done)
        for turn in range(max(1, reuse)):
            lesson = kept[-1] if turn == 0 else kept[int(rng.integers(len(kept)))]
            losses = {}
            for partition in partitions:
                loss = _loss(system, partition, lesson, rng)
                loss.backward()  # type: ignore[no-untyped-call]
                losses[f"p{partition}"] = loss.item()
            phase.step(losses)
    phase.finish()
    system.requires_grad_(True)
