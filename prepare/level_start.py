"""The quantizer of a linear code, in closed form: few bits where an error matters little.

The values of a linear code (`linear_start`) differ in importance by a factor of a hundred and more. The entropy stage
makes a channel cheap whose codes are nearly always the same. So each channel gets the levels with the least sum of its
error and the price of its bits. At one price for all channels that is the best share-out of the bytes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tidesplit.compression.codec.knobs import BITS
from tidesplit.compression.net.bottleneck import Bottleneck

PRICES = {1: 8e-5, 2: 6e-5, 4: 4.4e-5, 8: 1.8e-5}
"""Error that one more bit of a payload must save, by bit width. An error as large as the feature itself is one."""
STEPS = torch.logspace(-1.6, 0.6, 23)
"""Distances of levels that are tried, in standard deviations."""
SILENT = 100.0
"""Step of a channel whose value is always its mean."""


def entropies(codes: Tensor, count: int) -> Tensor:
    """Bits `[k]` that codes `[n, k]` below `count` take in the mean, channel by channel."""
    channels = codes.shape[1]
    cells = codes.long() + count * torch.arange(channels)
    shares = torch.bincount(cells.flatten(), minlength=count * channels).view(channels, count) / len(codes)
    bits: Tensor = -torch.special.xlogy(shares, shares).sum(1) / math.log(2.0)
    return bits


def levels(values: Tensor, importance: Tensor, bits: int, price: float) -> tuple[Tensor, Tensor]:
    """Lowest level and step `[k]` of each channel.

    Args:
        values: `[n, k]` of mean zero.
        importance: `[k]`, weight of a squared error.
        bits: width of a code.
        price: of a bit, in the unit of the weighted error.
    """
    count = 2**bits
    low, step = torch.zeros(values.shape[1]), torch.full((values.shape[1],), SILENT)
    least = importance * values.square().mean(0)
    for tried in STEPS.tolist():
        for lowest in (-tried * (count // 2 - 0.5), -tried * (count // 2 - (count > 2))):
            codes = ((values - lowest) / tried).round().clamp(0, count - 1)
            error = (codes * tried + lowest - values).square().mean(0)
            cost = importance * error + price * entropies(codes, count)
            better = cost < least
            least = torch.where(better, cost, least)
            low[better], step[better] = lowest, tried
    return low, step


@torch.no_grad()
def put_levels(bottleneck: Bottleneck, values: Tensor, importance: Tensor) -> None:
    """Give the quantizer the best levels for values `[n, k]`, at every bit width."""
    cut, kept, quantizer = bottleneck.cut, values.shape[1], bottleneck.quantizer
    for row, bits in enumerate(BITS):
        low, step = levels(values, importance, bits, PRICES[bits] * cut.height * cut.width)
        quantizer.low[row, :kept] = low
        quantizer.log_step[row, :kept] = step.log()
