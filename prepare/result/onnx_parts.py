"""Parts of a net as ONNX models by torch's own exporter, each compared with torch when it is made."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tidesplit.compression.session import session
from tidesplit.prepare.source.preprocessing import PrepareError

OPSET = 17
IR_VERSION = 8  # of opset 17, which every ONNX Runtime of the device reads
TOLERANCE = 2e-3
"""Share of the largest output. Other orders of float32 sums, and folded BatchNorms, differ by about 1e-5."""


def to_onnx(module: nn.Module, example: Tensor, name: str, outputs: Sequence[str]) -> bytes:
    """The ONNX model of a module, with the input `x` of the example's shape.

    Raises:
        PrepareError: ONNX cannot express the module, or its model answers differently.
    """
    module.training = False  # else the exporter would leave its parts in training mode
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter is marked as old; the new one needs further packages
            path = Path(folder) / "part.onnx"
            torch.onnx.export(
                module, (example.clone(),), path, dynamo=False, opset_version=OPSET, input_names=["x"],
                output_names=list(outputs),
            )  # fmt: skip
            model = onnx.load(path)
    except Exception as error:  # the exporter raises many types
        reason = " ".join(str(error).split())[:200]
        raise PrepareError(f"{name}: torch.onnx.export cannot write this part of the net ({reason})") from error
    model.graph.name, model.ir_version = name, IR_VERSION
    data: bytes = model.SerializeToString()
    _compare(module, example, name, data, outputs)
    return data


def _compare(module: nn.Module, example: Tensor, name: str, data: bytes, outputs: Sequence[str]) -> None:
    with torch.no_grad():
        found = module(example.clone())
    expected = [found] if isinstance(found, Tensor) else list(found)
    for title, ours, theirs in zip(outputs, session(data).run(None, {"x": example.numpy()}), expected, strict=True):
        error = float(np.abs(ours - theirs.numpy()).max() / (np.abs(theirs.numpy()).max() + 1e-9))
        if not error < TOLERANCE:
            raise PrepareError(f"ONNX model {name}, output {title}: differs from torch by {error:.2g} of its range")


logging.getLogger("torch.onnx").setLevel(logging.ERROR)
