"""A uniform quantizer with learned ranges, trained straight through.

Each channel has a lowest level and a step for each bit width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tidesplit.compression.codec.knobs import BITS

# Outermost levels for a unit normal, near the optimum of a uniform quantizer (Max, 1960)
REACH = {1: 0.8, 2: 1.5, 4: 2.6, 8: 3.6}


class Quantizer(nn.Module):
    """Quantizer of so many channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reach = torch.tensor([REACH[b] for b in BITS])
        steps = torch.tensor([2 * REACH[b] / (2**b - 1) for b in BITS])
        self.low = nn.Parameter((-reach)[:, None].repeat(1, channels))
        self.log_step = nn.Parameter(steps.log()[:, None].repeat(1, channels))
        self.register_buffer("top", torch.tensor([2.0**b - 1 for b in BITS]), persistent=False)
        self.top: Tensor

    def step(self) -> Tensor:
        """Distances of neighbouring levels, `[len(BITS), channels]`.

        Always of the whole table, because a vectorised exponential of a slice may differ in the last place.
        """
        return self.log_step.exp()

    def forward(self, y: Tensor, rows: Tensor) -> Tensor:
        """Quantize `y` `[B, k, h, w]` float32. `rows` `[B]`: indices into BITS, one bit width for each picture."""
        k = y.shape[1]
        low = self.low[rows, :k][:, :, None, None]
        step = self.step()[rows, :k][:, :, None, None]
        top = self.top[rows].view(-1, 1, 1, 1)
        # min and max rather than clamp, so that the gradient of a clipped value goes to the end of the range
        clipped = torch.minimum(torch.maximum(y, low), low + step * top)
        soft = (clipped - low) / step
        codes = torch.minimum(torch.round((y - low) / step).clamp(min=0.0), top).detach()
        return (codes + (soft - soft.detach())) * step + low
