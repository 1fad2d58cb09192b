"""A net of the user with its pre-processing as its first layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.prepare.source.preprocessing import Preprocess


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
