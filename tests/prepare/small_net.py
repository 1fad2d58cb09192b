"""A small net as a user writes it: plain torch, a skip, squeeze-and-excitation, hard-swish, a max-pool."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 3


class _Excited(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False), nn.BatchNorm2d(channels),
            nn.Hardswish(inplace=True),
        )  # fmt: skip
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, channels, 1),
            nn.Hardsigmoid(),
        )  # fmt: skip
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        out: Tensor = x + self.project(y * self.gate(y))
        return out


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), _Excited(8),
        nn.Conv2d(8, 12, 3, 1, 1), nn.ReLU(), _Excited(12), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(), nn.Linear(12, CLASSES),
    )  # fmt: skip


def no_net() -> int:
    return 3


class _Chooses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def dynamic_net() -> nn.Module:
    return _Chooses()


def one_layer() -> nn.Module:
    return nn.Flatten()


def no_logits() -> nn.Module:
    return nn.Conv2d(3, 3, 1)


def wide_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
