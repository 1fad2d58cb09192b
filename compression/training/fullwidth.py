"""Phase 5: train the full width further. Only weights that no slimmer net uses are trained, so slim nets do not change.

These weights are the last quarter of every block's inner channels, and one set of BatchNorms. That set then serves both
the uncut net and image offload, which `small_pictures` trains further. Statistics stay as calibrated, because the
deployed net uses them. There is no mixup: with it, another set of BatchNorms on the same channels came out a point
worse.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.compression.net.measure import autocast
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.phase.config import TrainConfig
from tidesplit.compression.phase.parts import by_steps
from tidesplit.compression.phase.phase_loop import Phase, TrainingJob
from tidesplit.compression.pictures.labelled import CropStyle, recoded
from tidesplit.compression.training.distillation import Teacher
from tidesplit.models.slim import LowRank, WidthNorm, inner_channels, set_of_partition, set_of_ratio
from tidesplit.models.slim_net import SlimNet

WARMUP = 30  # steps
NORM_RATE = 2.5  # times the rate of the convolutions


def exclusive_masks(net: SlimNet) -> dict[str, Tensor]:
    """Masks by parameter name, 1 where a weight serves the full width only. They broadcast over the parameter."""
    axes, masks = net.inner_axes(), {}
    for name, parameter in net.named_parameters():
        if name not in axes:
            continue
        axis = axes[name]
        size = parameter.shape[axis]
        kept = torch.arange(size, device=parameter.device) >= inner_channels(size, net.ratios[-2])
        masks[name] = kept.float().view([size if i == axis else 1 for i in range(parameter.dim())])
    return masks


def _mask_gradient(parameter: nn.Parameter, mask: Tensor) -> torch.utils.hooks.RemovableHandle:
    handle: torch.utils.hooks.RemovableHandle = parameter.register_hook(lambda grad: grad * mask)  # type: ignore[no-untyped-call]
    return handle


def _own_norms(net: SlimNet) -> list[nn.Parameter]:
    return [p for name, p in net.named_parameters() if {"norms", set_of_partition(0)} <= set(name.split("."))]


@torch.no_grad()
def _drop_additions(net: SlimNet) -> None:
    """Set the additions of image offload to zero, because the uncut net gets its BatchNorms and has none."""
    for module in net.modules():
        if isinstance(module, LowRank) and set_of_partition(0) in module.up:
            module.up[set_of_partition(0)].zero_()


@torch.no_grad()
def _share_norms(net: SlimNet) -> None:
    """Give the uncut net the BatchNorms of image offload."""
    for module in net.modules():
        if isinstance(module, WidthNorm) and set_of_partition(0) in module.norms:
            module.norms[set_of_ratio(1.0)].load_state_dict(module.norms[set_of_partition(0)].state_dict())


def _loss(
    system: SplitNet, teacher: Teacher, image: Tensor, label: Tensor, step: int, rng: np.random.Generator,
    config: TrainConfig,
) -> float:  # fmt: skip
    """Run backward and return the loss. Odd steps see pictures from JPEG or WebP, the teacher always the plain ones."""
    soft = teacher(image)
    target = config.teacher_share * soft + (1 - config.teacher_share) * F.one_hot(label, soft.shape[1])
    seen = recoded(image, CropStyle(), rng) if step % 2 else image
    with autocast(image.device):
        logits = system.offload(seen)
    loss = F.cross_entropy(logits.float(), target)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def train_full_width(system: SplitNet, teacher: Teacher, job: TrainingJob) -> None:
    """Train in place. The averaged weights are in on return."""
    config = job.config
    system.eval()
    _drop_additions(system.net)
    masks, named = exclusive_masks(system.net), dict(system.net.named_parameters())
    convs, norms = [named[name] for name in masks], _own_norms(system.net)
    system.requires_grad_(False)
    for parameter in (*convs, *norms):
        parameter.requires_grad_(True)
    hooks = [_mask_gradient(named[name], mask) for name, mask in masks.items()]
    rates = [{"params": convs, "lr": config.fullwidth_lr}, {"params": norms, "lr": NORM_RATE * config.fullwidth_lr}]
    phase = Phase(
        job, "fullwidth", steps=config.fullwidth_steps, schedule=by_steps(config.fullwidth_steps, WARMUP),
        optimizer=torch.optim.AdamW(rates, weight_decay=0.0),  # decay would move masked weights
        groups=[[*convs, *norms]], decay=0.99, kept=system,
    )  # fmt: skip
    for image, label in phase.batches(config.seed + 6, config.crops, by_epoch=False):
        rng = np.random.default_rng((config.seed, 6, phase.done))
        phase.step({"loss": _loss(system, teacher, image, label, phase.done, rng, config)})
    phase.finish()
    _share_norms(system.net)
    for hook in hooks:
        hook.remove()
    system.requires_grad_(True)
