"""A net of the user with its pre-processing as its first layer."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.prepare.source.net_source import load_net
from tidesplit.prepare.source.onnx_net import load_onnx
from tidesplit.prepare.source.preprocessing import PrepareError, Preprocess


class PictureNet(nn.Module):
    """A net that takes pictures `[B, 3, px, px]` in [-1, 1], whatever it takes itself. Gives its logits only.

    Of several outputs the first one counts, or the one called `logits`.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, net: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.net, self.layout = net, preprocess.layout
        std, mean = torch.tensor(preprocess.std), torch.tensor(preprocess.mean)
        weight, bias = torch.diag(0.5 / std), (0.5 - mean) / std
        if preprocess.colours == "BGR":
            weight, bias = weight.flip(0), bias.flip(0)
        self.plain = bool(torch.equal(weight, torch.eye(3)) and not bias.any())
        self.register_buffer("weight", weight[:, :, None, None].contiguous())
        self.register_buffer("bias", bias.contiguous())

    def forward(self, picture: Tensor) -> Tensor:
        """Logits `[B, classes]`."""
        x = picture if self.plain else F.conv2d(picture, self.weight, self.bias)
        found = self.net(x.permute(0, 2, 3, 1) if self.layout == "NHWC" else x)
        if isinstance(found, dict):
            found = found["logits"] if "logits" in found else next(iter(found.values()))
        if isinstance(found, tuple | list):
            found = found[0]
        assert isinstance(found, Tensor)
        return found


def load_picture_net(name: str, weights: Path | None, preprocess: Preprocess) -> PictureNet:
    """The net of an ONNX file, or one that a factory makes, in eval mode.

    Raises:
        PrepareError: there is no such net, or the weights do not fit.
    """
    if not name.endswith(".onnx"):
        net = load_net(name, weights)
    elif weights is not None:
        raise PrepareError(f"{weights} received with {name}: an ONNX file has its own weights")
    else:
        net = load_onnx(Path(name), preprocess.size, preprocess.layout)
    return PictureNet(net, preprocess).eval()


def outputs_of(net: PictureNet, px: int) -> int:
    """Number of the net's classes.

    Raises:
        PrepareError: it cannot take pictures of this size, or gives no logits.
    """
    with torch.no_grad():
        try:
            logits = net(torch.zeros(1, 3, px, px))
        except Exception as error:  # the net is the user's own code
            reason = " ".join(str(error).split())[:200]
            raise PrepareError(f"the net cannot take pictures of {px} x {px} pixels: {reason}") from error
    if logits.dim() != 2:
        raise PrepareError(f"the net gives an output of shape {list(logits.shape)}, logits [1, classes] expected")
    return int(logits.shape[1])
