"""Parts of slimmable networks: one set of weights, several widths, a BatchNorm per width and per tail.

A *width set* is a named set of BatchNorms: `r25`, `r50`, `r75`, `r100` are the network run whole at that channel
ratio (heads are prefixes of these), `p0`, `p1`, ... are the server's tails of partition 0, 1, ... at full width.
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
    "width_of",
]

MOMENTUM = 0.1  # EfficientNet's 0.01 lags so far behind in short training that evaluation collapses


def set_of_ratio(ratio: float) -> str:
    """Name of the width set of a channel ratio, e.g. 0.25 -> `r25`."""
    return f"r{round(ratio * 100)}"


def set_of_partition(partition: int) -> str:
    """Name of the width set of the tail behind a partition."""
    return f"p{partition}"


def width_of(width_set: str) -> float:
    """Channel ratio at which a width set runs: tails always run in full."""
    return int(width_set[1:]) / 100 if width_set[0] == "r" else 1.0


def inner_channels(channels: int, ratio: float) -> int:
    """How many inner channels remain at `ratio`."""
    return max(1, math.ceil(channels * ratio))


class WidthNorm(nn.Module):
    """A BatchNorm per width set over the first channels. `slim`: whether the channels shrink with the ratio."""

    def __init__(self, channels: int, sets: Iterable[str], slim: bool, eps: float) -> None:
        super().__init__()
        self.norms = nn.ModuleDict(
            {
                name: nn.BatchNorm2d(inner_channels(channels, width_of(name)) if slim else channels, eps, MOMENTUM)
                for name in sets
            }
        )

    def forward(self, x: Tensor, width_set: str) -> Tensor:
        """Normalise `[B, C, H, W]`, C being the width set's channels."""
        result = self.norms[width_set](x)
        assert isinstance(result, Tensor)
        return result


class LowRank(nn.Module):
    """What the tails behind some partitions add to a shared 1x1 convolution: a product of rank `ranks[set]` each.

    Added to the weight before it is used, so that a deployed tail is one plain convolution. Starts at zero.
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
    """1x1 convolution with the first `out_channels` filters and as many input channels as `x` has."""
    return F.conv2d(x, weight[:out_channels, : x.shape[1]])


class SlimNet(nn.Module):
    """What compression needs of a CNN. Blocks are counted from 1; `cuts[p - 1]` is the block before partition p's cut.

    `width_sets` may be told apart by the block they start at: the tail of partition p has none before its cut.
    """

    name: str
    input_px: int
    classes: int
    cuts: Sequence[int]

    @property
    def partitions(self) -> int:
        """Index of the last partition: the whole CNN on the device."""
        return len(self.cuts) + 1

    @property
    @abstractmethod
    def blocks_count(self) -> int:
        """How many blocks there are."""

    @abstractmethod
    def head(self, image: Tensor, width_set: str, stop: int) -> Tensor:
        """Image `[B, 3, H, W]` in [-1, 1] through the stem and the first `stop` blocks."""

    @abstractmethod
    def pooled(self, feature: Tensor, width_set: str, start: int) -> Tensor:
        """Feature after the first `start` blocks to the vector that the classifier sees, `[B, C]`."""

    @abstractmethod
    def classify(self, pooled: Tensor) -> Tensor:
        """That vector to logits `[B, classes]`."""

    @abstractmethod
    def middle(self, feature: Tensor, width_set: str, start: int, stop: int) -> Tensor:
        """Feature after `start` blocks to feature after `stop` blocks."""

    @abstractmethod
    def build_head(self, builder: Builder, width_set: str, stop: int) -> str:
        """Append the folded stem and first `stop` blocks; name of the feature."""

    @abstractmethod
    def build_tail(self, builder: Builder, feature: str, width_set: str, start: int) -> str:
        """Append the folded rest after `start` blocks; name of the logits."""

    @abstractmethod
    def build_middle(self, builder: Builder, feature: str, width_set: str, start: int, stop: int) -> str:
        """Append the folded blocks `start` to `stop`; name of the feature."""

    @abstractmethod
    def feature_shape(self, cut: int, px: int) -> tuple[int, int, int]:
        """Channels, height and width of the feature after `cut` blocks."""

    @abstractmethod
    def gated(self) -> dict[str, Any]:
        """Modules with inner channels, by name: each multiplies them by its attribute `gate` unless that is None."""

    @abstractmethod
    def inner_of(self, name: str) -> int:
        """Number of inner channels of a gated module."""

    @abstractmethod
    def inner_axes(self) -> dict[str, int]:
        """Parameters with inner channels (but BatchNorms), by name: the axis of these channels."""

    @abstractmethod
    def rank(self, gates: dict[str, Tensor]) -> None:
        """Permute the inner channels so that those with the larger gate come first."""

    def tail(self, feature: Tensor, width_set: str, start: int) -> Tensor:
        """Feature after the first `start` blocks through the rest. Logits `[B, classes]`."""
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
        """One pass of the whole network: the feature at every cut, and the logits."""
        found = self.heads(image, width_set, len(self.cuts))
        return found, self.tail(found[-1], width_set, self.cuts[-1])

    def forward(self, image: Tensor, width_set: str = "r100") -> Tensor:
        """Whole network. Image `[B, 3, H, W]` in [-1, 1] to logits `[B, classes]`."""
        return self.tail(self.head(image, width_set, 0), width_set, 0)


def sets_from(block: int, cuts: Sequence[int]) -> list[str]:
    """Width sets alive in block `block` (counted from 1; 0 is the stem): every ratio, and the tails cut before it."""
    names = [set_of_ratio(ratio) for ratio in RATIOS] + [set_of_partition(0)]
    return names + [set_of_partition(i) for i, cut in enumerate(cuts, start=1) if cut < block]


@torch.no_grad()
def seed_tail(net: nn.Module, partition: int) -> None:
    """Let the tail behind a cut be the uncut net's: its BatchNorms, and no addition of its own."""
    name = set_of_partition(partition)
    for module in net.modules():
        if isinstance(module, WidthNorm) and name in module.norms:
            module.norms[name].load_state_dict(module.norms[set_of_ratio(1.0)].state_dict())
        elif isinstance(module, LowRank) and name in module.up:
            module.up[name].zero_()


@torch.no_grad()
def fold_tails(net: nn.Module) -> None:
    """Put the statistics of the inner cuts' tails into their scales and shifts: all then have mean 0 and deviation 1.

    The function stays the same, and tensors that are equal are stored once.
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
    """Order of channels, most attended first; ties keep their order so that the result is the same everywhere."""
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
