"""Sessions of a network, as device, server and profiler open them on the CPU. The default engine is ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
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


def session(model: bytes, threads: int = 1, sizes: Mapping[str, int] | None = None) -> onnxruntime.InferenceSession:
    """Open a serialized model on so many threads. Its runs take their memory from the arena of the process.

    Args:
        model: an ONNX model as bytes.
        threads: threads of one run. Operators run one after another.
        sizes: lengths of axes that the model leaves open, by name. Whatever follows from them is then computed once.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = ERRORS_ONLY
    _make_arena()
    options.enable_mem_pattern = False  # a pattern is one block for a whole run, which fits into no hole of the arena
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # weights stay out of it
    for axis, length in (sizes or {}).items():
        options.add_free_dimension_override_by_name(axis, length)
    opened = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    opened._model_bytes = b""  # kept in case that it is opened again with other providers: as large as the weights
    return opened


@cache
def _make_arena() -> None:
    """One arena of ONNX Runtime for all sessions of the process: it grows to the largest need, and then stays.

    With an arena for each session, each keeps the memory of its largest run. Without any, freed memory of runs leaves
    holes in the heap, so that a device's process swings by 15 MiB, and page faults make its runs a quarter longer.
    """
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({}))
