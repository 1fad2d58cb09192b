"""Phase 5: the full width again, after all widths were trained together. Only what no slimmer net uses is trained.

That is the last quarter of every block's inner channels, and one set of BatchNorms, which then serves both the uncut
net and image offload. Slim nets do not change at all. Statistics stay as calibrated: what is trained is what is
deployed. No mixup: with it, a set trained beside this one on the same channels came out a point worse.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from tidesplit.compression.codec.knobs import RATIOS
from tidesplit.compression.net.measure import autocast
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.labelled import CropStyle, Ints, Pictures, batches, recoded
from tidesplit.compression.training.config import TrainConfig
from tidesplit.compression.training.distillation import Teacher
from tidesplit.compression.training.loop import (
    Average,
    Progress,
    ThreadChooser,
    cosine,
    load_checkpoint,
    save_checkpoint,
    set_rate,
)
from tidesplit.models.slim import SlimNet, WidthNorm, inner_channels, set_of_partition, set_of_ratio

__all__ = ["exclusive_masks", "train_full_width"]

SAVE_EVERY = 150  # steps
NORM_RATE = 2.5  # times the rate of the convolutions


def exclusive_masks(net: SlimNet) -> dict[str, Tensor]:
    """1 where a weight serves the full width only, by parameter name; broadcasts over the parameter."""
    axes, masks = net.inner_axes(), {}
    for name, parameter in net.named_parameters():
        if name not in axes:
            continue
        axis = axes[name]
        size = parameter.shape[axis]
        kept = torch.arange(size, device=parameter.device) >= inner_channels(size, RATIOS[-2])
        masks[name] = kept.float().view([size if i == axis else 1 for i in range(parameter.dim())])
    return masks


def _mask_gradient(parameter: nn.Parameter, mask: Tensor) -> torch.utils.hooks.RemovableHandle:
    handle: torch.utils.hooks.RemovableHandle = parameter.register_hook(lambda grad: grad * mask)  # type: ignore[no-untyped-call]
    return handle


def _own_norms(net: SlimNet) -> list[nn.Parameter]:
    return [p for name, p in net.named_parameters() if set_of_partition(0) in name.split(".")]


@torch.no_grad()
def _share_norms(net: SlimNet) -> None:
    """Let the uncut net have the BatchNorms of image offload."""
    for module in net.modules():
        if isinstance(module, WidthNorm) and set_of_partition(0) in module.norms:
            module.norms[set_of_ratio(1.0)].load_state_dict(module.norms[set_of_partition(0)].state_dict())


def _step(
    system: SplitNet, teacher: Teacher, image: Tensor, label: Tensor, step: int, rng: np.random.Generator,
    config: TrainConfig,
) -> float:  # fmt: skip
    """Backward, every other time on pictures from JPEG or WebP; the teacher sees the plain ones. The loss."""
    soft = teacher(image)
    target = config.teacher_share * soft + (1 - config.teacher_share) * F.one_hot(label, soft.shape[1])
    seen = recoded(image, CropStyle(), rng) if step % 2 else image
    with autocast(image.device):
        logits = system.offload(seen)
    loss = F.cross_entropy(logits.float(), target)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def train_full_width(
    system: SplitNet, teacher: Teacher, pictures: Pictures, index: Ints, config: TrainConfig,
    device: torch.device,
) -> None:  # fmt: skip
    """Train in place; on return the averaged weights are in. `teacher`: image to probabilities `[B, classes]`."""
    path = config.folder / "fullwidth.pt"
    system.eval()
    masks = exclusive_masks(system.net)
    named = dict(system.net.named_parameters())
    convs, norms = nn.ParameterList([named[name] for name in masks]), nn.ParameterList(_own_norms(system.net))
    trained = nn.ParameterList([*convs, *norms])
    system.requires_grad_(False)
    trained.requires_grad_(True)
    hooks = [_mask_gradient(named[name], mask) for name, mask in masks.items()]
    rate = config.fullwidth_lr
    groups = [{"params": list(convs), "base_lr": rate}, {"params": list(norms), "base_lr": NORM_RATE * rate}]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.0)  # decay would move masked weights
    average = Average(trained, 0.99)
    progress = Progress("full width", config.fullwidth_steps)
    if config.resume and path.exists():
        state = load_checkpoint(path)
        progress.done, average.steps, average.weights = state["step"], state["steps"], state["average"]
        optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for parameter, value in zip(trained, state["weights"], strict=True):
                parameter.copy_(value)
    chooser = ThreadChooser(config.threads if device.type == "cpu" else 1)
    log = SummaryWriter(str(config.folder / "tensorboard"))
    smooth = 0.0
    epoch = progress.done  # names the order of pictures: where a run begins again, the next is a new one
    while progress.done < config.fullwidth_steps:
        style = config.crops(progress.done / config.fullwidth_steps)
        for image, label in batches(pictures, index, config.batch, style, config.seed + 6, epoch):
            step = progress.done
            if config.crops(step / config.fullwidth_steps) != style:
                break
            rng = np.random.default_rng((config.seed, 6, step))
            set_rate(optimizer, cosine(step, config.fullwidth_steps, 30))
            optimizer.zero_grad()
            loss = _step(system, teacher, image.to(device), label.to(device), step, rng, config)
            torch.nn.utils.clip_grad_norm_(trained, 5.0)
            optimizer.step()
            average.update(trained)
            chooser.step()
            smooth = loss if step == 0 else 0.95 * smooth + 0.05 * loss
            if progress.step([("loss", smooth)]):
                log.add_scalar("fullwidth/loss", smooth, step)
            if progress.done % SAVE_EVERY == 0:
                save_checkpoint(
                    path, step=progress.done, steps=average.steps, average=average.weights,
                    optimizer=optimizer.state_dict(), weights=[p.detach() for p in trained],
                )  # fmt: skip
            if progress.done >= config.fullwidth_steps:
                break
        epoch = progress.done
    average.copy_to(trained)
    _share_norms(system.net)
    for hook in hooks:
        hook.remove()
    system.requires_grad_(True)
    log.close()
