"""A `Graph` as an ONNX model of opset 17, which ONNX Runtime on a Cortex-A72 takes. Its batch size is 1 or free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from tidesplit.models.graph import Graph, Node

OPSET = 17
FREE = "frames"  # name of the first axis, where it is free


def _tensor(name: str, value: Tensor) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(value.detach().float().cpu().numpy()), name)


def _node(node: Node, rename: dict[str, str]) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    inputs = [rename.get(name, name) for name in node.inputs]
    output = rename.get(node.output, node.output)
    if node.kind == "add":
        return [helper.make_node("Add", inputs, [output])], []
    if node.kind == "mean":
        pooled = f"{output}_pool"
        pool = helper.make_node("GlobalAveragePool", inputs, [pooled])
        return [pool, helper.make_node("Flatten", [pooled], [output], axis=1)], []
    if node.kind == "shuffle":
        return [helper.make_node("DepthToSpace", inputs, [output], blocksize=node.factor, mode="CRD")], []
    assert node.weight is not None
    assert node.bias is not None
    weights = [_tensor(f"{output}_w", node.weight), _tensor(f"{output}_b", node.bias)]
    names = [inputs[0], weights[0].name, weights[1].name]
    if node.kind == "linear":
        return [helper.make_node("Gemm", names, [output], transB=1)], weights
    kernel = node.weight.shape[2]
    raw = f"{output}_raw" if node.relu6 else output
    convolution = helper.make_node(
        "Conv", names, [raw], kernel_shape=[kernel, kernel], strides=[node.stride] * 2, pads=list(node.pads),
        group=node.groups,
    )  # fmt: skip
    if not node.relu6:
        return [convolution], weights
    return [convolution, helper.make_node("Clip", [raw, "zero", "six"], [output])], weights


def to_onnx(
    graph: Graph, name: str, outputs: Sequence[str], metadata: dict[str, str] | None = None, batch: int | str = 1
) -> onnx.ModelProto:
    """ONNX model with the input `x` `[batch, *input_shape]` and the graph's outputs under the names given.

    `batch` may be `FREE`. Every operator here treats the pictures of a batch one by one.
    """
    rename = dict(zip(graph.outputs, outputs, strict=True))
    nodes: list[onnx.NodeProto] = []
    weights = [
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("six", TensorProto.FLOAT, [], [6.0]),
    ]
    for node in graph.nodes:
        made, constants = _node(node, rename)
        nodes += made
        weights += constants
    model = helper.make_model(
        helper.make_graph(
            nodes, name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *graph.input_shape])],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="tidesplit",
    )  # fmt: skip
    helper.set_model_props(model, metadata or {})
    return onnx.shape_inference.infer_shapes(model)
