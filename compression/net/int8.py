"""Device models of 8-bit integers, made by ONNX Runtime's own static quantizer (QDQ, per channel).

Activations are unsigned and weights signed. Signed activations take two to four times as long on x86 and 7 % more
instructions on a Cortex-A72. The ranges of activations are measured once on training pictures and kept in a file next
to the weights. So an export needs no pictures and always gives the same models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorsData

from tidesplit.compression.codec.knobs import INT8, RATIOS, device_id
from tidesplit.compression.net.deployed_graphs import device_graph, encoder_graph, finish_graph, head_graph, part_graph
from tidesplit.compression.net.fitted_files import load_fitted, save_fitted
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.labelled import Bytes, scale
from tidesplit.data.files import ranges_file
from tidesplit.models.graph import Graph, Node
from tidesplit.models.onnx_graph import to_onnx

Range = tuple[float, float]
"""Least and largest value."""
Ranges = Mapping[str, list[Range]]
"""A range for each node: of whole nets (`device-c0.50`), and of heads behind the cut's feature (`head-p3-c0.50`)."""
PICTURE: Range = (-1.0, 1.0)
COLOURS = 3  # channels of a picture; no cut has so few
BATCH = 32  # pictures in one run, so that the values of all nodes fit into 2 GB
OPERATIONS = ["Add", "Clip", "Conv", "Flatten", "Gemm", "GlobalAveragePool"]


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


def save_ranges(weights: Path, system: SplitNet, ranges: Ranges) -> Path:
    """Write the ranges next to a weights file. Returns their path."""
    return save_fitted(ranges_file(weights), system, "ranges", ranges)


def load_ranges(weights: Path, system: SplitNet) -> Ranges | None:
    """The ranges next to a weights file; None where there are none.

    Raises:
        ValueError: they were measured with other weights.
    """
    found = load_fitted(ranges_file(weights), system, "ranges")
    return None if found is None else {name: [(low, high) for low, high in rows] for name, rows in found.items()}


def int8_device(system: SplitNet, ratio: float, ranges: Ranges) -> onnx.ModelProto:
    """Image `x` to `logits`, by the whole CNN at a channel ratio."""
    return _part(system, 0, system.net.partitions, ratio, ranges, device_id(ratio, INT8))


def int8_head(system: SplitNet, partition: int, ratio: float, ranges: Ranges) -> onnx.ModelProto:
    """Image `x` to `feature`, values `y` and attention `score`, all three float32."""
    graph, shared = head_graph(system, partition, ratio), _shared(system, partition, ratio)
    found = [*ranges[device_id(ratio)][:shared], *ranges[_head(partition, ratio)]]
    return _quantized(graph, f"{_head(partition, ratio)}-i8", ("feature", "y", "score"), PICTURE, found)


def int8_finish(system: SplitNet, partition: int, ratio: float, ranges: Ranges) -> onnx.ModelProto:
    """The feature `x` of the int8 head to `logits`."""
    name = f"finish-p{partition}-c{ratio:.2f}-i8"
    return _part(system, partition, system.net.partitions, ratio, ranges, name)


def int8_part(system: SplitNet, first: int, last: int, ratio: float, ranges: Ranges) -> onnx.ModelProto:
    """Feature `x` at one partition to `feature` at a later one, at the ends from the image and to `logits`.

    A feature has the same codes in the part that makes it and in the next. So parts in a row answer as the whole does.
    """
    return _part(system, first, last, ratio, ranges, f"part-{first}-{last}-c{ratio:.2f}-i8")


def int8_encoder(system: SplitNet, partition: int, ratio: float, ranges: Ranges) -> onnx.ModelProto:
    """The feature `x` of an int8 head to values `y` and attention `score`."""
    entry = ranges[device_id(ratio)][_shared(system, partition, ratio) - 1]
    graph, found = encoder_graph(system, partition, ratio), ranges[_head(partition, ratio)]
    return _quantized(graph, f"encoder-p{partition}-c{ratio:.2f}-i8", ("y", "score"), entry, found)


def _part(system: SplitNet, first: int, last: int, ratio: float, ranges: Ranges, name: str) -> onnx.ModelProto:
    every, inner = ranges[device_id(ratio)], last < system.net.partitions
    begin = _shared(system, first, ratio) if first else 0
    end = _shared(system, last, ratio) if inner else None
    entry = every[begin - 1] if first else PICTURE
    graph = part_graph(system, first, last, ratio)
    return _quantized(graph, name, ("feature" if inner else "logits",), entry, every[begin:end])


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


def _kept(graph: Graph) -> list[Node]:
    """Nodes that stay float32: the first convolution of a picture, and a depthwise one right behind it.

    They cause half of the error: 0.20 of the logits' spread with them and 0.11 without at ratio 0.25, 0.11 and 0.06 at
    ratio 1. On a Cortex-A72 float32 takes no more instructions there.
    """
    if graph.input_shape[0] != COLOURS:
        return []
    return [graph.nodes[0], *(node for node in graph.nodes[1:2] if node.groups > 1)]


def _quantized(
    graph: Graph, name: str, outputs: tuple[str, ...], entry: Range, found: list[Range]
) -> onnx.ModelProto:  # fmt: skip
    """The graph as an int8 model. `entry`: range of its input, `found`: those of its nodes."""
    if len(found) != len(graph.nodes):
        raise ValueError(f"{name}: ranges of {len(found)} nodes received, of {len(graph.nodes)} expected")
    model = to_onnx(graph, name, outputs)
    for number, made in enumerate(model.graph.node):
        made.name = f"{made.op_type}{number}"  # the quantizer tells nodes apart by their names
    kept = {output for node in _kept(graph) for output in (node.output, f"{node.output}_raw")}
    rename = dict(zip(graph.outputs, outputs, strict=True))
    tensors = {"x": entry}
    for node, range_ in zip(graph.nodes, found, strict=True):
        output = rename.get(node.output, node.output)
        tensors |= dict.fromkeys((output, f"{output}_raw", f"{output}_pool"), range_)
    data = {tensor: (np.float32(low), np.float32(high)) for tensor, (low, high) in tensors.items()}
    quantizer = QDQQuantizer(
        model, per_channel=True, reduce_range=False, weight_qType=QuantType.QInt8, activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data), nodes_to_quantize=[],
        nodes_to_exclude=[made.name for made in model.graph.node if made.output[0] in kept],
        op_types_to_quantize=OPERATIONS, extra_options={},
    )  # fmt: skip
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result = quantizer.model.model
    assert isinstance(result, onnx.ModelProto)
    onnx.checker.check_model(result)
    return result
