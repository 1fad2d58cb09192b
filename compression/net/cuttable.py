"""What codec, judge, profile and deployment need of a CNN, whatever its layers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tidesplit.compression.codec.knobs import Knobs, all_knobs
from tidesplit.compression.net.bottleneck import Bottleneck


class Cuttable(Protocol):
    """A CNN with a bottleneck at each of its cuts.

    `SplitNet` is a slimmable one, and `prepare.cut_net.CutNet` any traced net, at channel ratio 1.
    """

    @property
    def partitions(self) -> int:
        """Index of the last partition: the whole CNN on the device."""

    @property
    def ratios(self) -> Sequence[float]:
        """Channel ratios that it offers, narrowest first."""

    @property
    def regions(self) -> Sequence[float]:
        """Region ratios that it offers."""

    def bottleneck(self, partition: int) -> Bottleneck:
        """Bottleneck of an inner partition, counted from 1."""

    def macs(self, partition: int, ratio: float) -> tuple[float, float]:
        """Multiply-accumulates of head and tail for one picture."""


def knobs_of(net: Cuttable) -> list[Knobs]:
    """Settings of all its cuts. Every bottleneck has levels for all bit widths of the wire."""
    return all_knobs(net.partitions, net.ratios, net.regions)
