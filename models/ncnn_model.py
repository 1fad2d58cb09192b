"""An ONNX model of this project as a model of ncnn: its text of layers and its weights.

ncnn needs 2.5 times fewer instructions than ONNX Runtime on a Cortex-A72, for the same float32 answers. The operators
are those that `compression/net/onnx_export.py` leaves, so that no other converter is needed.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Floats = NDArray[np.float32]
MAGIC = 7767517
FLOAT32 = struct.pack("<I", 0)  # before the weights of a layer: the type in which they are stored
RELU6 = " 9=3 -23310=2,0.0,6.0"
MERGED = {"Clip", "Flatten"}  # part of the layer before


class Layer(NamedTuple):
    """A layer's type, the names of its inputs and outputs, and its parameters as ncnn writes them."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    parameters: str


def to_ncnn(model: onnx.ModelProto) -> tuple[str, bytes]:
    """The text of layers (`.param`) and the weights (`.bin`). The outputs keep their order.

    Raises:
        ValueError: the model has an operator that is not converted, such as one of an int8 model.
    """
    graph = model.graph
    weights = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    merged = {node.input[0]: node for node in graph.node if node.op_type in MERGED}
    nodes = [node for node in graph.node if node.op_type not in MERGED]
    layers = [Layer("Input", [], [graph.input[0].name], "")]
    layers += [_layer(node, merged.get(node.output[0]), weights) for node in nodes]
    # ncnn's outputs are the values without a reader, in the order of the layers.
    layers += [Layer("Split", [output.name], [f"{output.name}.out"], "") for output in graph.output]
    return _text(list(_split(layers))), b"".join(part for node in nodes for part in _weights(node, weights))


def _split(layers: list[Layer]) -> Iterator[Layer]:
    """The layers, and a copy for each reader of a value that has several, as ncnn demands."""
    readers = Counter(name for layer in layers for name in layer.inputs)
    copies = {name: iter([f"{name}.{i}" for i in range(n)]) for name, n in readers.items() if n > 1}
    for layer in layers:
        inputs = [next(copies[name]) if name in copies else name for name in layer.inputs]
        yield layer._replace(inputs=inputs)
        for name in layer.outputs:
            if name in copies:
                yield Layer("Split", [name], [f"{name}.{i}" for i in range(readers[name])], "")


def _text(layers: list[Layer]) -> str:
    """Layers as ncnn reads them: type, name, counts of inputs and outputs, their names, parameters."""
    lines = [str(MAGIC), f"{len(layers)} {sum(len(layer.outputs) for layer in layers)}"]
    for i, (kind, inputs, outputs, parameters) in enumerate(layers):
        lines.append(" ".join([kind, f"l{i}", f"{len(inputs)} {len(outputs)}", *inputs, *outputs, parameters]).rstrip())
    return "\n".join(lines) + "\n"


def _layer(node: onnx.NodeProto, merged: onnx.NodeProto | None, weights: dict[str, Floats]) -> Layer:
    """The layer of a node, with the clip or flattening after it inside."""
    inputs, outputs = [node.input[0]], list((merged or node).output)
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Add":
        return Layer("BinaryOp", list(node.input), outputs, "0=0")
    if node.op_type == "GlobalAveragePool":
        return Layer("Pooling", inputs, outputs, "0=1 4=1")
    if node.op_type == "DepthToSpace":
        return Layer("PixelShuffle", inputs, outputs, f"0={given['blocksize']} 1=0")
    if node.op_type not in ("Conv", "Gemm"):
        raise ValueError(f"{node.op_type}: not an operator that can be converted to ncnn")
    weight = weights[node.input[1]]
    if node.op_type == "Gemm":
        return Layer("InnerProduct", inputs, outputs, f"0={len(weight)} 1=1 2={weight.size}")
    top, left, bottom, right = given["pads"]
    groups, after = given["group"], RELU6 if merged is not None else ""
    kind, grouped = ("Convolution", "") if groups == 1 else ("ConvolutionDepthWise", f" 7={groups}")
    size = f"0={len(weight)} 1={weight.shape[3]} 11={weight.shape[2]} 3={given['strides'][0]} 5={len(node.input) - 2}"
    return Layer(
        kind, inputs, outputs, f"{size} 4={left} 14={top} 15={right} 16={bottom} 6={weight.size}{grouped}{after}"
    )


def _weights(node: onnx.NodeProto, weights: dict[str, Floats]) -> Iterator[bytes]:
    """The weights of a layer, then its bias."""
    if node.op_type in ("Conv", "Gemm"):
        yield FLOAT32 + weights[node.input[1]].astype("<f4").tobytes()
        yield from (weights[bias].astype("<f4").tobytes() for bias in node.input[2:])
