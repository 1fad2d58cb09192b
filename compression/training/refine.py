"""Phase 7: refine bottlenecks and tails, the partitions asked for side by side, with everything that they share frozen.

Of a partition are its bottleneck, and its tail's BatchNorm scales and low-rank additions. All statistics stay as
calibrated, so the net that is trained is exactly the one that is deployed; heads, device-only nets and image offload do
not change at all.

A cut learns to do as the uncut net does with the very same crop: its answer, mixed with the label, and the vector that
its classifier sees, which tells much more of a crop that is known by heart than an answer close to the label. No crop
is drawn twice, and half of every batch is blended from two. Heads and uncut net cost more than a late cut's tail does,
so a batch's features are kept for a few steps, each with other bits and regions.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.compression.codec.knobs import BITS, RATIOS
from tidesplit.compression.net.measure import autocast
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.labelled import Ints, Pictures, batches
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
from tidesplit.models.slim import set_of_partition, set_of_ratio

__all__ = ["Lesson", "blend", "refine", "trained_of"]

RATIO_SHARES = (0.1, 0.15, 0.3, 0.45)
BIT_SHARES = (0.25, 0.4, 0.25, 0.1)
REGION_SHARE = 0.2
TEACHER_SHARE = 0.8  # weight of the uncut net's answer beside the label
POOLED = 1.0  # weight of the pooled vector's relative squared error
WARMUP = 20  # steps
SAVE_S = 120.0


@dataclass(frozen=True)
class Lesson:
    """One batch: the head's ratio, its features at the cuts, and the uncut net's target and pooled vector."""

    ratio: float
    features: dict[int, Tensor]  # `[B, C, H, W]`, by partition
    target: Tensor  # `[B, classes]`
    pooled: Tensor  # `[B, C]`


def trained_of(system: SplitNet, partition: int) -> nn.ParameterList:
    """What belongs to one inner partition alone."""
    name = set_of_partition(partition)
    own = [p for title, p in system.net.named_parameters() if name in title.split(".")]
    return nn.ParameterList([*system.bottleneck(partition).parameters(), *own])


def blend(image: Tensor, hard: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Blend the second half of a batch, pictures `[B, 3, H, W]` and labels `[B, classes]`, with the first half."""
    half = len(image) // 2
    share = torch.ones(len(image), device=image.device)
    share[-half:] = torch.from_numpy(rng.uniform(0.5, 1.0, half)).float().to(image.device)
    other = image.roll(half, 0)  # of the last `half`, those `half` before
    picture, label = share[:, None, None, None], share[:, None]
    return image * picture + other * (1.0 - picture), hard * label + hard.roll(half, 0) * (1.0 - label)


@torch.no_grad()
def _lesson(
    system: SplitNet, partitions: Sequence[int], image: Tensor, label: Tensor, rng: np.random.Generator
) -> Lesson:
    """Features at these cuts of a head of random width, and what the uncut net makes of the crops."""
    net, ratio = system.net, float(rng.choice(RATIOS, p=RATIO_SHARES))
    image, hard = blend(image, F.one_hot(label, net.classes).float(), rng)
    with autocast(image.device):
        full = net.heads(image, set_of_ratio(1.0), len(net.cuts))
        pooled = net.pooled(full[-1], set_of_ratio(1.0), net.cuts[-1])
        soft = net.classify(pooled).float().softmax(1)
        features = full if ratio == 1.0 else net.heads(image, set_of_ratio(ratio), max(partitions))
    target = TEACHER_SHARE * soft + (1 - TEACHER_SHARE) * hard
    return Lesson(ratio, {p: features[p - 1] for p in partitions}, target, pooled.float())


def _loss(system: SplitNet, partition: int, lesson: Lesson, rng: np.random.Generator) -> Tensor:
    """Through the cut: cross-entropy, and how far the pooled vector is off. Bits and region: picture by picture."""
    size, device, net = len(lesson.target), lesson.target.device, system.net
    rows = torch.from_numpy(rng.choice(len(BITS), size=size, p=BIT_SHARES)).to(device)
    share = torch.from_numpy(np.where(rng.random(size) < REGION_SHARE, 0.5, 1.0)).to(device)
    with autocast(device):
        rebuilt = system.bottleneck(partition)(
            lesson.features[partition].float(), set_of_ratio(lesson.ratio), rows, share
        )
        pooled = net.pooled(rebuilt, set_of_partition(partition), net.cuts[partition - 1])
        answer = net.classify(pooled)
    off = (pooled.float() - lesson.pooled).square().sum(1) / lesson.pooled.square().sum(1)
    return F.cross_entropy(answer.float(), lesson.target) + POOLED * off.mean()


@dataclass
class _Run:
    """What a run of `refine` needs to go on: all partitions' parameters, their average, the optimizer."""

    trained: dict[int, nn.ParameterList]
    every: nn.ParameterList
    optimizer: torch.optim.Optimizer
    average: Average
    spent_s: float = 0.0

    @classmethod
    def of(cls, system: SplitNet, partitions: Sequence[int], rate: float) -> _Run:
        """A run at its beginning; nothing but what it trains has gradients from here."""
        trained = {partition: trained_of(system, partition) for partition in partitions}
        every = nn.ParameterList([p for own in trained.values() for p in own])
        system.requires_grad_(False)
        every.requires_grad_(True)
        optimizer = torch.optim.AdamW(every.parameters(), lr=rate, weight_decay=0.0)
        optimizer.param_groups[0]["base_lr"] = rate
        return cls(trained, every, optimizer, Average(every, 0.99))

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        save_checkpoint(
            path, spent_s=self.spent_s, step=self.average.steps, weights=[p.detach() for p in self.every],
            average=self.average.weights, optimizer=self.optimizer.state_dict(),
        )  # fmt: skip

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Fill in what a checkpoint holds."""
        state = load_checkpoint(path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.weights, self.average.steps = state["average"], state["step"]
        self.spent_s = float(state["spent_s"])
        for parameter, value in zip(self.every, state["weights"], strict=True):
            parameter.copy_(value)


def refine(system: SplitNet, pictures: Pictures, index: Ints, config: TrainConfig, device: torch.device) -> None:
    """Train in place, for `refine_steps` or, if given, `refine_minutes`; the averaged weights are in on return."""
    system.eval()
    partitions = config.cuts(system.net.partitions)
    run, path = _Run.of(system, partitions, config.refine_lr), config.folder / "refine.pt"
    if config.resume and path.exists():
        run.load(path)
    chooser = ThreadChooser(config.threads if device.type == "cpu" else 1)
    progress = Progress("refine", config.refine_steps, run.average.steps)
    losses: dict[int, float] = {}
    kept: deque[Lesson] = deque(maxlen=max(1, config.refine_kept))
    start = last_save = time.perf_counter()
    before_s, fraction, epoch = run.spent_s, 0.0, run.average.steps
    while fraction < 1.0:
        style = config.crops(fraction)
        for image, label in batches(pictures, index, config.batch, style, config.seed + 7, epoch):
            run.spent_s = before_s + time.perf_counter() - start
            limit_s = 60 * config.refine_minutes
            fraction = run.spent_s / limit_s if limit_s else progress.done / config.refine_steps
            if fraction >= 1.0 or config.crops(fraction) != style:
                break
            rng = np.random.default_rng((config.seed, 7, progress.done))
            set_rate(run.optimizer, min(1.0, (progress.done + 1) / WARMUP) * cosine(round(fraction * 10000), 10000, 0))
            kept.append(_lesson(system, partitions, image.to(device), label.to(device), rng))
            left = config.refine_reuse if limit_s else min(config.refine_reuse, config.refine_steps - progress.done)
            for turn in range(max(1, left)):
                lesson = kept[-1] if turn == 0 else kept[int(rng.integers(len(kept)))]
                run.optimizer.zero_grad()
                for partition, own in run.trained.items():
                    loss = _loss(system, partition, lesson, rng)
                    loss.backward()  # type: ignore[no-untyped-call]
                    torch.nn.utils.clip_grad_norm_(own.parameters(), 5.0)
                    losses[partition] = 0.95 * losses.get(partition, loss.item()) + 0.05 * loss.item()
                run.optimizer.step()
                run.average.update(run.every)
                chooser.step()
                progress.step([("used", fraction), *((f"p{p}", losses[p]) for p in partitions)])
            if time.perf_counter() - last_save > SAVE_S:
                last_save = time.perf_counter()
                run.save(path)
        epoch = run.average.steps  # names the order of pictures: where a run begins again, the next is a new one
    run.average.copy_to(run.every)
    system.requires_grad_(True)
