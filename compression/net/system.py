"""A CNN with a bottleneck at each of its cuts. It is trained, measured and exported as one module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tidesplit.compression.codec.knobs import BITS, REGIONS, Knobs
from tidesplit.compression.net.bottleneck import Bottleneck, BottleneckSpec
from tidesplit.compression.net.cnn_work import work_of
from tidesplit.models.slim import frozen, seed_tail, set_of_partition, set_of_ratio
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

    regions: Sequence[float] = REGIONS

    def __init__(self, net: SlimNet, specs: tuple[BottleneckSpec, ...] | None = None) -> None:
        super().__init__()
        self.net = net
        self.specs = specs or SPECS[net.name]
        if len(self.specs) != len(net.cuts):
            raise ValueError(f"{len(self.specs)} bottlenecks received, one for each of {len(net.cuts)} cuts expected")
        self.bottlenecks = nn.ModuleList(self._new(p) for p in range(1, len(net.cuts) + 1))

    @property
    def partitions(self) -> int:
        """Index of the last partition: the whole CNN on the device."""
        return self.net.partitions

    @property
    def ratios(self) -> Sequence[float]:
        """Channel ratios, narrowest first."""
        return self.net.ratios

    def _new(self, partition: int) -> Bottleneck:
        return Bottleneck(partition, self.net.shape(partition), self.specs[partition - 1])

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

    def arriving(self, partition: int) -> tuple[int, int, int]:
        """Shape of a tail's input."""
        return self.bottleneck(partition).cut.shape if partition else self.net.shape(0)

    def macs(self, partition: int, ratio: float) -> tuple[float, float]:
        """Multiply-accumulates of head and tail for one picture."""
        picture = torch.zeros(1, *self.net.shape(0))
        if partition == self.partitions:
            return work_of(self.device, picture, ratio).macs, 0
        head = work_of(self.head, picture, partition, ratio).macs if partition else 0
        tail = frozen(self, set_of_partition(partition)).tail
        return head, work_of(tail, torch.zeros(1, *self.arriving(partition)), partition).macs

    def part(self, x: Tensor, begin: int, end: int, ratio: float) -> Tensor:
        """The device's CNN between two partitions. Without a bottleneck: from a feature the local fallback."""
        return self.net.part(x, set_of_ratio(ratio), begin, end)

    def device(self, image: Tensor, ratio: float) -> Tensor:
        """The whole CNN on the device."""
        return self.part(image, 0, self.partitions, ratio)

    def encode(self, feature: Tensor, partition: int, ratio: float) -> tuple[Tensor, Tensor]:
        """Values to send `[B, k, h, w]` and attention score `[B, 1, h, w]`."""
        return self.bottleneck(partition).encode(feature, set_of_ratio(ratio))

    def head(self, image: Tensor, partition: int, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
        """The device's part: feature, values to send, attention score."""
        feature = self.part(image, 0, partition, ratio)
        return feature, *self.encode(feature, partition, ratio)

    def heads(self, image: Tensor, ratio: float) -> tuple[Tensor, ...]:
        """Values and attention score of every cut in turn."""
        found = enumerate(self.net.heads(image, set_of_ratio(ratio), len(self.net.cuts)), start=1)
        return tuple(value for p, feature in found for value in self.encode(feature, p, ratio))

    def tail(self, values: Tensor, partition: int) -> Tensor:
        """The server's part, from `values` `[B, Kmax, h, w]`, at partition 0 the picture, to logits."""
        return self._on_server(values, partition, self.partitions)

    def offload(self, image: Tensor) -> Tensor:
        """Image offload: the whole CNN on the server, with the statistics of compressed pictures."""
        return self.tail(image, 0)

    def middle(self, values: Tensor, begin: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """A middle server's part, from values of one cut to feature, values and attention score of a later one.

        From a picture it is a head at full ratio.
        """
        feature = self._on_server(values, begin, end) if begin else self.part(values, 0, end, 1.0)
        return feature, *self.encode(feature, end, 1.0)

    def _on_server(self, values: Tensor, begin: int, end: int) -> Tensor:
        feature = self.bottleneck(begin).decode(values) if begin else values
        return self.net.part(feature, set_of_partition(begin), begin, end)

    def cut(self, image: Tensor, partition: int, ratio: float, rows: Tensor, share: Tensor) -> Tensor:
        """Logits through a cut, differentiable. `rows` `[B]`: indices into BITS, `share` `[B]`: region ratios."""
        _, y, score = self.head(image, partition, ratio)
        return self.tail(self.bottleneck(partition).squeeze(y, score, rows, share), partition)

    def forward(self, image: Tensor, knobs: Knobs) -> Tensor:
        """Logits at one operating point."""
        rows = torch.full((len(image),), BITS.index(knobs.bits), device=image.device)
        share = torch.full((len(image),), knobs.region, device=image.device)
        return self.cut(image, knobs.partition, knobs.ratio, rows, share)
