"""Sessions of a network, as device, server and profiler open them on the CPU. The default engine is ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import onnxruntime

ERRORS_ONLY = 3  # of ONNX Runtime's levels of logging
ENCODED = 2  # outputs of an encoder: values and attention score


class Session(Protocol):
    """A loaded model of any engine: a session of ONNX Runtime, or an `NcnnSession`."""

    def run(self, output_names: None, input_feed: Mapping[str, Any]) -> list[Any]:
        """All outputs for the inputs by name."""


class SessionChain:
    """Sessions run one after the other as one model. Each takes the first output of the one before as `x`.

    A last session of two outputs is the encoder of a cut. The model's outputs are then the encoder's input, which is
    the cut's feature, and the encoder's own.
    """

    def __init__(self, parts: Sequence[Session]) -> None:
        self._parts = tuple(parts)

    def run(self, output_names: None, input_feed: Mapping[str, Any]) -> list[Any]:  # noqa: ARG002
        """All outputs for the input `x`."""
        outputs: list[Any] = [input_feed["x"]]
        for part in self._parts:
            x, outputs = outputs[0], list(part.run(None, {"x": outputs[0]}))
        return [x, *outputs] if len(outputs) == ENCODED else outputs

    def get_inputs(self) -> Any:
        """The inputs of the first session, as ONNX Runtime describes them."""
        return self._parts[0].get_inputs()  # type: ignore[attr-defined]


def session(
    model: bytes, threads: int = 1, arena: bool = True, sizes: Mapping[str, int] | None = None
) -> onnxruntime.InferenceSession:
    """Open a serialized model on so many threads.

    Args:
        model: an ONNX model as bytes.
        threads: threads of one run. Operators run one after another.
        arena: True where the session keeps the memory of its largest run. A small device with many sessions cannot.
        sizes: lengths of axes that the model leaves open, by name. Whatever follows from them is then computed once.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = ERRORS_ONLY
    options.enable_cpu_mem_arena = arena
    for axis, length in (sizes or {}).items():
        options.add_free_dimension_override_by_name(axis, length)
    opened = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    opened._model_bytes = b""  # kept in case that it is opened again with other providers: as large as the weights
    return opened
