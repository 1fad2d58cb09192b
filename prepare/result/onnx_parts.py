"""Parts of a net as ONNX models by torch's own exporter, each compared with torch when it is made.

Their first axis, the pictures of a batch, is free where a batch gives the same answers as its pictures one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from torch import Tensor, nn

from tidesplit.compression.net.onnx_export import FREE, DiffersError, compare, error, exported
from tidesplit.compression.session import session
from tidesplit.prepare.source.preprocessing import PrepareError

Floats = npt.NDArray[np.float32]
TOLERANCE = 2e-3
"""Share of the largest output. Other orders of float32 sums, and folded BatchNorms, differ by about 1e-5."""


def onnx_part(module: nn.Module, example: Tensor, name: str, outputs: Sequence[str]) -> bytes:
    """The ONNX model of a module, with the input `x` `[frames, ...]`, or `[1, ...]` where it takes no batches.

    Args:
        module: to write.
        example: `[1, ...]`. The model is compared with the module on it.
        name: of the model, for errors.
        outputs: their names.

    Raises:
        PrepareError: ONNX cannot express the module, or its model answers differently.
    """
    try:
        model = exported(module, example, name, outputs, free=True)
    except Exception as failed:  # the exporter raises many types
        reason = " ".join(str(failed).split())[:200]
        raise PrepareError(f"{name}: torch.onnx.export cannot write this part of the net ({reason})") from failed
    try:
        compare(module, example, model, TOLERANCE)
    except DiffersError as differs:
        raise PrepareError(str(differs)) from differs
    data: bytes = model.SerializeToString()
    return data if _takes_batches(data, example.numpy()) else single(data)


def _takes_batches(data: bytes, example: Floats) -> bool:
    """True where a batch of two different inputs has the outputs of each."""
    run, other = session(data), np.ascontiguousarray(example[..., ::-1])
    try:
        batch = run.run(None, {"x": np.concatenate([example, other])})
    except Exception:  # ONNX Runtime's errors have no public class
        return False
    apart = [run.run(None, {"x": x}) for x in (example, other)]
    pairs = [(batch[i][row : row + 1], found[i]) for row, found in enumerate(apart) for i in range(len(batch))]
    return all(ours.shape == theirs.shape and error(ours, theirs) < TOLERANCE for ours, theirs in pairs)


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
