"""Parts of slimmable networks: one set of weights, several widths, BatchNorms for each width and each tail.

A *width set* is a named set of BatchNorms. `r25`, `r50`, `r75` and `r100` run the whole network at that channel ratio,
and heads are their first blocks. `p0`, `p1`, ... are the server's tails of partition 0, 1, ... at full width.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.data.ratios import RATIOS
from tidesplit.models.graph import Builder

__all__ = [
    "LowRank",
    "SlimNet",
    "WidthNorm",
    "fold_tails",
    "inner_channels",
    "permute_norm",
    "pointwise",
    "ranking",
    "seed_tail",
    "set_of_partition",
    "set_of_ratio",
    "sets_from",
    "weighed",
    "width_of",
]

MOMENTUM = 0.1  # at EfficientNet's 0.01 statistics lag so far behind in short training that evaluation collapses


def set_of_ratio(ratio: float) -> str:
    """Name of the width set of a channel ratio, e.g. 0.25 -> `r25`."""
    return f"r{round(ratio * 100)}"


def set_of_partition(partition: int) -> str:
    """Name of the width set of the tail behind a partition."""
    return f"p{partition}"


def width_of(width_set: str) -> float:
    """Channel ratio of a width set. Tails always run at full width."""
    return int(width_set[1:]) / 100 if width_set[0] == "r" else 1.0


def inner_channels(channels: int, ratio: float) -> int:
    """Number of inner channels at `ratio`."""
    return max(1, math.ceil(channels * ratio))


class WidthNorm(nn.Module):
    """A BatchNorm for each width set, over the first channels. `slim`: True where channels shrink with the ratio."""

    def __init__(self, channels: int, sets: Iterable[str], slim: bool, eps: float) -> None:
        super().__init__()
        self.norms = nn.ModuleDict(
            {
                name: nn.BatchNorm2d(inner_channels(channels, width_of(name)) if slim else channels, eps, MOMENTUM)
                for name in sets
            }
        )

    def forward(self, x: Tensor, width_set: str) -> Tensor:
        """Normalise `[B, C, H, W]`, where C is the width set's number of channels."""
        result = self.norms[width_set](x)
        assert isinstance(result, Tensor)
        return result


class LowRank(nn.Module):
    """Additions to a shared 1x1 convolution, one for each width set in `ranks`: a product of that rank, at first zero.

    It is added to the weight before the weight is used, so a deployed tail is one plain convolution.
    """

    def __init__(self, outputs: int, inputs: int, ranks: Mapping[str, int]) -> None:
        super().__init__()
        self.up = nn.ParameterDict({name: nn.Parameter(torch.zeros(outputs, rank)) for name, rank in ranks.items()})
        self.down = nn.ParameterDict({name: nn.Parameter(torch.empty(rank, inputs)) for name, rank in ranks.items()})
        for down in self.down.values():
            nn.init.normal_(down, std=inputs**-0.5)

    def forward(self, weight: Tensor, width_set: str) -> Tensor:
        """The weight `[outputs, inputs, 1, 1]` at one width set."""
        if width_set not in self.up:
            return weight
        product: Tensor = self.up[width_set] @ self.down[width_set]
        return weight + product[:, :, None, None]


def pointwise(x: Tensor, weight: Tensor, out_channels: int) -> Tensor:
    """1x1 convolution of `x` `[B, C, H, W]` with the first `out_channels` filters and the first C input channels."""
    return F.conv2d(x, weight[:out_channels, : x.shape[1]])


def weighed(x: Tensor, gate: Tensor | None) -> Tensor:
    """`x` `[B, C, H, W]` times a gate `[C]`, if there is one."""
    return x if gate is None else x * gate.to(x.dtype).view(1, -1, 1, 1)


class SlimNet(nn.Module):
    """A CNN that can be cut and slimmed: a stem, blocks, a classifier.

    Blocks are counted from 1, and `cuts[p - 1]` is the last block before the cut of partition p. A block's `inner` is
    its number of inner channels, which shrink with the ratio. Only blocks behind a cut have BatchNorms of its tail.
    """

    name: str
    input_px: int
    stem_stride: int
    classes: int
    cuts: Sequence[int]
    stem: nn.Parameter
    specs: Sequence[Any]  # of the blocks: `outputs`, `stride`
    blocks: nn.ModuleList

    @property
    def partitions(self) -> int:
        """Index of the last partition: the whole CNN on the device."""
        return len(self.cuts) + 1

    @abstractmethod
    def head(self, image: Tensor, width_set: str, stop: int) -> Tensor:
        """Image `[B, 3, H, W]` in [-1, 1] through the stem and the first `stop` blocks."""

    @abstractmethod
    def pooled(self, feature: Tensor, width_set: str, start: int) -> Tensor:
        """Feature after `start` blocks to the vector `[B, C]` that the classifier sees."""

    @abstractmethod
    def classify(self, pooled: Tensor) -> Tensor:
        """That vector to logits `[B, classes]`."""

    @abstractmethod
    def build_head(self, builder: Builder, width_set: str, stop: int) -> str:
        """Append the folded stem and the first `stop` blocks. Returns the name of the feature."""

    @abstractmethod
    def build_tail(self, builder: Builder, feature: str, width_set: str, start: int) -> str:
        """Append the folded blocks after `start`, and the classifier. Returns the name of the logits."""

    @abstractmethod
    def inner_axes(self) -> dict[str, int]:
        """Axis of the inner channels, by the name of each parameter that has any. BatchNorms are left out."""

    @abstractmethod
    def rank(self, gates: dict[str, Tensor]) -> None:
        """Permute inner channels, larger gates first. The function at full width stays the same."""

    def middle(self, feature: Tensor, width_set: str, start: int, stop: int) -> Tensor:
        """Feature after `start` blocks to the feature after `stop` blocks."""
        for block in self.blocks[start:stop]:
            feature = block(feature, width_set)
        return feature

    def build_middle(self, builder: Builder, feature: str, width_set: str, start: int, stop: int) -> str:
        """Append the folded blocks after `start`, up to `stop`. Returns the name of the feature."""
        for block in self.blocks[start:stop]:
            feature = block.build(builder, feature, width_set)  # type: ignore[operator]
        return feature

    def feature_shape(self, cut: int, px: int) -> tuple[int, int, int]:
        """Channels, height and width of the feature after `cut` blocks."""
        side = px // self.stem_stride
        for spec in self.specs[:cut]:
            side = -(-side // spec.stride)
        return self.specs[cut - 1].outputs if cut else self.stem.shape[0], side, side

    def gated(self) -> dict[str, Any]:
        """Modules with inner channels, by name. Each multiplies them by its `gate`, unless that is None."""
        return {f"blocks.{i}": block for i, block in enumerate(self.blocks)}

    def tail(self, feature: Tensor, width_set: str, start: int) -> Tensor:
        """Feature after `start` blocks to logits `[B, classes]`."""
        return self.classify(self.pooled(feature, width_set, start))

    def heads(self, image: Tensor, width_set: str, partitions: int) -> list[Tensor]:
        """The feature at each of the first `partitions` cuts, in one pass."""
        found: list[Tensor] = []
        feature, start = self.head(image, width_set, 0), 0
        for cut in self.cuts[:partitions]:
            feature, start = self.middle(feature, width_set, start, cut), cut
            found.append(feature)
        return found

    def features(self, image: Tensor, width_set: str) -> tuple[list[Tensor], Tensor]:
        """The feature at every cut, and the logits, in one pass."""
        found = self.heads(image, width_set, len(self.cuts))
        return found, self.tail(found[-1], width_set, self.cuts[-1])

    def forward(self, image: Tensor, width_set: str = "r100") -> Tensor:
        """Image `[B, 3, H, W]` in [-1, 1] to logits `[B, classes]`."""
        return self.tail(self.head(image, width_set, 0), width_set, 0)


def sets_from(block: int, cuts: Sequence[int]) -> list[str]:
    """Width sets of block `block`, where 0 is the stem: every ratio, and the tails whose cut lies before it."""
    names = [set_of_ratio(ratio) for ratio in RATIOS] + [set_of_partition(0)]
    return names + [set_of_partition(i) for i, cut in enumerate(cuts, start=1) if cut < block]


@torch.no_grad()
def seed_tail(net: nn.Module, partition: int) -> None:
    """Set the tail of a partition back to the uncut net's: its BatchNorms, and no additions."""
    name = set_of_partition(partition)
    for module in net.modules():
        if isinstance(module, WidthNorm) and name in module.norms:
            module.norms[name].load_state_dict(module.norms[set_of_ratio(1.0)].state_dict())
        elif isinstance(module, LowRank) and name in module.up:
            module.up[name].zero_()


@torch.no_grad()
def fold_tails(net: nn.Module) -> None:
    """Fold the statistics of the tails of inner cuts into their scales and shifts, so that all are mean 0, deviation 1.

    The function stays the same. The file gets smaller, because equal tensors are stored once.
    """
    for module in net.modules():
        for name, norm in module.norms.items() if isinstance(module, WidthNorm) else ():
            if name[0] == "p" and name != set_of_partition(0):
                assert isinstance(norm, nn.BatchNorm2d)
                assert norm.running_mean is not None
                assert norm.running_var is not None
                scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                norm.bias.sub_(norm.running_mean * scale)
                norm.weight.copy_(scale)
                norm.running_mean.zero_()
                norm.running_var.fill_(1.0 - norm.eps)


def ranking(gate: Tensor) -> Tensor:
    """Order of channels, most attended first. Ties keep their order, so the result is the same on every machine."""
    return torch.argsort(gate.detach().abs(), descending=True, stable=True)


@torch.no_grad()
def permute_norm(norm: WidthNorm, order: Tensor) -> None:
    """Permute the full-width sets and seed the slimmed ones with the first channels of `r100`."""
    full = norm.norms["r100"]
    for name in ("weight", "bias", "running_mean", "running_var"):
        source = getattr(full, name)[order].clone()
        for other in norm.norms.values():
            target = getattr(other, name)
            target.copy_(source[: len(target)])
