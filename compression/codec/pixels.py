"""Pictures as the network takes them: made square, scaled to [-1, 1].

A picture is squashed to a square, or its middle is cut out. `crop` is the side of that middle over the shorter side of
the picture, and 0 where the whole picture is squashed.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
MAX_PIXELS = 1 << 26  # Pillow holds a picture in 4 bytes a pixel: 256 MiB, half of what the service may use
PAPER = (255, 255, 255)  # behind transparent pixels, as most viewers show them


def load_square(file: Path | IO[bytes], px: int, crop: float = 0.0) -> Pixels:
    """Decode one picture, turn it upright as its EXIF says, and make it `[px, px, 3]`."""
    with Image.open(file) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"picture of {image.width}x{image.height} pixels received, at most {MAX_PIXELS} expected")
        return squash(ImageOps.exif_transpose(image), px, crop)


def squash(image: Image.Image, px: int, crop: float = 0.0) -> Pixels:
    """The picture at `[px, px, 3]` (bicubic, antialiased)."""
    side = crop * min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side) if crop else None
    return np.asarray(_to_rgb(image).resize((px, px), Image.Resampling.BICUBIC, box=box))


def _to_rgb(image: Image.Image) -> Image.Image:
    """The picture in 8-bit colours. Grey values of more than 8 bits are scaled, where Pillow clips them at 255."""
    if image.mode[0] in "IF":
        return _scaled(np.asarray(image)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (*PAPER, 255)), layer)
    return image.convert("RGB")


def _scaled(values: npt.NDArray[Any]) -> Image.Image:
    """Grey values `[H, W]` of 16 bits, 32 bits or floating point, as 8 bits. 16 bits keep their upper eight.

    Others say nothing of their range. So it is the smallest of the usual ones (1 or 255 for floating point, 16 bits for
    whole numbers) that holds all values, or else the picture's own.
    """
    if values.dtype.kind == "u":
        return Image.fromarray((values >> 8).astype(np.uint8))
    grey = values.astype(np.float64)
    if not np.isfinite(grey).all():
        raise ValueError("picture with values that are no numbers received")
    low, high = float(grey.min()), float(grey.max())
    usual = (1.0, 255.0) if values.dtype.kind == "f" else (65536.0,)
    fits = [top for top in usual if low >= 0.0 and high <= top]
    if fits:
        low, high = 0.0, fits[0]
    return Image.fromarray(np.clip(256.0 * (grey - low) / max(high - low, 1e-300), 0, 255).astype(np.uint8))


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
