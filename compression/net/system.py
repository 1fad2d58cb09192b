"""A CNN with a bottleneck at each of its cuts. It is trained, measured and exported as one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tidesplit.compression.codec.knobs import BITS, Knobs
from tidesplit.compression.net.bottleneck import Bottleneck, BottleneckSpec
from tidesplit.models.slim import seed_tail, set_of_partition, set_of_ratio
from tidesplit.models.slim_net import SlimNet

SPECS: dict[str, tuple[BottleneckSpec, ...]] = {
    # At 224 px: 32x14x14, 48x14x14, 72x7x7, 40x7x7, 40x7x7 values at full ratio.
    "efficientnet_lite0": (
        BottleneckSpec(wire=32, stride=4, kernel=3, inner=48),
        BottleneckSpec(wire=48, stride=2, kernel=3, hidden=192),
        BottleneckSpec(wire=72, stride=2, kernel=3, hidden=224),
        BottleneckSpec(wire=40, stride=2, kernel=3, hidden=240),
        BottleneckSpec(wire=40, stride=1, kernel=1, hidden=240),
    ),
    # At 32 px: 16x8x8 and 16x4x4 values.
    "cifar_resnet": (
        BottleneckSpec(wire=16, stride=2, kernel=3, hidden=128),
        BottleneckSpec(wire=16, stride=2, kernel=3, hidden=96),
    ),
}


class SplitNet(nn.Module):
    """Every operating point of one CNN. Images `[B, 3, H, W]` in [-1, 1]; logits `[B, classes]`."""

    def __init__(self, net: SlimNet, specs: tuple[BottleneckSpec, ...] | None = None) -> None:
        super().__init__()
        self.net = net
        self.specs = specs or SPECS[net.name]
        if len(self.specs) != len(net.cuts):
            raise ValueError(f"{len(self.specs)} bottlenecks received, one for each of {len(net.cuts)} cuts expected")
        self.bottlenecks = nn.ModuleList(self._new(p) for p in range(1, len(net.cuts) + 1))

    def _new(self, partition: int) -> Bottleneck:
        shape = self.net.feature_shape(self.net.cuts[partition - 1], self.net.input_px)
        return Bottleneck(partition, shape, self.specs[partition - 1])

    def renew(self, partition: int, device: torch.device) -> None:
        """Set a cut back to an untrained bottleneck and the uncut net's own tail."""
        made = self._new(partition).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bottlenecks[partition - 1] = made
        seed_tail(self.net, partition)

    def bottleneck(self, partition: int) -> Bottleneck:
        """Bottleneck of an inner partition, counted from 1."""
        found = self.bottlenecks[partition - 1]
        assert isinstance(found, Bottleneck)
        return found

    def head(self, image: Tensor, partition: int, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
        """The device's part: feature, values to send `[B, k, h, w]`, attention score `[B, 1, h, w]`."""
        width_set = set_of_ratio(ratio)
        feature = self.net.head(image, width_set, self.net.cuts[partition - 1])
        y, score = self.bottleneck(partition).encode(feature, width_set)
        return feature, y, score

    def tail(self, values: Tensor, partition: int) -> Tensor:
        """The server's part, from `values` `[B, Kmax, h, w]` to logits."""
        feature = self.bottleneck(partition).decode(values)
        return self.net.tail(feature, set_of_partition(partition), self.net.cuts[partition - 1])

    def device(self, image: Tensor, ratio: float) -> Tensor:
        """The whole CNN on the device."""
        return self.net(image, set_of_ratio(ratio))  # type: ignore[no-any-return]

    def finish(self, feature: Tensor, partition: int, ratio: float) -> Tensor:
        """The local fallback: the rest of the CNN at the head's ratio, from the uncompressed feature."""
        return self.net.tail(feature, set_of_ratio(ratio), self.net.cuts[partition - 1])

    def offload(self, image: Tensor) -> Tensor:
        """Image offload: the whole CNN on the server, with the statistics of compressed pictures."""
        return self.net(image, set_of_partition(0))  # type: ignore[no-any-return]

    def cut(self, image: Tensor, partition: int, ratio: float, rows: Tensor, share: Tensor) -> Tensor:
        """Logits through a cut, differentiable. `rows` `[B]`: indices into BITS, `share` `[B]`: region ratios."""
        _, y, score = self.head(image, partition, ratio)
        return self.tail(self.bottleneck(partition).squeeze(y, score, rows, share), partition)

    def forward(self, image: Tensor, knobs: Knobs) -> Tensor:
        """Logits at one operating point."""
        rows = torch.full((len(image),), BITS.index(knobs.bits), device=image.device)
        share = torch.full((len(image),), knobs.region, device=image.device)
        return self.cut(image, knobs.partition, knobs.ratio, rows, share)
