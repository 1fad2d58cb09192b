"""ncnn sessions on the CPU. They are called as those of ONNX Runtime are. ncnn is the extra `tidesplit[ncnn]`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class NcnnSession:
    """A model of `models/ncnn_model.py`, loaded for runs on so many threads.

    Weights and sums are float32, so that a head's answers differ from ONNX Runtime's by rounding only.

    Raises:
        ImportError: ncnn is not installed.
        ValueError: ncnn cannot read the files.
    """

    def __init__(self, layers: Path, weights: Path, threads: int = 1) -> None:
        # Read when ncnn is loaded. By default its threads spin while they wait, and a busy machine is ten times slower.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import ncnn

        self._mat, self._net = ncnn.Mat, ncnn.Net()
        options = self._net.opt
        options.num_threads = threads
        options.blob_allocator, options.workspace_allocator = _pools()
        options.use_vulkan_compute = options.use_bf16_storage = False
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        if self._net.load_param(str(layers)) or self._net.load_model(str(weights)):
            raise ValueError(f"ncnn cannot read {layers} and {weights}")
        self._input = self._net.input_names()[0]
        self._outputs = self._net.output_names()

    def run(self, output_names: None, input_feed: Mapping[str, Floats]) -> list[Floats]:  # noqa: ARG002
        """All outputs, for the one input of batch size 1."""
        (x,) = input_feed.values()
        extractor = self._net.create_extractor()
        extractor.input(self._input, self._mat(np.ascontiguousarray(x[0], np.float32)))
        outputs = []
        for name in self._outputs:
            failed, value = extractor.extract(name)
            if failed:
                raise ValueError(f"ncnn cannot compute {name}")
            outputs.append(np.array(value)[None])
        return outputs


@cache
def _pools() -> tuple[Any, Any]:
    """Memory that all sessions share. By default each session would keep as much as its largest run took."""
    import ncnn

    return ncnn.PoolAllocator(), ncnn.PoolAllocator()
