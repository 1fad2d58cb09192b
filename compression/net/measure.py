"""Accuracy of a network run at one width set, and exact BatchNorm statistics for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from tidesplit.compression.pictures.labelled import Bytes, Ints, scale


def autocast(device: torch.device) -> torch.autocast:
    """Context of bfloat16 arithmetic, for AMX on a CPU and tensor cores on a GPU."""
    return torch.autocast(device.type, torch.bfloat16)


def wilson(right: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of the share `right / n` (Wilson, 1927). Unlike the normal one it holds near 0 and 1."""
    if n == 0:
        return 0.0, 1.0
    share, square = right / n, z * z
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _chunks(images: Bytes, size: int, device: torch.device) -> Iterator[Tensor]:
    for start in range(0, len(images), size):
        yield scale(images[start : start + size]).to(device)


@torch.no_grad()
def top1(logits_of: Callable[[Tensor], Tensor], images: Bytes, labels: Ints, size: int = 64) -> float:
    """Share of pictures whose largest logit is the label's. Images uint8 `[N, H, W, 3]`, labels `[N]`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    with autocast(device):
        for chunk in _chunks(images, size, device):
            found.append(logits_of(chunk).argmax(1).cpu().numpy())
    return float((np.concatenate(found) == labels).mean())


@torch.no_grad()
def recalibrate(run: Callable[[Tensor], object], norms: list[nn.BatchNorm2d], images: Bytes, size: int = 64) -> None:
    """Set the running statistics of `norms` to their exact mean over the whole batches of `images`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with autocast(device):
        for chunk in _chunks(images, size, device):
            if len(chunk) == size:
                run(chunk)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
        norm.eval()
