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

from tidesplit.compression.net.bottleneck import Bottleneck

PLAIN = 0.3
"""Weight of the plain error of the feature. It covers directions that the measured gradients missed."""
SLOPE, MIDDLE = 0.8, 3.0
"""Scale and shift of a value in the decoder. It then lies in the middle of ReLU6, where that is linear."""
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
    """Mean `[D]` and covariance `[D, D]` of a feature's patches."""

    mean: Tensor
    covariance: Tensor


@torch.no_grad()
def moments(features: Iterable[Tensor], stride: int) -> Moments:
    """Moments of the patches of features `[B, C, H, W]`."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for feature in features:
        patch = rows(feature, stride)
        count, total, squares = count + len(patch), total + patch.sum(0), squares + patch.T @ patch
    mean = total / count
    return Moments(mean, squares / count - torch.outer(mean, mean))


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


def fits(bottleneck: Bottleneck) -> bool:
    """True where the encoder is one convolution that covers a patch."""
    spec = bottleneck.spec
    return not spec.inner and spec.kernel // 2 >= spec.stride - 1


@torch.no_grad()
def start(bottleneck: Bottleneck, found: Moments, encoder: Tensor, decoder: Tensor, received: Tensor) -> None:
    """Make a bottleneck this linear code, as far as its layers allow. Values more than 3.7 deviations off are clipped.

    One hidden channel is constant, and gives each value of a patch its mean. Those not needed begin without effect.

    Args:
        bottleneck: changed in place.
        found: moments of the patches.
        encoder: `[k, D]`.
        decoder: `[D, k]`.
        received: `[n, k]`, values as the decoder gets them in training. Its BatchNorms undo their statistics.
    """
    spec, channels, kept = bottleneck.spec, bottleneck.channels, len(encoder)
    area, first = spec.stride**2, spec.kernel // 2
    last = first + spec.stride
    bottleneck.encoder[:kept] = 0.0
    bottleneck.encoder[:kept, :, first:last, first:last] = encoder.view(kept, channels, spec.stride, spec.stride)
    at = torch.arange(kept)
    for weight in (bottleneck.mix, bottleneck.spread):
        weight[: kept + 1] = 0.0
    bottleneck.mix[at, at, 1, 1] = 1.0
    bottleneck.spread[at, 0, 1, 1] = 1.0
    mean, variance = received.mean(0), received.var(0, unbiased=False)
    for norm, slope in ((bottleneck.mix_norm, 1.0), (bottleneck.spread_norm, SLOPE)):  # its input has that slope
        norm.weight[:kept] = SLOPE / slope * (slope**2 * variance + norm.eps).sqrt()
        norm.bias[:kept] = MIDDLE + SLOPE * mean
        norm.weight[kept], norm.bias[kept] = 0.0, 1.0
    bottleneck.expand.zero_()
    bottleneck.expand[:, :kept, 0, 0] = decoder / SLOPE
    bottleneck.expand[:, kept, 0, 0] = found.mean - MIDDLE / SLOPE * decoder.sum(1)
    means = (found.mean + decoder @ mean).view(channels, area)
    variances = (decoder.square() @ variance).view(channels, area).mean(1) + means.var(1, unbiased=False)
    bottleneck.expand_norm.weight.copy_((variances + bottleneck.expand_norm.eps).sqrt())
    bottleneck.expand_norm.bias.copy_(means.mean(1))


def most_values(bottleneck: Bottleneck) -> int:
    """Values that the linear code of a bottleneck can have. One hidden channel is taken for the mean."""
    return min(bottleneck.spec.wire, bottleneck.spec.hidden - 1)
