"""A small residual CNN for 32 px pictures (CIFAR-10), slimmable like the flagship.

It has five blocks of two 3x3 convolutions. The channels between the two are the inner ones, which shrink with the
ratio. As in MBConv, nothing clips the end of a block, so a feature is not clipped before it is compressed. The first
block halves the picture, because convolutions with few channels are slow at 32x32. So the first cut lies behind 18 % of
the multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.models.slim import Inner, WidthNorm, first, inner_channels, sets_from, weighed, width_of
from tidesplit.models.slim_net import SlimNet

EPS = 1e-3
STEM = 16
CUTS = (1, 4)


@dataclass(frozen=True)
class ResidualSpec:
    """Shape of one residual block."""

    inputs: int
    outputs: int
    stride: int

    @property
    def skips(self) -> bool:
        """True where input and output have the same shape."""
        return self.stride == 1 and self.inputs == self.outputs


BLOCKS = (
    ResidualSpec(16, 32, 2), ResidualSpec(32, 32, 1), ResidualSpec(32, 32, 1),
    ResidualSpec(32, 64, 2), ResidualSpec(64, 64, 1),
)  # fmt: skip


class Residual(nn.Module):
    """3x3 to the inner channels, 3x3 to the outputs, and a skip where the shapes agree."""

    def __init__(self, spec: ResidualSpec, sets: Sequence[str]) -> None:
        super().__init__()
        self.spec, self.inner = spec, spec.outputs
        self.first = nn.Parameter(torch.empty(self.inner, spec.inputs, 3, 3))
        self.norm1 = WidthNorm(self.inner, sets, slim=True, eps=EPS)
        self.second = nn.Parameter(torch.empty(spec.outputs, self.inner, 3, 3))
        self.norm2 = WidthNorm(spec.outputs, sets, slim=False, eps=EPS)
        self.gate: Tensor | None = None

    def forward(self, x: Tensor, width_set: str) -> Tensor:
        """Feature `[B, inputs, H, W]` at one width set."""
        inner = inner_channels(self.inner, width_of(width_set))
        y = F.conv2d(x, first(self.first, inner), stride=self.spec.stride, padding=1)
        y = F.relu6(self.norm1(y, width_set))
        y = weighed(y, self.gate)
        y = self.norm2(F.conv2d(y, first(self.second, self.spec.outputs, inner), padding=1), width_set)
        return torch.add(y, x) if self.spec.skips else y


class CifarResNet(SlimNet):
    """Features: block 1 32x16x16, block 3 32x16x16, block 5 64x8x8."""

    name = "cifar_resnet"
    input_px = 32
    stem_stride = 1

    def __init__(self, classes: int = 10, cuts: Sequence[int] = CUTS) -> None:
        super().__init__()
        self.classes, self.cuts, self.specs = classes, tuple(cuts), BLOCKS
        self.stem = nn.Parameter(torch.empty(STEM, 3, 3, 3))
        self.stem_norm = WidthNorm(STEM, sets_from(0, ()), slim=False, eps=EPS)
        self.blocks = nn.ModuleList(Residual(s, sets_from(i, self.cuts)) for i, s in enumerate(BLOCKS, start=1))
        self.classifier = nn.Linear(BLOCKS[-1].outputs, classes)
        for parameter in self.parameters():
            if parameter.dim() == 4:
                nn.init.kaiming_normal_(parameter, mode="fan_out")

    def start(self, image: Tensor, width_set: str) -> Tensor:
        """Image `[B, 3, H, W]` in [-1, 1] through the stem."""
        return F.relu6(self.stem_norm(F.conv2d(image, self.stem, padding=1), width_set))

    def pool(self, feature: Tensor, width_set: str) -> Tensor:  # noqa: ARG002
        """Feature after all blocks to its mean, `[B, 64]`."""
        return feature.mean(dim=(2, 3))

    def classify(self, pooled: Tensor) -> Tensor:
        """Mean `[B, 64]` to logits `[B, classes]`."""
        return F.linear(pooled, self.classifier.weight, self.classifier.bias)

    def inner_parts(self) -> dict[str, Inner]:
        """Rows of a block's first convolution, columns of its second."""
        blocks = [f"blocks.{i}" for i in range(len(BLOCKS))]
        return {name: Inner((f"{name}.first",), (f"{name}.second",), (f"{name}.norm1",)) for name in blocks}
