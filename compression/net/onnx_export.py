"""Modules as ONNX models by torch's own exporter, each compared with torch when it is made.

The models are of opset 17, which ONNX Runtime on a Cortex-A72 takes. Their batch size is 1 or free.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from tidesplit.compression.session import session

OPSET = 17
IR_VERSION = 8  # of opset 17, which every ONNX Runtime of the device reads
FREE = "frames"  # name of the first axis, where it is free
TOLERANCE = 1e-3  # share of the largest output. Other orders of float32 sums, and folded BatchNorms, differ by 1e-5.


class DiffersError(ValueError):
    """A model answers differently from the module that it was made of."""


def to_onnx(
    module: nn.Module, example: Tensor, name: str, outputs: Sequence[str], free: bool = False
) -> onnx.ModelProto:
    """The ONNX model of a module, with the input `x` of the example's shape, or for any number of frames.

    Raises:
        DiffersError: its outputs differ from torch's.
    """
    model = exported(module, example, name, outputs, free)
    _tidy(model.graph)
    onnx.checker.check_model(model)
    compare(module, example, model, TOLERANCE)
    return model


def exported(
    module: nn.Module, example: Tensor, name: str, outputs: Sequence[str], free: bool = False
) -> onnx.ModelProto:
    """The model as torch's exporter writes it."""
    module.training = False  # else the exporter would leave its parts in training mode
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        path = Path(folder) / "model.onnx"
        warnings.simplefilter("ignore")  # the exporter is marked as old; the new one needs further packages
        torch.onnx.export(
            module, (example.clone(),), path, dynamo=False, opset_version=OPSET, input_names=["x"],
            output_names=list(outputs), dynamic_axes={axis: {0: FREE} for axis in ("x", *outputs)} if free else None,
        )  # fmt: skip
        model = onnx.load(path)
    model.graph.name, model.ir_version, model.producer_name = name, IR_VERSION, "tidesplit"
    return model


def compare(module: nn.Module, x: Tensor, model: onnx.ModelProto, tolerance: float) -> None:
    """Run a model and its module on the same input.

    Raises:
        DiffersError: an output differs by more than this share of its largest value.
    """
    with torch.no_grad():
        made = module(x.clone())
    expected = [made] if isinstance(made, Tensor) else list(made)
    found = session(model.SerializeToString()).run(None, {"x": x.numpy()})
    for output, ours, theirs in zip(model.graph.output, found, expected, strict=True):
        off = error(ours, theirs.numpy())
        if not off < tolerance:
            where = f"ONNX model {model.graph.name}, output {output.name}"
            raise DiffersError(f"{where}: differs from torch by {off:.2g} of its range")


def error(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Largest difference, as a share of the largest value."""
    return float(np.abs(ours - theirs).max() / (np.abs(theirs).max() + 1e-9))


def _tidy(graph: onnx.GraphProto) -> None:
    """Leave the operators that int8 and ncnn know: constants computed, padding in the convolution after it."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes, pads = list[onnx.NodeProto](), dict[str, onnx.NodeProto]()
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif all(name in constants or not name for name in node.input):
            given = {name: constants[name] for name in node.input if name}
            constants |= dict(zip(node.output, ReferenceEvaluator(node).run(None, given), strict=True))
        elif node.op_type == "ReduceMean":
            pooled = f"{node.output[0]}_pool"
            nodes.append(helper.make_node("GlobalAveragePool", node.input, [pooled], pooled))
            nodes.append(helper.make_node("Flatten", [pooled], node.output, node.name, axis=1))
        else:
            if node.op_type == "Pad":
                pads[node.output[0]] = node
            elif node.op_type == "Conv" and node.input[0] in pads:
                _take_padding(node, pads[node.input[0]], constants)
            nodes.append(node)
    used = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    kept = [node for node in nodes if node.output[0] in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items() if name in used)


def _take_padding(convolution: onnx.NodeProto, pad: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]) -> None:
    before, after = np.split(constants[pad.input[1]], 2)
    own = next(attribute for attribute in convolution.attribute if attribute.name == "pads")
    own.ints[:] = np.add(own.ints, np.concatenate([before[2:], after[2:]])).tolist()
    convolution.input[0] = pad.input[0]


logging.getLogger("torch.onnx").setLevel(logging.ERROR)
