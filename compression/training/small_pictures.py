"""Phase 8: fit image offload to small and heavily compressed pictures. Nothing else changes, not by a bit.

Only weights that image offload has for itself are trained: its BatchNorm scales and shifts, and its low-rank additions.
Statistics stay as calibrated, so the trained net is exactly the deployed one.

The uncut net is the teacher and sees the undamaged crop. The server's net sees the same crop after the device's way of
sending it: made smaller, coded, decoded, and made larger again. Half of every batch is blended from two crops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.compression.codec.image_codec import SMALLER_PX, Pixels, encode_image, seen_by_server
from tidesplit.compression.net.measure import autocast
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.phase.parts import by_share
from tidesplit.compression.phase.phase_loop import Phase, TrainingJob
from tidesplit.compression.pictures.labelled import Bytes, CropStyle, scale
from tidesplit.compression.training.refine import POOLED, TEACHER_SHARE, blend
from tidesplit.models.slim import set_of_partition, set_of_ratio

AREA = (0.5, 1.0)  # share of a picture that a crop shows
WHOLE_SHARE = 0.34  # of the pictures cross at the net's own size, the others at one of the smaller sizes
WEBP_SHARE = 0.15
QUALITIES = (5, 95)
LOW_QUALITIES, LOW_SHARE = (10, 50), 0.7  # 70 % of the pictures have a quality in the range that is worth choosing
REUSE = 2  # steps on a batch of crops, each with other sizes and qualities. So the teacher costs a sixth of a step.
WARMUP = 20  # steps


@dataclass(frozen=True)
class Crops:
    """A batch of undamaged crops as the uncut net sees it.

    Args:
        pixels: the crops, uint8 `[B, px, px, 3]`.
        target: probabilities `[B, classes]`, from the uncut net and the label.
        pooled: vectors `[B, C]` that the uncut net's classifier sees.
    """

    pixels: Bytes
    target: Tensor
    pooled: Tensor


def offload_parameters(system: SplitNet) -> list[nn.Parameter]:
    """Parameters that only image offload uses."""
    own = set_of_partition(0)
    return [parameter for name, parameter in system.net.named_parameters() if own in name.split(".")]


def sent(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A picture `[px, px, 3]` as the server sees it after it crossed at a random size and quality."""
    px = len(pixels)
    smaller = [side for side in SMALLER_PX if side < px]
    side = int(rng.choice(smaller)) if smaller and rng.random() >= WHOLE_SHARE else px
    low, high = LOW_QUALITIES if rng.random() < LOW_SHARE else QUALITIES
    codec = "webp" if rng.random() < WEBP_SHARE else "jpeg"
    return seen_by_server(encode_image(pixels, codec, int(rng.integers(low, high + 1)), side), px)


def _view(system: SplitNet, image: Tensor, width_set: str) -> tuple[Tensor, Tensor]:
    """Vectors `[B, C]` that the classifier sees, and logits `[B, classes]`."""
    with autocast(image.device):
        pooled = system.net.pooled(image, width_set, 0)
        return pooled.float(), system.net.classify(pooled).float()


@torch.no_grad()
def _crops(system: SplitNet, image: Tensor, label: Tensor, rng: np.random.Generator) -> Crops:
    image, hard = blend(image, F.one_hot(label, system.net.classes).float(), rng)
    pooled, logits = _view(system, image, set_of_ratio(1.0))
    pixels = ((image.permute(0, 2, 3, 1) + 1.0) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
    return Crops(pixels, TEACHER_SHARE * logits.softmax(1) + (1 - TEACHER_SHARE) * hard, pooled)


def _losses(system: SplitNet, lesson: Crops, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the crops after they crossed, and the pooled vector's relative squared error."""
    image = scale(np.stack([sent(pixels, rng) for pixels in lesson.pixels])).to(lesson.target.device)
    pooled, logits = _view(system, image, set_of_partition(0))
    off = (pooled - lesson.pooled).square().sum(1) / lesson.pooled.square().sum(1)
    return F.cross_entropy(logits, lesson.target), off.mean()


def fit_small_pictures(system: SplitNet, job: TrainingJob) -> None:
    """Train in place, for `pictures_steps` or, if given, `pictures_minutes`. The averaged weights are in on return."""
    config, style = job.config, CropStyle(system.net.input_px, AREA)
    system.eval()
    system.requires_grad_(False)
    own = offload_parameters(system)
    for parameter in own:
        parameter.requires_grad_(True)
    phase = Phase(
        job, "pictures", steps=config.pictures_steps, schedule=by_share(WARMUP), groups=[own], decay=0.99, kept=system,
        optimizer=torch.optim.AdamW(own, lr=config.pictures_lr, weight_decay=0.0), minutes=config.pictures_minutes,
    )  # fmt: skip
    for image, label in phase.batches(config.seed + 8, lambda _: style, by_epoch=False):
        rng = np.random.default_rng((config.seed, 8, phase.done))
        lesson = _crops(system, image, label, rng)
        for _ in range(REUSE if phase.minutes else min(REUSE, phase.steps - phase.done)):
            answer, pooled = _losses(system, lesson, rng)
            (answer + POOLED * pooled).backward()  # type: ignore[no-untyped-call]
            phase.step({"answer": answer.item(), "pooled": pooled.item()})
    phase.finish()
    system.requires_grad_(True)
