"""A net of the user with its pre-processing as its first layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.prepare.source.net_source import load_net
from tidesplit.prepare.source.onnx_net import load_onnx
from tidesplit.prepare.source.preprocessing import PrepareError, Preprocess
from tidesplit.runtime.wire.output_tensors import OUTPUT

CLASSES, TENSOR = "classes", "tensor"
Shapes = dict[str, tuple[int, ...]]


class PictureNet(nn.Module):
    """A net that takes pictures `[B, 3, px, px]` in [-1, 1], whatever it takes itself. Gives its answer as a vector.

    Where its task is `classes`, of several outputs the first one counts, or the one called `logits`. Where it is
    `tensor`, all outputs are joined.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, net: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.net, self.layout, self.task = net, preprocess.layout, CLASSES
        std, mean = torch.tensor(preprocess.std), torch.tensor(preprocess.mean)
        weight, bias = torch.diag(0.5 / std), (0.5 - mean) / std
        if preprocess.colours == "BGR":
            weight, bias = weight.flip(0), bias.flip(0)
        self.plain = bool(torch.equal(weight, torch.eye(3)) and not bias.any())
        self.register_buffer("weight", weight[:, :, None, None].contiguous())
        self.register_buffer("bias", bias.contiguous())

    def forward(self, picture: Tensor) -> Tensor:
        """Logits `[B, classes]`, or the values `[B, N]` of all outputs."""
        found = self.run(picture)
        if self.task == CLASSES:
            return _logits(found)
        return torch.cat([tensor.flatten(1) for tensor in outputs(found).values()], 1)

    def run(self, picture: Tensor) -> Any:
        """What the net itself gives."""
        x = picture if self.plain else F.conv2d(picture, self.weight, self.bias)
        return self.net(x.permute(0, 2, 3, 1) if self.layout == "NHWC" else x)


def outputs(found: Any, name: str = "") -> dict[str, Tensor]:
    """Tensors by name. Those of a tuple are counted, those of a dictionary have its keys.

    Raises:
        PrepareError: there is something else, or two tensors have one name.
    """
    if isinstance(found, Tensor):
        return {name or "output": found}
    if isinstance(found, Mapping):
        parts = [(f"{name}.{key}" if name else str(key), part) for key, part in found.items()]
    elif isinstance(found, Sequence) and not isinstance(found, str):
        parts = [(f"{name or 'output'}{i}", part) for i, part in enumerate(found)]
    else:
        raise PrepareError(f"{name or 'output'} of the net is of type {type(found).__name__}, tensors expected")
    every = [pair for where, part in parts for pair in outputs(part, where).items()]
    if len(made := dict(every)) < len(every):
        raise PrepareError(f"the net gives {len(every)} outputs of {len(made)} names, a name for each expected")
    return made


def _logits(found: Any) -> Tensor:
    """The first tensor, or the one called `logits`."""
    if isinstance(found, Mapping):
        found = found[OUTPUT] if OUTPUT in found else next(iter(found.values()))
    if isinstance(found, tuple | list):
        found = found[0]
    if not isinstance(found, Tensor):
        raise PrepareError(f"the net gives {type(found).__name__}, a tensor expected")
    return found


def load_picture_net(name: str, weights: Path | None, preprocess: Preprocess, task: str | None = None) -> PictureNet:
    """The net of an ONNX file, or one that a factory makes, in eval mode. Its task is chosen by its answer by default.

    Raises:
        PrepareError: there is no such net, the weights do not fit, or it has no answer of this task.
    """
    if not name.endswith(".onnx"):
        net = load_net(name, weights)
    elif weights is not None:
        raise PrepareError(f"{weights} received with {name}: an ONNX file has its own weights")
    else:
        net = load_onnx(Path(name), preprocess.size, preprocess.layout, probabilities=task == TENSOR)
    made = PictureNet(net, preprocess).eval()
    made.task = task or _usual_task(made, preprocess.size)
    return made


def _usual_task(net: PictureNet, px: int) -> str:
    """Classes where the answer is a vector of its own, or called `logits`. Other outputs would be lost."""
    found = _answer(net, px)
    named = isinstance(found, Mapping) and OUTPUT in found
    if isinstance(found, Mapping | tuple | list) and len(found) > 1 and not named:
        return TENSOR
    logits = _logits(found)
    return CLASSES if logits.dim() == 2 and len(logits) == 1 else TENSOR


def _answer(net: PictureNet, px: int) -> Any:
    """What the net gives for one picture.

    Raises:
        PrepareError: it cannot take pictures of this size.
    """
    with torch.no_grad():
        try:
            return net.run(torch.zeros(1, 3, px, px))
        except Exception as error:  # the net is the user's own code
            reason = " ".join(str(error).split())[:200]
            raise PrepareError(f"the net cannot take pictures of {px} x {px} pixels: {reason}") from error


def shapes_of(net: PictureNet, px: int) -> Shapes:
    """Shapes of the net's outputs by name; those of a classifier are `logits` [1, classes].

    Raises:
        PrepareError: it has no answer of its task.
    """
    found = _answer(net, px)
    if net.task == CLASSES:
        shape = tuple(_logits(found).shape)
        if len(shape) != 2:
            raise PrepareError(
                f"the net gives an output of shape {list(shape)}, logits [1, classes] expected; "
                "--task tensor takes any output"
            )
        return {OUTPUT: shape}
    every = outputs(found)
    if others := [f"{name} of {tensor.dtype}" for name, tensor in every.items() if tensor.dtype != torch.float32]:
        raise PrepareError(f"the net gives {', '.join(others).replace('torch.', '')}, outputs of float32 expected")
    return {name: tuple(tensor.shape) for name, tensor in every.items()}
