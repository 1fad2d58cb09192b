"""Pictures as the network takes them: squashed to a square, scaled to [-1, 1]."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def load_square(file: Path | IO[bytes], px: int) -> Pixels:
    """Decode one picture and squash it to `[px, px, 3]` (bicubic, antialiased)."""
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize((px, px), Image.Resampling.BICUBIC))


def to_input(pixels: Pixels) -> Floats:
    """uint8 `[px, px, 3]` to the network's input `[1, 3, px, px]` in [-1, 1]."""
    result: Floats = (pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(127.5)) - np.float32(1.0)
    return np.ascontiguousarray(result)


def natural_picture(px: int, seed: int = 0) -> Pixels:
    """A picture `[px, px, 3]` of noise at doubling sizes. Its spectrum falls as that of natural pictures does."""
    rng = np.random.default_rng(seed)
    total = np.zeros((px, px, 3))
    side, weight = 4, 1.0
    while side < px:
        noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        total += weight * np.asarray(noise.resize((px, px), Image.Resampling.BICUBIC), dtype=np.float64)
        side, weight = side * 2, weight * 0.5
    total = (total - total.min()) / (total.max() - total.min())
    result: Pixels = (255 * total).astype(np.uint8)
    return result
