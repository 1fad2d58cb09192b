"""CIFAR-10 as packed JPEG files: arrays `jpeg` (all bytes), `offsets` `[N + 1]`, `labels` `[N]`, `label_names`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from compression.pictures import Pictures

__all__ = ["load_packed", "write_folder"]


def load_packed(path: Path) -> Pictures:
    """Decode every picture, in the file's order."""
    with np.load(path, allow_pickle=False) as data:
        blob, offsets = data["jpeg"].tobytes(), data["offsets"]
        labels, names = data["labels"].astype(np.int64), tuple(str(name) for name in data["label_names"])
    images = np.empty((len(labels), 32, 32, 3), dtype=np.uint8)
    for i in range(len(labels)):
        with Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]])) as image:
            images[i] = np.asarray(image.convert("RGB"))
    order = np.argsort(names)  # class folders sort by name, and so do labels here
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return Pictures(images, rank[labels], tuple(names[i] for i in order))


def write_folder(pictures: Pictures, folder: Path, limit: int = 0) -> None:
    """Write pictures as PNG class folders, which `python -m profiling accuracy` reads."""
    for name in pictures.classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, (image, label) in enumerate(zip(pictures.images, pictures.labels, strict=True)):
        if limit and i >= limit:
            return
        Image.fromarray(image).save(folder / pictures.classes[int(label)] / f"{i:05d}.png")
