"""Parts of a net as ONNX models by torch's own exporter, each compared with torch when it is made.

Their first axis, the pictures of a batch, is free where a batch gives the same answers as its pictures one by one.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from tidesplit.compression.session import session
from tidesplit.prepare.source.preprocessing import PrepareError

Floats = npt.NDArray[np.float32]
OPSET = 17
IR_VERSION = 8  # of opset 17, which every ONNX Runtime of the device reads
FREE = "frames"  # name of the first axis, where it is free
TOLERANCE = 2e-3
"""Share of the largest output. Other orders of float32 sums, and folded BatchNorms, differ by about 1e-5."""


def to_onnx(module: nn.Module, example: Tensor, name: str, outputs: Sequence[str]) -> bytes:
    """The ONNX model of a module, with the input `x` `[frames, ...]`, or `[1, ...]` where it takes no batches.

    Args:
        module: to write.
        example: `[1, ...]`. The model is compared with the module on it.
        name: of the model, for errors.
        outputs: their names.

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
                output_names=list(outputs), dynamic_axes={axis: {0: FREE} for axis in ("x", *outputs)},
            )  # fmt: skip
            model = onnx.load(path)
    except Exception as error:  # the exporter raises many types
        reason = " ".join(str(error).split())[:200]
        raise PrepareError(f"{name}: torch.onnx.export cannot write this part of the net ({reason})") from error
    model.graph.name, model.ir_version = name, IR_VERSION
    data: bytes = model.SerializeToString()
    with torch.no_grad():
        found = module(example.clone())
    expected = [found] if isinstance(found, Tensor) else list(found)
    for title, ours, theirs in zip(outputs, session(data).run(None, {"x": example.numpy()}), expected, strict=True):
        off = _error(ours, theirs.numpy())
        if not off < TOLERANCE:
            raise PrepareError(f"ONNX model {name}, output {title}: differs from torch by {off:.2g} of its range")
    return data if _takes_batches(data, example.numpy()) else single(data)


def _error(ours: Floats, theirs: Floats) -> float:
    return float(np.abs(ours - theirs).max() / (np.abs(theirs).max() + 1e-9))


def _takes_batches(data: bytes, example: Floats) -> bool:
    """True where a batch of two different inputs has the outputs of each."""
    run, other = session(data), np.ascontiguousarray(example[..., ::-1])
    try:
        batch = run.run(None, {"x": np.concatenate([example, other])})
    except Exception:  # ONNX Runtime's errors have no public class
        return False
    apart = [run.run(None, {"x": x}) for x in (example, other)]
    pairs = [(batch[i][row : row + 1], found[i]) for row, found in enumerate(apart) for i in range(len(batch))]
    return all(ours.shape == theirs.shape and _error(ours, theirs) < TOLERANCE for ours, theirs in pairs)


def single(data: bytes) -> bytes:
    """A model for one picture at a time."""
    model = onnx.load_from_string(data)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    found: bytes = model.SerializeToString()
    return found


def alike(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files, all for one picture at a time where one of them is: models are chains of them."""
    axes = [onnx.load_from_string(data).graph.input[0].type.tensor_type.shape.dim[0] for data in files.values()]
    free = all(axis.dim_param == FREE for axis in axes)
    return {name: data if free else single(data) for name, data in files.items()}


logging.getLogger("torch.onnx").setLevel(logging.ERROR)
