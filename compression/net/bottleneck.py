"""The learned bottleneck at a cut: encoder, attention over positions, quantizer, decoder.

Channels are ordered: at channel ratio r the first r * Kmax cross. So training over the ratios is nested dropout
(Rippel, Gelbart, Adams, 2014). The decoder takes all Kmax channels and all positions, with zeros for values that did
not cross. So one tail per partition serves every ratio, region and bit width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.compression.codec.knobs import RATIOS, REGIONS, CutSpec
from tidesplit.compression.net.quantizer import Quantizer
from tidesplit.models.depthwise import depthwise
from tidesplit.models.slim import Inner, Slim, WidthNorm, first, inner_channels, set_of_ratio, width_of

EPS = 1e-3


@dataclass(frozen=True)
class BottleneckSpec:
    """Layers of one bottleneck.

    Args:
        wire: channels that cross at full ratio, Kmax.
        stride: how many times coarser than the feature the grid of positions is.
        kernel: side of the encoder's kernel.
        inner: channels of a strided layer before the encoder; 0 for none.
        hidden: channels of the decoder.
    """

    wire: int
    stride: int
    kernel: int
    inner: int = 0
    hidden: int = 160


def keep_positions(score: Tensor, share: Tensor, region: float) -> Tensor:
    """Mask `[B, 1, h, w]` of the positions that cross, 0 or 1, with the gradient of the score's sigmoid.

    Args:
        score: `[B, 1, h, w]`.
        share: `[B]`, below 1 for pictures that send only `region` of their positions.
        region: region ratio of those pictures.
    """
    flat = score.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)  # of equals the first ones win, as in the codec
    best = order[:, : math.ceil(flat.shape[1] * region)]
    hard = torch.zeros_like(flat).scatter_(1, best, 1.0)
    soft = torch.sigmoid(flat)
    mask = hard + (soft - soft.detach())  # its value is exactly `hard`
    mask = torch.where(share[:, None] < 1.0, mask, torch.ones_like(mask))
    return mask.view_as(score)


class Bottleneck(Slim):
    """Bottleneck of one cut, from a feature `[B, C, H, W]` to values `[B, k, h, w]` and back."""

    def __init__(self, partition: int, feature: tuple[int, int, int], spec: BottleneckSpec) -> None:
        super().__init__()
        channels, height, width = feature
        self.spec, self.channels = spec, channels
        self.size = (height, width)
        self.cut = CutSpec(partition, spec.wire, -(-height // spec.stride), -(-width // spec.stride))
        ratios = [set_of_ratio(ratio) for ratio in RATIOS]
        inputs = spec.inner or channels
        if spec.inner:
            self.pre = nn.Parameter(torch.empty(spec.inner, channels, 3, 3))
            self.pre_norm = WidthNorm(spec.inner, ratios, slim=False, eps=EPS)
        self.encoder = nn.Parameter(torch.empty(spec.wire, inputs, spec.kernel, spec.kernel))
        self.encoder_norm = WidthNorm(spec.wire, ratios, slim=True, eps=EPS)
        self.score = nn.Parameter(torch.empty(1, spec.wire, 1, 1))
        self.quantizer = Quantizer(spec.wire)
        self.mix = nn.Parameter(torch.empty(spec.hidden, spec.wire, 3, 3))
        self.mix_norm = nn.BatchNorm2d(spec.hidden, EPS)
        self.spread = nn.Parameter(torch.empty(spec.hidden, 1, 3, 3))
        self.spread_norm = nn.BatchNorm2d(spec.hidden, EPS)
        self.expand = nn.Parameter(torch.empty(channels * spec.stride**2, spec.hidden, 1, 1))
        self.expand_norm = nn.BatchNorm2d(channels, EPS)
        self.shift: Tensor | None = None  # of `expand`, where the norm after it is folded in
        for parameter in (self.encoder, self.mix, self.spread, self.expand, *([self.pre] if spec.inner else [])):
            nn.init.kaiming_normal_(parameter, mode="fan_in")
        nn.init.normal_(self.score, std=0.1)

    @property
    def outer_stride(self) -> int:
        """Stride of the encoder's last convolution. A layer before it takes a factor of two."""
        return self.spec.stride // 2 if self.spec.inner else self.spec.stride

    def inner_parts(self) -> dict[str, Inner]:
        """The channels that cross."""
        return {"": Inner(("encoder",), ("score",))}

    def settle(self) -> None:
        """Fold the last norm into the convolution before the shuffle, which no exporter does."""
        norm, repeat = self.expand_norm, self.spec.stride**2
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.shift = (norm.bias - norm.running_mean * scale).repeat_interleave(repeat)
        weight = self.expand * scale.repeat_interleave(repeat).view(-1, 1, 1, 1)
        self.expand = nn.Parameter(weight, requires_grad=False)

    def encode(self, feature: Tensor, width_set: str) -> tuple[Tensor, Tensor]:
        """Values `[B, k, h, w]` and attention score `[B, 1, h, w]`, both float32."""
        y = self._values(feature, width_set)
        y = y if y.dtype == torch.float32 else y.float()
        with torch.autocast(y.device.type, enabled=False):
            score = F.conv2d(y, first(self.score, 1, y.shape[1]))
        return y, score

    def _values(self, feature: Tensor, width_set: str) -> Tensor:
        wire = inner_channels(self.spec.wire, width_of(width_set))
        y = feature
        if self.spec.inner:
            y = F.relu6(self.pre_norm(F.conv2d(y, self.pre, stride=2, padding=1), width_set))
        y = F.conv2d(y, first(self.encoder, wire), stride=self.outer_stride, padding=self.spec.kernel // 2)
        result = self.encoder_norm(y, width_set)
        assert isinstance(result, Tensor)
        return result

    def decode(self, values: Tensor) -> Tensor:
        """Rebuild the feature `[B, C, H, W]` from values `[B, Kmax, h, w]`, zero where nothing was sent."""
        y = self._unfolded(F.conv2d(self._hidden(values), self.expand, self.shift))
        if self.shift is not None:
            return y
        result = self.expand_norm(y)
        assert isinstance(result, Tensor)
        return result

    def _hidden(self, values: Tensor) -> Tensor:
        y = F.relu6(self.mix_norm(F.conv2d(values, self.mix, padding=1)))
        return F.relu6(self.spread_norm(depthwise(y, self.spread, 1)))

    def _unfolded(self, y: Tensor) -> Tensor:
        """Patches `[B, C * stride**2, h, w]` as a feature `[B, C, H, W]`."""
        if self.spec.stride > 1:
            y = F.pixel_shuffle(y, self.spec.stride)
            if y.device.type == "cpu":  # pixel_shuffle drops the memory format, and the tail would be 3x slower
                y = y.contiguous(memory_format=torch.channels_last)
            if y.shape[2:] != self.size:  # the stride does not divide it
                y = y[:, :, : self.size[0], : self.size[1]]
        return y

    def squeeze(self, y: Tensor, score: Tensor, rows: Tensor, share: Tensor, region: float = REGIONS[0]) -> Tensor:
        """The values that the server sees, `[B, Kmax, h, w]`: quantized, masked, zero-padded. Differentiable."""
        with torch.autocast(y.device.type, enabled=False):
            values = self.quantizer(y, rows)
            if bool((share < 1.0).any()):
                values = values * keep_positions(score, share, region)
        return F.pad(values, [0, 0, 0, 0, 0, self.spec.wire - y.shape[1]])

    def forward(self, feature: Tensor, width_set: str, rows: Tensor, share: Tensor) -> Tensor:
        """Feature to rebuilt feature. `rows` `[B]`: indices into BITS, `share` `[B]`: region ratios."""
        y, score = self.encode(feature, width_set)
        return self.decode(self.squeeze(y, score, rows, share))
