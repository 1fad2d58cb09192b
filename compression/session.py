"""Sessions of a network, as device, server and profiler open them on the CPU. The default engine is ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import onnxruntime

ERRORS_ONLY = 3  # of ONNX Runtime's levels of logging


class Session(Protocol):
    """A loaded model of any engine: a session of ONNX Runtime, or an `NcnnSession`."""

    def run(self, output_names: None, input_feed: Mapping[str, Any]) -> list[Any]:
        """All outputs for the inputs by name."""


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
