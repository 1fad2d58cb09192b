"""Another net on the server, which answers the pictures of image offload: a bigger one than the device's, mostly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.prepare.source.preprocessing import PrepareError
from tidesplit.profiling.cuts.operations import TraceFailedError, trace


class ServerNet(nn.Module):
    """A net that takes the pictures of another one. `macs`: its multiply-accumulates for one picture.

    Args:
        net: takes pictures `[B, 3, own_px, own_px]` in [-1, 1].
        own_px: side of its pictures. Those that arrive are scaled to it, bilinear.
        px: side of the pictures that arrive.
    """

    def __init__(self, net: nn.Module, own_px: int, px: int) -> None:
        super().__init__()
        self.net, self.own_px, self.px = net, own_px, px
        try:
            self.macs = float(sum(trace(self, torch.zeros(1, 3, px, px)).macs.values()))
        except TraceFailedError as error:
            raise PrepareError(f"--server-net: {str(error).partition(': ')[2]}") from error

    def forward(self, picture: Tensor) -> Tensor:
        """Picture `[B, 3, px, px]` in [-1, 1] to logits `[B, classes]`."""
        if self.own_px != self.px:
            picture = F.interpolate(picture, (self.own_px, self.own_px), mode="bilinear", align_corners=False)
        logits: Tensor = self.net(picture)
        return logits
