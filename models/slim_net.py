"""The interface of a slimmable CNN, and the methods that all of them share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tidesplit.models.graph import Builder


class SlimNet(nn.Module):
    """A CNN that can be cut and slimmed: a stem, blocks, a classifier.

    Blocks are counted from 1, and `cuts[p - 1]` is the last block before the cut of partition p. A block's `inner` is
    its number of inner channels, which shrink with the ratio. Only blocks behind a cut have BatchNorms of its tail.
    """

    name: str
    input_px: int
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
    def head(self, image: Tensor, width_set: str, stop: int) -> Tensor:
        """Image `[B, 3, H, W]` in [-1, 1] through the stem and the first `stop` blocks."""

    @abstractmethod
    def pooled(self, feature: Tensor, width_set: str, start: int) -> Tensor:
        """Feature after `start` blocks to the vector `[B, C]` that the classifier sees."""

    @abstractmethod
    def classify(self, pooled: Tensor) -> Tensor:
        """That vector to logits `[B, classes]`."""

    @abstractmethod
    def build_head(self, builder: Builder, width_set: str, stop: int) -> str:
        """Append the folded stem and the first `stop` blocks. Returns the name of the feature."""

    @abstractmethod
    def build_tail(self, builder: Builder, feature: str, width_set: str, start: int) -> str:
        """Append the folded blocks after `start`, and the classifier. Returns the name of the logits."""

    @abstractmethod
    def inner_axes(self) -> dict[str, int]:
        """Axis of the inner channels, by the name of each parameter that has any. BatchNorms are left out."""

    @abstractmethod
    def rank(self, gates: dict[str, Tensor]) -> None:
        """Permute inner channels, larger gates first. The function at full width stays the same."""

    def middle(self, feature: Tensor, width_set: str, start: int, stop: int) -> Tensor:
        """Feature after `start` blocks to the feature after `stop` blocks."""
        for block in self.blocks[start:stop]:
            feature = block(feature, width_set)
        return feature

    def build_middle(self, builder: Builder, feature: str, width_set: str, start: int, stop: int) -> str:
        """Append the folded blocks after `start`, up to `stop`. Returns the name of the feature."""
        for block in self.blocks[start:stop]:
            feature = block.build(builder, feature, width_set)  # type: ignore[operator]
        return feature

    def feature_shape(self, cut: int, px: int) -> tuple[int, int, int]:
        """Channels, height and width of the feature after `cut` blocks."""
        side = px // self.stem_stride
        for spec in self.specs[:cut]:
            side = -(-side // spec.stride)
        return self.specs[cut - 1].outputs if cut else self.stem.shape[0], side, side

    def gated(self) -> dict[str, Any]:
        """Modules with inner channels, by name. Each multiplies them by its `gate`, unless that is None."""
        return {f"blocks.{i}": block for i, block in enumerate(self.blocks)}

    def tail(self, feature: Tensor, width_set: str, start: int) -> Tensor:
        """Feature after `start` blocks to logits `[B, classes]`."""
        return self.classify(self.pooled(feature, width_set, start))

    def heads(self, image: Tensor, width_set: str, partitions: int) -> list[Tensor]:
        """The feature at each of the first `partitions` cuts, in one pass."""
        found: list[Tensor] = []
        feature, start = self.head(image, width_set, 0), 0
        for cut in self.cuts[:partitions]:
            feature, start = self.middle(feature, width_set, start, cut), cut
            found.append(feature)
        return found

    def features(self, image: Tensor, width_set: str) -> tuple[list[Tensor], Tensor]:
        """The feature at every cut, and the logits, in one pass."""
        found = self.heads(image, width_set, len(self.cuts))
        return found, self.tail(found[-1], width_set, self.cuts[-1])

    def forward(self, image: Tensor, width_set: str = "r100") -> Tensor:
        """Image `[B, 3, H, W]` in [-1, 1] to logits `[B, classes]`."""
        return self.tail(self.head(image, width_set, 0), width_set, 0)
