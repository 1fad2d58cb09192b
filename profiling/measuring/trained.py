"""Trained networks as the profiler sees them: by name, with every operating point they have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tidesplit.compression.codec.knobs import RATIOS, Knobs, all_knobs, device_id, image_id
from tidesplit.compression.net.cut_codec import Codec, tag_of
from tidesplit.compression.net.system import SplitNet
from tidesplit.models.registry import build, weights_path
from tidesplit.models.weights import load_tables, load_weights, read_metadata, sha256_of

__all__ = ["IMAGE_POINTS", "ImagePoint", "Trained", "load_trained", "point_ids"]


@dataclass(frozen=True)
class ImagePoint:
    """Image offload at one quality."""

    codec: str
    quality: int

    @property
    def id(self) -> str:
        """Identifier in the profile."""
        return image_id(self.codec, self.quality)


IMAGE_POINTS = tuple(ImagePoint("jpeg", q) for q in (10, 20, 30, 50, 75, 90, 95)) + tuple(
    ImagePoint("webp", q) for q in (1, 5, 10, 20, 30, 50, 75, 90)
)


@dataclass(frozen=True)
class Trained:
    """A network with its weights loaded, its codec, and what the weights file says of itself."""

    system: SplitNet
    codec: Codec
    classes: tuple[str, ...]
    sha256: str

    @property
    def knobs(self) -> list[Knobs]:
        """Operating points behind the inner cuts."""
        return all_knobs(self.system.net.partitions)


@lru_cache(maxsize=1)
def load_trained(name: str, weights: Path | None = None) -> Trained:
    """The network called `name`; once a process."""
    path = weights or weights_path(name)
    classes = tuple(json.loads(read_metadata(path)["classes"]))
    system = SplitNet(build(name, len(classes)))
    load_weights(path, system)
    system.requires_grad_(False)
    return Trained(system, Codec(system, tag_of(path), load_tables(path)), classes, sha256_of(path))


def point_ids(trained: Trained) -> list[str]:
    """Every operating point: image offload, cuts, device only."""
    cuts = [knobs.id for knobs in trained.knobs]
    return [point.id for point in IMAGE_POINTS] + cuts + [device_id(ratio) for ratio in RATIOS]
