"""Device models of 8-bit integers, in the form that ONNX Runtime's own static quantizer gives (QDQ, per channel).

Activations are unsigned and weights signed: measured, that is the quickest pair both on x86 and by instructions of a
Cortex-A72. The ranges of activations are measured once on training pictures and kept in a small file by the weights.
So an export needs no pictures and is always the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData

from tidesplit.compression.codec.knobs import INT8, RATIOS, device_id
from tidesplit.compression.net.deployed_graphs import device_graph, finish_graph, head_graph
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.labelled import Bytes, scale
from tidesplit.models.graph import Graph
from tidesplit.models.onnx_graph import to_onnx

Range = tuple[float, float]
"""Least and largest value."""
Ranges = Mapping[str, list[Range]]
"""A range for each node: of whole nets (`device-c0.50`), and of heads behind the cut's feature (`head-p3-c0.50`)."""
PICTURE: Range = (-1.0, 1.0)
BATCH = 32  # pictures in one run


@torch.inference_mode()
def measure_ranges(system: SplitNet, images: Bytes) -> dict[str, list[Range]]:
    """Ranges of every node that a device runs, over uint8 pictures `[N, px, px, 3]`. The largest extremes count."""
    found: dict[str, list[Range]] = {}
    for ratio in RATIOS:
        graphs = {device_id(ratio): device_graph(system, ratio)}
        for partition in range(1, system.net.partitions):
            graphs[_head(partition, ratio)] = _behind_cut(system, partition, ratio)
        every = Graph(graphs[device_id(ratio)].input_shape, nodes=[n for graph in graphs.values() for n in graph.nodes])
        ranges = iter(_extremes(every, images))
        found |= {name: [next(ranges) for _ in graph.nodes] for name, graph in graphs.items()}
    return found


def int8_device(system: SplitNet, ratio: float, ranges: Ranges) -> onnx.ModelProto:
    """Image `x` to `logits`, by the whole CNN at a channel ratio."""
    graph = device_graph(system, ratio)
    return _quantized(graph, device_id(ratio, INT8), ("logits",), PICTURE, ranges[device_id(ratio)])


def int8_head(system: SplitNet, partition: int, ratio: float, ranges: Ranges) -> onnx.ModelProto:
    """Image `x` to `feature`, values `y` and attention `score`, all three float32."""
    graph, shared = head_graph(system, partition, ratio), _shared(system, partition, ratio)
    found = [*ranges[device_id(ratio)][:shared], *ranges[_head(partition, ratio)]]
    return _quantized(graph, f"{_head(partition, ratio)}-i8", ("feature", "y", "score"), PICTURE, found)


def int8_finish(system: SplitNet, partition: int, ratio: float, ranges: Ranges) -> onnx.ModelProto:
    """The feature `x` of the int8 head to `logits`."""
    graph, shared = finish_graph(system, partition, ratio), _shared(system, partition, ratio)
    whole = ranges[device_id(ratio)]
    name = f"finish-p{partition}-c{ratio:.2f}-i8"
    return _quantized(graph, name, ("logits",), whole[shared - 1], whole[shared:])


def _head(partition: int, ratio: float) -> str:
    return f"head-p{partition}-c{ratio:.2f}"


def _shared(system: SplitNet, partition: int, ratio: float) -> int:
    """Nodes of the whole net before a cut. They are also the first nodes of the head."""
    return len(device_graph(system, ratio).nodes) - len(finish_graph(system, partition, ratio).nodes)


def _behind_cut(system: SplitNet, partition: int, ratio: float) -> Graph:
    """The head's nodes behind the cut's feature, which keeps its name in the whole net. Their own names are new."""
    head, shared = head_graph(system, partition, ratio), _shared(system, partition, ratio)
    own = {node.output: f"cut{partition} {node.output}" for node in head.nodes[shared:]}
    nodes = [
        replace(node, inputs=tuple(own.get(name, name) for name in node.inputs), output=own[node.output])
        for node in head.nodes[shared:]
    ]
    return Graph(head.input_shape, nodes=nodes)


def _extremes(graph: Graph, images: Bytes) -> list[Range]:
    """Least and largest value of every node."""
    every = replace(graph, outputs=tuple(node.output for node in graph.nodes))
    low, high = np.full(len(graph.nodes), np.inf), np.full(len(graph.nodes), -np.inf)
    for start in range(0, len(images), BATCH):
        values = every.run(scale(images[start : start + BATCH]))
        low = np.minimum(low, [float(v.min()) for v in values])
        high = np.maximum(high, [float(v.max()) for v in values])
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _quantized(
    graph: Graph, name: str, outputs: tuple[str, ...], entry: Range, found: list[Range], left: tuple[str, ...] = ()
) -> onnx.ModelProto:
    """The graph as an int8 model.

    Args:
        entry: range of the input.
        found: ranges of the nodes.
    """
    if len(found) != len(graph.nodes):
        raise ValueError(f"{name}: ranges of {len(found)} nodes received, of {len(graph.nodes)} expected")
    model = to_onnx(graph, name, outputs)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{number}"  # the quantizer tells nodes apart by their names
    rename = dict(zip(graph.outputs, outputs, strict=True))
    tensors = {"x": entry}
    for node, range_ in zip(graph.nodes, found, strict=True):
        output = rename.get(node.output, node.output)
        tensors |= dict.fromkeys((output, f"{output}_raw", f"{output}_pool"), range_)
    data = {k: (np.float32(low), np.float32(high)) for k, (low, high) in tensors.items()}
    quantizer = QDQQuantizer(
        model, True, False, QuantType.QInt8, QuantType.QUInt8, TensorsData(CalibrationMethod.MinMax, data), [], [n.name for n in model.graph.node if n.output[0] in left],
        ["Conv", "Clip", "Add", "GlobalAveragePool", "Flatten", "Gemm"], {},
    )
    quantizer.quantize_model()
    return quantizer.model.model
