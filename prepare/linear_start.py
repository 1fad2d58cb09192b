"""The best linear bottleneck of a cut, in closed form. Training starts from it.

A bottleneck of stride s codes patches of s x s positions. The best linear code of them is their principal components.
But an error in one direction may change the net's answer and in another not. So errors are weighed by the Fisher
information: the mean outer product of the gradients of the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PLAIN = 0.3
"""Weight of the plain error of the feature. It covers directions that the measured gradients missed."""
TINY = 1e-9


def patches(feature: Tensor, stride: int) -> Tensor:
    """Feature `[B, C, H, W]` as patches `[B, C * stride**2, h, w]`. Zeros fill up the last ones."""
    height, width = (-side % stride for side in feature.shape[2:])
    return F.pixel_unshuffle(F.pad(feature, [0, width, 0, height]), stride)


def rows(feature: Tensor, stride: int) -> Tensor:
    """The patches of a feature `[B, C, H, W]`, one a row, `[N, D]`."""
    return patches(feature, stride).flatten(2).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class Moments:
    """Mean `[D, h, w]` of a feature's patches by position, and their covariance `[D, D]` around it."""

    mean: Tensor
    covariance: Tensor


@torch.no_grad()
def moments(features: Iterable[Tensor], stride: int) -> Moments:
    """Moments of the patches of features `[B, C, H, W]`."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for feature in features:
        patch, row = patches(feature, stride), rows(feature, stride)
        count, total, squares = count + len(patch), total + patch.sum(0), squares + row.T @ row
    mean = total / count
    flat = mean.flatten(1)
    return Moments(mean, (squares / count - flat @ flat.T) / flat.shape[1])


def sensitivity(
    answer: Callable[[Tensor], Tensor], directions: Callable[[Tensor, torch.Generator], Tensor],
    features: Iterable[Tensor], stride: int, seed: int,
) -> Tensor:  # fmt: skip
    """Fisher information `[D, D]` of the answers in a patch, up to a factor.

    Args:
        answer: the tail, from a feature to an answer `[B, N]`.
        directions: random directions of answers, see `Task`.
        features: `[B, C, H, W]`.
        stride: of the bottleneck.
        seed: of the random directions. Each picture has one, drawn so that its gradient has the right covariance.
    """
    generator, found = torch.Generator().manual_seed(seed), torch.zeros(())
    for feature in features:
        feature.requires_grad_(True)
        answers = answer(feature)
        direction = directions(answers.detach(), generator)
        (gradient,) = torch.autograd.grad((answers * direction).sum(), feature)
        moved = rows(gradient, stride)
        found = found + moved.T @ moved
    return found


def metric(information: Tensor, covariance: Tensor) -> Tensor:
    """Weights `[D, D]` of errors in a patch. An error as large as the feature itself weighs one."""
    plain = torch.eye(len(covariance)) / covariance.trace().clamp(min=TINY)
    total = (information @ covariance).trace()
    if not torch.isfinite(total) or total <= 0:
        return plain
    return (information / total + PLAIN * plain) / (1 + PLAIN)


def root(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric square root of a metric, and its inverse."""
    values, axes = torch.linalg.eigh(weights.double())
    scale = values.clamp(min=TINY * float(values.max().clamp(min=TINY))).sqrt()
    return ((axes * scale) @ axes.T).float(), ((axes / scale) @ axes.T).float()


@torch.no_grad()
def components(covariance: Tensor, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best linear code of a patch. Most important values come first, and each has variance one.

    Returns:
        Encoder `[k, D]` and decoder `[D, k]`, where k is `count` or D.
    """
    there, back = root(weights)
    values, axes = torch.linalg.eigh((there @ covariance @ there).double())
    kept = min(count, len(values))
    deviation = values[-kept:].flip(0).clamp(min=TINY).sqrt().float()
    chosen = axes[:, -kept:].flip(1).float()
    return ((there @ chosen) / deviation).T, (back @ chosen) * deviation
