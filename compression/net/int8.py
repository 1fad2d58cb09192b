"""Device models of 8-bit integers, made by ONNX Runtime's own static quantizer (QDQ, per channel).

Activations are unsigned and weights signed. Signed activations take two to four times as long on x86 and 7 % more
instructions on a Cortex-A72. The ranges of activations are measured once on training pictures and kept in a file next
to the weights. So an export needs no pictures and always gives the same models.

A feature has the same codes in the part that makes it and in the next. So parts in a row answer as one model would.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorsData

from tidesplit.compression.net.deploy import encoder_model, part_model
from tidesplit.compression.net.fitted_files import load_fitted, save_fitted
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.labelled import Bytes, scale
from tidesplit.compression.session import session
from tidesplit.data.files import ranges_file

Floats = NDArray[np.float32]
Range = tuple[float, float]
"""Least and largest value."""
Ranges = Mapping[str, list[Range]]
"""A range for each value, by the part from a partition to the next (`part-0-1-c0.50`) and the encoder of a cut."""
PICTURE: Range = (-1.0, 1.0)
COLOURS = 3  # channels of a picture; no cut has so few
OPERATIONS = ["Add", "Clip", "Conv", "Flatten", "Gemm", "GlobalAveragePool"]
NAME = re.compile(r"(part|encoder)-p?(?P<begin>\d+)(-(?P<end>\d+))?-(?P<ratio>c[0-9.]+)")
MERGED = ("Clip", "Flatten")  # share the range of the operator before


def measure_ranges(system: SplitNet, images: Bytes) -> dict[str, list[Range]]:
    """Ranges of every value that a device computes, over uint8 pictures `[N, px, px, 3]`."""
    found: dict[str, list[Range]] = {}
    for ratio in system.ratios:
        features = [scale(image[None]).numpy() for image in images]
        for begin, end in pairwise(range(system.partitions + 1)):
            if begin:
                encoder = encoder_model(system, begin, ratio)
                found[encoder.graph.name], _ = extremes(encoder, features)
            part = part_model(system, begin, end, ratio)
            found[part.graph.name], features = extremes(part, features)
    return found


def extremes(model: onnx.ModelProto, inputs: Sequence[Floats]) -> tuple[list[Range], list[Floats]]:
    """Least and largest of every value of a float32 model over some inputs, and its last value for each."""
    every = onnx.ModelProto()
    every.CopyFrom(model)
    del every.graph.output[:]
    names = [value[-1].output[0] for value in _values(model.graph)]
    every.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    run, last = session(every.SerializeToString(), torch.get_num_threads()), list[Floats]()
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for x in inputs:
        values = run.run(None, {"x": x})
        low = np.minimum(low, [float(v.min()) for v in values])
        high = np.maximum(high, [float(v.max()) for v in values])
        last.append(values[-1])
    return list(zip(low.tolist(), high.tolist(), strict=True)), last


def save_ranges(weights: Path, system: SplitNet, ranges: Ranges) -> Path:
    """Write the ranges next to a weights file. Returns their path."""
    return save_fitted(ranges_file(weights), system, "ranges", ranges)


def load_ranges(weights: Path, system: SplitNet) -> Ranges | None:
    """The ranges next to a weights file; None where there are none.

    Raises:
        ValueError: they were measured with other weights.
    """
    found = load_fitted(ranges_file(weights), system, "ranges")
    if found is not None and f"part-0-1-c{system.ratios[0]:.2f}" not in found:
        raise ValueError(f"{ranges_file(weights)} is of an earlier form: tidesplit fit-ranges writes it")
    return None if found is None else {name: [(low, high) for low, high in rows] for name, rows in found.items()}


def int8_model(model: onnx.ModelProto, ranges: Ranges) -> onnx.ModelProto:
    """The int8 form of a part, or of an encoder, which its name tells. The model that is given is changed."""
    found = NAME.fullmatch(model.graph.name)
    if found is None:
        raise ValueError(f"a part or an encoder of a device expected, {model.graph.name!r} received")
    begin, end, ratio = int(found["begin"]), found["end"], found["ratio"]
    entry = ranges[f"part-{begin - 1}-{begin}-{ratio}"][-1] if begin else PICTURE
    rows = [f"part-{p}-{p + 1}-{ratio}" for p in range(begin, int(end))] if end else [model.graph.name]
    return quantized(model, entry, [range_ for row in rows for range_ in ranges[row]])


def _values(graph: onnx.GraphProto) -> list[list[onnx.NodeProto]]:
    """The operator that makes each value, and those merged with it."""
    found: list[list[onnx.NodeProto]] = []
    for node in graph.node:
        if node.op_type in MERGED:
            found[-1].append(node)
        else:
            found.append([node])
    return found


def _kept(graph: onnx.GraphProto) -> list[str]:
    """Nodes that stay float32: the first convolution of a picture, and a depthwise one right behind it.

    They cause half of the error: 0.20 of the logits' spread with them and 0.11 without at ratio 0.25, 0.11 and 0.06 at
    ratio 1. On a Cortex-A72 float32 takes no more instructions there.
    """
    if graph.input[0].type.tensor_type.shape.dim[1].dim_value != COLOURS:
        return []
    first, second = _values(graph)[:2]
    grouped = any(attribute.name == "group" and attribute.i > 1 for attribute in second[0].attribute)
    return [node.name for node in (*first, *(second if grouped else ()))]


def quantized(model: onnx.ModelProto, entry: Range, found: list[Range]) -> onnx.ModelProto:
    """The int8 form of a float32 model. `entry`: range of its input, `found`: those of its values."""
    graph, values = model.graph, _values(model.graph)
    graph.name += "-i8"
    if len(found) != len(values):
        raise ValueError(f"{graph.name}: ranges of {len(found)} values received, of {len(values)} expected")
    tensors = {"x": entry}
    tensors |= {node.output[0]: range_ for value, range_ in zip(values, found, strict=True) for node in value}
    data = {tensor: (np.float32(low), np.float32(high)) for tensor, (low, high) in tensors.items()}
    quantizer = QDQQuantizer(
        model, per_channel=True, reduce_range=False, weight_qType=QuantType.QInt8, activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data), nodes_to_quantize=[],
        nodes_to_exclude=_kept(graph), op_types_to_quantize=OPERATIONS, extra_options={},
    )  # fmt: skip
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result = quantizer.model.model
    assert isinstance(result, onnx.ModelProto)
    onnx.checker.check_model(result)
    return result
