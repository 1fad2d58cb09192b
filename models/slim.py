"""Parts of slimmable networks: one set of weights, several widths, BatchNorms for each width and each tail.

A *width set* is a named set of BatchNorms. `r25`, `r50`, `r75` and `r100` run the whole network at that channel ratio,
and heads are their first blocks. `p0`, `p1`, ... are the server's tails of partition 0, 1, ... at full width.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.data.ratios import RATIOS

_Net = TypeVar("_Net", bound=nn.Module)
MOMENTUM = 0.1  # at EfficientNet's 0.01 statistics lag so far behind in short training that evaluation collapses


def set_of_ratio(ratio: float) -> str:
    """Name of the width set of a channel ratio, e.g. 0.25 -> `r25`."""
    return f"r{round(ratio * 100)}"


def set_of_partition(partition: int) -> str:
    """Name of the width set of a partition's tail, e.g. `p2`."""
    return f"p{partition}"


def width_of(width_set: str) -> float:
    """Channel ratio of a width set. Tails always run at full width."""
    return int(width_set[1:]) / 100 if width_set[0] == "r" else 1.0


def inner_channels(channels: int, ratio: float) -> int:
    """Number of inner channels at `ratio`."""
    return max(1, math.ceil(channels * ratio))


class Inner(NamedTuple):
    """Channels that shrink with the ratio: names of the parameters that have them as rows or columns, and of norms."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    norms: tuple[str, ...] = ()


class Slim(nn.Module):
    """A module whose forward takes the first inner channels of its weights."""

    def settle(self) -> None:
        """Compute once what stays the same in every run. Called for a copy of one width set."""

    @abstractmethod
    def inner_parts(self) -> dict[str, Inner]:
        """Groups of inner channels by the name of the submodule with their gate, empty for the module itself."""

    def inner_axes(self) -> dict[str, int]:
        """Axis of the inner channels, by the name of each parameter that has any. BatchNorms are left out."""
        groups = self.inner_parts().values()
        return {name: axis for group in groups for axis in (0, 1) for name in group[axis]}


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


@torch.no_grad()
def frozen(net: _Net, width_set: str, *others: str) -> _Net:
    """A copy for one width set: weights are cut to its width, and additions are in them. The rest is shared.

    `others`: further width sets whose norms it keeps.
    """
    memo: dict[int, Any] = {id(one): one for one in (*net.parameters(), *net.buffers())}
    added: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        if isinstance(module, WidthNorm):
            own = {n: norm for n, norm in module.norms.items() if n in (width_set, *others)}
            memo[id(module.norms)] = nn.ModuleDict(own)
        elif isinstance(module, LowRank):
            weight = name.removesuffix("_low")
            added[weight] = module(net.get_parameter(weight), width_set)
            memo[id(module)] = LowRank(0, 0, {})
    made = deepcopy(net, memo)
    for name, weight in added.items():
        _put(made, name, weight)
    for module in list(made.modules()):
        for name, axis in module.inner_axes().items() if isinstance(module, Slim) else ():
            weight = module.get_parameter(name)
            kept = inner_channels(weight.shape[axis], width_of(width_set))
            _put(module, name, weight.narrow(axis, 0, kept).contiguous())
        if isinstance(module, Slim):
            module.settle()
    return made


def _put(net: nn.Module, name: str, weight: Tensor) -> None:
    owner, _, own_name = name.rpartition(".")
    setattr(net.get_submodule(owner), own_name, nn.Parameter(weight, requires_grad=False))


def first(weight: Tensor, rows: int, columns: int | None = None) -> Tensor:
    """The first rows and columns of a weight, which is itself where it has no more."""
    if rows < len(weight):
        weight = weight[:rows]
    return weight if columns is None or columns == weight.shape[1] else weight[:, :columns]


def pointwise(x: Tensor, weight: Tensor, out_channels: int) -> Tensor:
    """1x1 convolution of `x` `[B, C, H, W]` with the first `out_channels` filters and the first C input channels."""
    return F.conv2d(x, first(weight, out_channels, x.shape[1]))


def weighed(x: Tensor, gate: Tensor | None) -> Tensor:
    """`x` `[B, C, H, W]` times a gate `[C]`, if there is one."""
    return x if gate is None else x * gate.to(x.dtype).view(1, -1, 1, 1)


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
    """Fold the statistics of inner cuts' tails into their scales and shifts, which leaves mean 0 and deviation 1.

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
    """Permute `r100`, and give every other set its first channels."""
    full = norm.norms["r100"]
    for name in ("weight", "bias", "running_mean", "running_var"):
        source = getattr(full, name)[order].clone()
        for other in norm.norms.values():
            target = getattr(other, name)
            target.copy_(source[: len(target)])
