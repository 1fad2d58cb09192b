"""A deployed network as a flat list of convolutions with BatchNorm folded in.

A slim network holds the weights of its first channels only, so a head at ratio 0.25 really is the smaller net. The
list runs in torch (fast bfloat16 evaluation), becomes ONNX, and counts its multiply-accumulates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Node:
    """One operation: `conv`, `add`, `mean` (over positions), `linear` or `shuffle` (depth to space)."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    weight: Tensor | None = None
    bias: Tensor | None = None
    stride: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    groups: int = 1
    relu6: bool = False
    factor: int = 1


@dataclass
class Graph:
    """Nodes in order of execution, the shape of the one input without its batch, and the names of the outputs."""

    input_shape: tuple[int, ...]
    outputs: tuple[str, ...] = ()
    nodes: list[Node] = field(default_factory=list)

    def run(self, x: Tensor) -> tuple[Tensor, ...]:
        """Outputs for `x` `[B, *input_shape]`, whose type must be that of the weights."""
        values = {"x": x}
        last_use = {name: i for i, node in enumerate(self.nodes) for name in node.inputs}
        for i, node in enumerate(self.nodes):
            values[node.output] = _apply(node, [values[name] for name in node.inputs])
            for name in node.inputs:
                if last_use[name] == i and name not in self.outputs:
                    values.pop(name, None)
        return tuple(values[name] for name in self.outputs)

    def to(self, dtype: torch.dtype) -> Graph:
        """A copy with weights of another type. Weights of convolutions are stored channels last."""

        def cast(tensor: Tensor | None) -> Tensor | None:
            if tensor is None:
                return None
            tensor = tensor.to(dtype)
            return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor

        nodes = [Node(**{**vars(n), "weight": cast(n.weight), "bias": cast(n.bias)}) for n in self.nodes]
        return Graph(self.input_shape, self.outputs, nodes)

    def macs(self) -> int:
        """Multiply-accumulates of one input, in convolutions and linear layers."""
        shapes: dict[str, tuple[int, ...]] = {"x": self.input_shape}
        total = 0
        for node in self.nodes:
            shapes[node.output], macs = _shape(node, shapes[node.inputs[0]])
            total += macs
        return total

    def values_moved(self) -> int:
        """Values that the convolutions read and write for one input: their inputs and outputs, without weights."""
        shapes: dict[str, tuple[int, ...]] = {"x": self.input_shape}
        total = 0
        for node in self.nodes:
            shapes[node.output], _ = _shape(node, shapes[node.inputs[0]])
            if node.kind == "conv":
                total += math.prod(shapes[node.inputs[0]]) + math.prod(shapes[node.output])
        return total


def _apply(node: Node, args: list[Tensor]) -> Tensor:
    x = args[0]
    if node.kind == "add":
        return x + args[1]
    if node.kind == "mean":
        return x.mean(dim=(2, 3))
    if node.kind == "shuffle":
        return F.pixel_shuffle(x, node.factor).contiguous(memory_format=torch.channels_last)
    assert node.weight is not None
    if node.kind == "linear":
        return F.linear(x, node.weight, node.bias)
    top, left, bottom, right = node.pads
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, [left, right, top, bottom]), 0, 0
    if node.relu6 and x.dtype == torch.bfloat16 and x.device.type == "cpu" and torch.backends.mkldnn.enabled:
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(  # with ReLU6 inside: twice as fast
            x, node.weight, node.bias, [top, left], [node.stride] * 2, [1, 1], node.groups, "hardtanh", [0.0, 6.0], ""
        )
        return fused
    y = F.conv2d(x, node.weight, node.bias, node.stride, (top, left), groups=node.groups)
    return y.clamp_(0, 6) if node.relu6 else y


def _shape(node: Node, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Shape of a node's output, and its multiply-accumulates."""
    if node.kind == "add":
        return shape, 0
    if node.kind == "mean":
        return shape[:1], 0
    if node.kind == "shuffle":
        return (shape[0] // node.factor**2, shape[1] * node.factor, shape[2] * node.factor), 0
    assert node.weight is not None
    if node.kind == "linear":
        return (node.weight.shape[0],), node.weight.numel()
    kernel = node.weight.shape[2]
    height = (shape[1] + node.pads[0] + node.pads[2] - kernel) // node.stride + 1
    width = (shape[2] + node.pads[1] + node.pads[3] - kernel) // node.stride + 1
    return (node.weight.shape[0], height, width), node.weight.numel() * height * width


@torch.no_grad()
def fold(weight: Tensor, norm: nn.Module, repeat: int = 1) -> tuple[Tensor, Tensor]:
    """A convolution and the BatchNorm after it as one weight and bias.

    `repeat`: channels of the convolution for each one of the norm, where a shuffle lies between them.
    """
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if norm.training:
        raise RuntimeError("cannot fold a BatchNorm in training mode: call eval() first")
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * factor
    factor, shift = factor.repeat_interleave(repeat), shift.repeat_interleave(repeat)
    return (weight.detach() * factor.view(-1, 1, 1, 1)).clone(), shift.detach().clone()


class Builder:
    """Appends nodes to a graph. Every method returns the name of its output."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.graph = Graph(input_shape)

    def _add(self, node: Node) -> str:
        self.graph.nodes.append(node)
        return node.output

    def _name(self) -> str:
        return f"v{len(self.graph.nodes)}"

    def conv(
        self, x: str, weight: Tensor, norm: nn.Module, stride: int = 1,
        pads: tuple[int, int, int, int] = (0, 0, 0, 0), groups: int = 1, relu6: bool = False, repeat: int = 1,
    ) -> str:  # fmt: skip
        """Convolution with the BatchNorm after it folded in, and with ReLU6 if asked for."""
        folded, bias = fold(weight, norm, repeat)
        return self._add(Node("conv", (x,), self._name(), folded, bias, stride, pads, groups, relu6))

    def bare(self, x: str, weight: Tensor) -> str:
        """1x1 convolution without bias."""
        return self._add(Node("conv", (x,), self._name(), weight.detach().clone(), torch.zeros(len(weight))))

    def add(self, x: str, y: str) -> str:
        """Sum of two values."""
        return self._add(Node("add", (x, y), self._name()))

    def mean(self, x: str) -> str:
        """Mean over positions."""
        return self._add(Node("mean", (x,), self._name()))

    def linear(self, x: str, weight: Tensor, bias: Tensor) -> str:
        """Fully connected layer."""
        return self._add(Node("linear", (x,), self._name(), weight.detach().clone(), bias.detach().clone()))

    def shuffle(self, x: str, factor: int) -> str:
        """Depth to space, as by `pixel_shuffle`."""
        return self._add(Node("shuffle", (x,), self._name(), factor=factor))

    def finish(self, *outputs: str) -> Graph:
        """The graph, with these values as outputs."""
        self.graph.outputs = outputs
        return self.graph
