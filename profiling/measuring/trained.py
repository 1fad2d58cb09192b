"""Trained networks by name, with all their operating points."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tidesplit.compression.codec.image_codec import SMALLER_PX, encode_image, seen_by_server
from tidesplit.compression.codec.knobs import (
    FLOAT32,
    PRECISIONS,
    Knobs,
    Precision,
    image_id,
)
from tidesplit.compression.net.cut_codec import Codec, load_changes, tag_of
from tidesplit.compression.net.cuttable import knobs_of
from tidesplit.compression.net.int8 import Ranges, load_ranges
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.labelled import Bytes, scale
from tidesplit.models.registry import build, weights_path
from tidesplit.models.weights import load_tables, load_weights, read_classes, sha256_of


@dataclass(frozen=True)
class ImagePoint:
    """Image offload at one quality. `px`: side of the picture that crosses; None for the CNN's input size."""

    codec: str
    quality: int
    px: int | None = None

    @property
    def id(self) -> str:
        """Identifier in the profile."""
        return image_id(self.codec, self.quality, self.px)

    def cross(self, pixels: Bytes) -> tuple[Tensor, list[int]]:
        """Pictures `[B, 3, px, px]` that the server sees for uint8 `[B, px, px, 3]`, and bytes of the payloads."""
        payloads = [encode_image(image, self.codec, self.quality, self.px) for image in pixels]
        seen = np.stack([seen_by_server(payload, pixels.shape[1]) for payload in payloads])
        return scale(seen), [len(payload) for payload in payloads]


IMAGE_POINTS = (
    *(ImagePoint("jpeg", q) for q in (10, 20, 30, 50, 75, 90, 95)),
    *(ImagePoint("webp", q) for q in (1, 5, 10, 20, 30, 50, 75, 90)),
    *(ImagePoint("jpeg", q, px) for px in SMALLER_PX for q in (10, 20, 40)),
    *(ImagePoint("webp", q, px) for q, px in ((10, 160), (1, 128), (20, 128), (20, 112))),
)
"""Pictures that can cross. WebP takes the device some three times as long as JPEG, so few smaller ones are WebP."""


def smaller(points: Iterable[ImagePoint], px: int) -> tuple[ImagePoint, ...]:
    """Those for a CNN of this input size: a picture can cross at smaller sizes only."""
    return tuple(point for point in points if point.px is None or point.px < px)


@dataclass(frozen=True)
class Trained:
    """A network with its weights, its codec, and the classes and hash of the weights file.

    `ranges` are those of its activations. Without them there are no int8 models.
    """

    system: SplitNet
    codec: Codec
    classes: tuple[str, ...]
    sha256: str
    ranges: Ranges | None = None

    @property
    def knobs(self) -> list[Knobs]:
        """Operating points of the inner cuts."""
        return knobs_of(self.system)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions in which a device can run it."""
        return (FLOAT32,) if self.ranges is None else PRECISIONS

    @property
    def image_points(self) -> tuple[ImagePoint, ...]:
        """Image offload."""
        return smaller(IMAGE_POINTS, self.system.net.input_px)

    def cross(self, y: Tensor, score: Tensor, knobs: Knobs) -> tuple[Tensor, list[int]]:
        """Values `[B, Kmax, h, w]` that the server decodes, and bytes of the payloads.

        `y` `[B, k, h, w]`: the head's values, `score` `[B, 1, h, w]`: its attention scores.
        """
        payloads = [self.codec.compress(v, s[0], knobs) for v, s in zip(y, score, strict=True)]
        values = torch.stack([self.codec.decompress(payload)[0] for payload in payloads])
        return values, [len(payload) for payload in payloads]


@lru_cache(maxsize=1)
def load_trained(name: str, weights: Path | None = None) -> Trained:
    """The network called `name`, from the bundled weights or others. The last one is kept."""
    path = weights or weights_path(name)
    classes = read_classes(path)
    system = SplitNet(build(name, len(classes)))
    load_weights(path, system)
    system.requires_grad_(False)
    codec = Codec(system, tag_of(path), load_tables(path), load_changes(path, system))
    return Trained(system, codec, classes, sha256_of(path), load_ranges(path, system))
