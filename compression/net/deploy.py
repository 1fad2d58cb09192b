"""ONNX models of a split network, as they run on device and server.

Heads, finishes and whole nets of one ratio are made of the same parts: `part_model` and `encoder_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx
import torch
from torch import Tensor, nn

from tidesplit.compression.net.onnx_export import to_onnx
from tidesplit.compression.net.system import SplitNet
from tidesplit.models.slim import frozen, set_of_partition, set_of_ratio

CUT = ("feature", "y", "score")


class _Run(nn.Module):
    """What a network does at one width set, as a module."""

    def __init__(self, system: SplitNet, width_set: str, run: Callable[[SplitNet, Tensor], object]) -> None:
        super().__init__()
        self.system, self._run = frozen(system, width_set, set_of_ratio(1.0)), run

    def forward(self, x: Tensor) -> object:
        return self._run(self.system, x)


def part_model(system: SplitNet, begin: int, end: int, ratio: float) -> onnx.ModelProto:
    """Feature `x` at one partition to `feature` at a later one, at the ends from the image and to `logits`."""
    module = _Run(system, set_of_ratio(ratio), lambda net, x: net.part(x, begin, end, ratio))
    output = "logits" if end == system.partitions else "feature"
    return _model(module, f"part-{begin}-{end}-c{ratio:.2f}", system.net.shape(begin), (output,))


def encoder_model(system: SplitNet, partition: int, ratio: float) -> onnx.ModelProto:
    """Feature `x` of a head to values `y` and attention `score`."""
    module = _Run(system, set_of_ratio(ratio), lambda net, x: net.encode(x, partition, ratio))
    return _model(module, f"encoder-p{partition}-c{ratio:.2f}", system.net.shape(partition), CUT[1:])


def head_model(system: SplitNet, partition: int, ratio: float) -> onnx.ModelProto:
    """Image `x` to `feature`, values `y` and attention `score`."""
    module = _Run(system, set_of_ratio(ratio), lambda net, x: net.head(x, partition, ratio))
    return _model(module, f"head-p{partition}-c{ratio:.2f}", system.net.shape(0), CUT)


def heads_model(system: SplitNet, ratio: float) -> onnx.ModelProto:
    """Image `x` to `y1`, `score1`, `y2` and so on: what the heads of all cuts send, in one run."""
    module = _Run(system, set_of_ratio(ratio), lambda net, x: net.heads(x, ratio))
    names = [f"{kind}{p}" for p in range(1, system.partitions) for kind in CUT[1:]]
    return _model(module, f"heads-c{ratio:.2f}", system.net.shape(0), names)


def tail_model(system: SplitNet, partition: int) -> onnx.ModelProto:
    """Wire values `x`, or at partition 0 the image, to `logits`, for any number of frames."""
    module = _Run(system, set_of_partition(partition), lambda net, x: net.tail(x, partition))
    return _model(module, f"tail-p{partition}", system.arriving(partition), ("logits",), free=True)


def middle_model(system: SplitNet, begin: int, end: int) -> onnx.ModelProto:
    """Wire values `x` of one cut, or the image, to `feature`, `y` and `score` of a later one."""
    width_set = set_of_partition(begin) if begin else set_of_ratio(1.0)
    module = _Run(system, width_set, lambda net, x: net.middle(x, begin, end))
    return _model(module, f"middle-p{begin}-p{end}", system.arriving(begin), CUT, free=True)


def _model(
    module: nn.Module, name: str, shape: tuple[int, ...], outputs: Sequence[str], free: bool = False
) -> onnx.ModelProto:
    if any(part.training for part in module.children()):
        raise RuntimeError(f"{name}: cannot export a network in training mode, call eval() first")
    x = torch.randn(2 if free else 1, *shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    return to_onnx(module, x, name, outputs, free)
