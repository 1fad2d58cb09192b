"""ONNX Runtime sessions on the CPU, as device, server and profiler open them."""

from __future__ import annotations

import onnxruntime

ERRORS_ONLY = 3  # of ONNX Runtime's levels of logging


def session(model: bytes, threads: int = 1, arena: bool = True) -> onnxruntime.InferenceSession:
    """Open a serialized model on so many threads.

    Args:
        model: an ONNX model as bytes.
        threads: threads of one run. Operators run one after another.
        arena: True where the session keeps the memory of its largest run. A small device with many sessions cannot.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = ERRORS_ONLY
    options.enable_cpu_mem_arena = arena
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
