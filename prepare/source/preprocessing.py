"""How a net wants its pictures, as data: size, colour order, mean, standard deviation, layout.

Codecs and runtime know one form of picture only: RGB, square, `[B, 3, px, px]` in [-1, 1]. So everything but size and
crop becomes a part of the net itself. It is a 1x1 convolution before its first layer, and the runtime need not know of
it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

COLOURS = ("RGB", "BGR")
LAYOUTS = ("NCHW", "NHWC")
SMALLEST_PX, LARGEST_PX = 16, 1024
LEAST_CROP = 0.3


class PrepareError(ValueError):
    """A net, a folder or a setting that cannot be prepared. The message is one sentence, with the value received."""


def _require(fine: bool, name: str, value: object, expected: str) -> None:
    if not fine:
        raise PrepareError(f"preprocess: {name} {value} received, {expected} expected")


@dataclass(frozen=True)
class Preprocess:
    """What a net expects of a picture.

    Args:
        size: side of the square, in pixels.
        mean: of the red, green and blue values in [0, 1]. It is subtracted first.
        std: of the same. They are then divided by it. A net that takes 0 to 255 has mean 0 and std 1/255.
        colours: order of the colours.
        layout: order of the axes. N is the batch, C the colours.
        crop: side of the square that is cut out of a picture's middle, over its shorter side; 0 squashes the whole
            picture. "Resize to 256, crop 224" is 0.875.
    """

    size: int = 224
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    colours: str = "RGB"
    layout: str = "NCHW"
    crop: float = 0.0

    def __post_init__(self) -> None:
        _require(SMALLEST_PX <= self.size <= LARGEST_PX, "size", self.size, f"{SMALLEST_PX} to {LARGEST_PX} pixels")
        _require(len(self.mean) == 3 and len(self.std) == 3, "mean and std", (self.mean, self.std), "three values each")
        _require(min(self.std) > 0, "std", self.std, "values above 0")
        _require(self.colours in COLOURS, "colours", self.colours, " or ".join(COLOURS))
        _require(self.crop == 0 or LEAST_CROP <= self.crop <= 1, "crop", self.crop, f"0, or {LEAST_CROP} to 1")
        _require(self.layout in LAYOUTS, "layout", self.layout, " or ".join(LAYOUTS))

    def values(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self)


PRESETS = {
    "imagenet": Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "lite": Preprocess(),
}
"""By name: torchvision's nets, and nets that take [-1, 1] as the EfficientNet-Lite family does."""


def read_preprocess(name: str, size: int | None = None, crop: float | None = None) -> Preprocess:
    """A preset by its name, or a JSON file with the fields of `Preprocess`. `size` and `crop` override its own.

    Raises:
        PrepareError: neither, or a file with other fields or values.
    """
    found = PRESETS.get(name) or _from_file(Path(name))
    found = found if size is None else replace(found, size=size)
    return found if crop is None else replace(found, crop=crop)


def _from_file(path: Path) -> Preprocess:
    if not path.is_file():
        raise PrepareError(f"--preprocess {path}: one of {', '.join(PRESETS)}, or a JSON file expected")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Preprocess)}
        if not isinstance(given, dict) or not set(given) <= known:
            raise PrepareError(f"{path}: an object with some of the fields {', '.join(sorted(known))} expected")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        return Preprocess(**values)
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise PrepareError(f"{path}: not a readable JSON file ({error})") from error
