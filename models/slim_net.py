"""The interface of a slimmable CNN: four methods to write, and those that all of them share.

Export needs of a net `part`, `shape` and a few facts. Codec, profile and judge know it as `compression.net.cuttable`
only. All else is for training.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tidesplit.data.ratios import RATIOS
from tidesplit.models.slim import Slim, permute_norm, ranking


class SlimNet(Slim):
    """A CNN that can be cut and slimmed: a stem, blocks, a classifier.

    Blocks are counted from 1, and `cuts[p - 1]` is the last block before the cut of partition p. A block's `inner` is
    its number of inner channels, which shrink with the ratio. Only blocks behind a cut have BatchNorms of its tail.
    """

    name: str
    input_px: int
    ratios: Sequence[float] = RATIOS
    stem_stride: int
    classes: int
    cuts: Sequence[int]
    stem: nn.Parameter
    specs: Sequence[Any]  # of the blocks: `outputs`, `stride`
    blocks: nn.ModuleList

    @property
    def partitions(self) -> int:
        """Index of the last partition: the whole CNN on the device."""
        return len(self.cuts) + 1

    @abstractmethod
    def start(self, image: Tensor, width_set: str) -> Tensor:
        """Image `[B, 3, H, W]` in [-1, 1] through the stem."""

    @abstractmethod
    def pool(self, feature: Tensor, width_set: str) -> Tensor:
        """Feature after all blocks to the vector `[B, C]` that the classifier sees."""

    @abstractmethod
    def classify(self, pooled: Tensor) -> Tensor:
        """That vector to logits `[B, classes]`."""

    def part(self, x: Tensor, width_set: str, begin: int, end: int) -> Tensor:
        """From one partition to a later one. Partition 0 is the image, the last one the logits."""
        if end == self.partitions:
            return self.classify(self.pooled(x, width_set, begin))
        return self._through(x, width_set, begin, end)

    def pooled(self, x: Tensor, width_set: str, begin: int) -> Tensor:
        """From a partition to the vector `[B, C]` that the classifier sees."""
        return self.pool(self._through(x, width_set, begin, self.partitions), width_set)

    def _through(self, x: Tensor, width_set: str, begin: int, end: int) -> Tensor:
        places = (0, *self.cuts, len(self.blocks))
        if begin == 0:
            x = self.start(x, width_set)
        for block in self.blocks[places[begin] : places[end]]:
            x = block(x, width_set)
        return x

    def shape(self, partition: int) -> tuple[int, int, int]:
        """Channels, height and width at a partition, 0 for the image."""
        if partition == 0:
            return 3, self.input_px, self.input_px
        cut, side = self.cuts[partition - 1], self.input_px // self.stem_stride
        for spec in self.specs[:cut]:
            side = -(-side // spec.stride)
        return self.specs[cut - 1].outputs, side, side

    def heads(self, image: Tensor, width_set: str, partitions: int) -> list[Tensor]:
        """The feature at each of the first `partitions` cuts, in one pass."""
        found, feature = list[Tensor](), image
        for p in range(partitions):
            feature = self.part(feature, width_set, p, p + 1)
            found.append(feature)
        return found

    def features(self, image: Tensor, width_set: str) -> tuple[list[Tensor], Tensor]:
        """The feature at every cut, and the logits, in one pass."""
        *found, logits = self.heads(image, width_set, self.partitions)
        return found, logits

    def forward(self, image: Tensor, width_set: str = "r100") -> Tensor:
        """Image `[B, 3, H, W]` in [-1, 1] to logits `[B, classes]`."""
        return self.part(image, width_set, 0, self.partitions)

    def gated(self) -> dict[str, Any]:
        """Modules with inner channels, by name. Each multiplies them by its `gate`, unless that is None."""
        return {name: self.get_submodule(name) for name in self.inner_parts()}

    @torch.no_grad()
    def rank(self, gates: dict[str, Tensor]) -> None:
        """Permute inner channels, larger gates first. The function at full width stays the same.

        Additions of tails must still be zero.
        """
        for name, gate in gates.items():
            group, order = self.inner_parts()[name], ranking(gate)
            for row in group.rows:
                weight = self.get_parameter(row)
                weight.copy_(weight[order])
            for column in group.columns:
                weight = self.get_parameter(column)
                weight.copy_(weight[:, order])
            for norm in group.norms:
                permute_norm(self.get_submodule(norm), order)  # type: ignore[arg-type]
