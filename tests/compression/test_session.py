"""Sessions share the memory of their runs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tidesplit.benchmarks.processes import memory_mib
from tidesplit.compression.session import session

MIB, SESSIONS = 16, 6


def summing(mib: int) -> bytes:
    """A model whose run needs so much memory: it spreads `x` [1] over a vector, and sums the squares."""
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["long"]),
        helper.make_node("Mul", ["long", "long"], ["squares"]),
        helper.make_node("ReduceSum", ["squares"], ["y"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "summing",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [])],
        [helper.make_tensor("shape", onnx.TensorProto.INT64, [1], [mib << 18])],
    )  # fmt: skip
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    ).SerializeToString()
    return model


def test_sessions_of_a_process_take_the_memory_of_their_runs_from_one_arena() -> None:
    opened = [session(summing(MIB)) for _ in range(SESSIONS)]
    before_mib = memory_mib("self")
    sums = [one.run(None, {"x": np.full(1, 2.0, np.float32)})[0] for one in opened]
    grown_mib = memory_mib("self") - before_mib
    assert sums == [4.0 * (MIB << 18)] * SESSIONS
    assert grown_mib < 5 * MIB  # arenas of their own would take two vectors each, 192 MiB
