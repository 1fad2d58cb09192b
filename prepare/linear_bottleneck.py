"""A bottleneck that begins as a linear code. Its decoder has a linear path, and one of three layers that corrects it.

Each position has a mean of its own, which the encoder takes off and the decoder adds. A feature's border differs from
its middle in most nets, and that difference need not cross.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.compression.net.bottleneck import Bottleneck, BottleneckSpec


def fits(spec: BottleneckSpec) -> bool:
    """True where the encoder is one convolution that covers a patch."""
    return not spec.inner and spec.kernel // 2 >= spec.stride - 1


class LinearBottleneck(Bottleneck):
    """Bottleneck of one cut of a prepared net, with patches of `spec.stride` x `spec.stride` positions."""

    def __init__(self, partition: int, feature: tuple[int, int, int], spec: BottleneckSpec) -> None:
        super().__init__(partition, feature, spec)
        del self.encoder_norm, self.expand_norm
        patch, cut = self.channels * spec.stride**2, self.cut
        self.place = nn.Parameter(torch.zeros(spec.wire, cut.height, cut.width))
        self.direct = nn.Parameter(torch.zeros(patch, spec.wire, 1, 1))
        self.mean = nn.Parameter(torch.zeros(patch, cut.height, cut.width))

    def _values(self, feature: Tensor, width_set: str) -> Tensor:
        del width_set  # there is one
        y = F.conv2d(feature, self.encoder, stride=self.spec.stride, padding=self.spec.kernel // 2)
        return y + self.place

    def decode(self, values: Tensor) -> Tensor:
        """Rebuild the feature `[B, C, H, W]` from values `[B, wire, h, w]`."""
        corrected = F.conv2d(self._hidden(values), self.expand)
        return self._unfolded(corrected + F.conv2d(values, self.direct) + self.mean)

    @torch.no_grad()
    def start(self, mean: Tensor, encoder: Tensor, decoder: Tensor) -> None:
        """Make it a linear code. Nothing is corrected at first.

        Args:
            mean: of the patches, `[D, h, w]`.
            encoder: `[k, D]`.
            decoder: `[D, k]`.
        """
        spec, kept = self.spec, len(encoder)
        first = spec.kernel // 2
        last = first + spec.stride
        for part in (self.encoder, self.place, self.direct, self.expand):
            part.zero_()
        self.encoder[:kept, :, first:last, first:last] = encoder.view(kept, -1, spec.stride, spec.stride)
        self.place[:kept] = -torch.einsum("kd,dhw->khw", encoder, mean)
        self.direct[:, :kept, 0, 0] = decoder
        self.mean.copy_(mean)

    def fixed(self) -> tuple[nn.Parameter, ...]:
        """What training leaves as it is: all that codes and bytes depend on."""
        return (self.encoder, self.place, self.score, *self.quantizer.parameters())

    def linear(self) -> tuple[nn.Parameter, ...]:
        """The decoder's linear path."""
        return self.direct, self.mean
