"""Labelled picture folders held in memory as uint8, cropped and augmented without a DataLoader.

A picture is squashed to a square (aspect ratio dropped) so that the whole scene counts. The decoded square is cached in
the system's temporary folder. All randomness comes from a generator made of (seed, epoch, step): a resumed run sees
the batches it would have seen.
"""

from __future__ import annotations

import hashlib
import io
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tidesplit.compression.codec.pixels import load_square

__all__ = [
    "CropStyle",
    "Pictures",
    "batches",
    "list_pictures",
    "load_pictures",
    "recoded",
    "scale",
    "split",
]

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True)
class Pictures:
    """`images` uint8 `[N, S, S, 3]`, `labels` `[N]`, class names in label order."""

    images: Bytes
    labels: Ints
    classes: tuple[str, ...]


@dataclass(frozen=True)
class CropStyle:
    """How a training crop is drawn."""

    px: int = 160
    area: tuple[float, float] = (0.35, 1.0)
    aspect: tuple[float, float] = (0.75, 1.3333)
    codec_share: float = 0.0  # share of pictures that pass through JPEG or WebP
    quality: tuple[int, int] = (5, 90)


def list_pictures(folder: Path) -> tuple[list[Path], Ints, tuple[str, ...]]:
    """Files, labels and class names of `folder/<class>/<picture>`, sorted."""
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    if not classes:
        raise FileNotFoundError(f"{folder} has no class folders: expected {folder}/<class>/<picture>.jpg")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES)
        files += found
        labels += [label] * len(found)
    return files, np.array(labels, dtype=np.int64), classes


def load_pictures(folder: Path, px: int) -> Pictures:
    """Every picture of a folder at `px`, through a cache keyed by the folder's file list."""
    files, labels, classes = list_pictures(folder)
    listing = "\n".join(f"{path}:{path.stat().st_size}" for path in files)
    key = hashlib.sha256(f"{px}\n{listing}".encode()).hexdigest()[:16]
    cache = Path(tempfile.gettempdir()) / f"tidesplit-pictures-{key}.npy"
    if not cache.exists():
        partial = cache.with_suffix(f".{threading.get_ident()}.tmp.npy")
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(files), px, px, 3))
        for i, path in enumerate(files):
            array[i] = load_square(path, px)
        array.flush()
        partial.rename(cache)
    images: Bytes = np.load(cache, mmap_mode="r")
    return Pictures(images, labels, classes)


def split(labels: Ints, share: float, seed: int) -> tuple[Ints, Ints]:
    """Indices to train on and to hold out: the same share of every class, at least one picture of each; none at 0."""
    if share <= 0.0:
        return np.arange(len(labels)), np.empty(0, dtype=np.int64)
    rng = np.random.default_rng(seed)
    held: list[int] = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held += members[: max(1, round(share * len(members)))].tolist()
    out = np.array(sorted(held), dtype=np.int64)
    return np.setdiff1d(np.arange(len(labels)), out), out


def scale(images: Bytes) -> Tensor:
    """uint8 `[B, H, W, 3]` to float `[B, 3, H, W]` in [-1, 1], channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def _crop(image: Bytes, style: CropStyle, rng: np.random.Generator) -> Image.Image:
    """A random box of the square picture, resized to `style.px`, mirrored half the time."""
    side = image.shape[0]
    aspect = np.exp(rng.uniform(*np.log(style.aspect)))
    root = side * np.sqrt(rng.uniform(*style.area))
    width, height = min(side, root * np.sqrt(aspect)), min(side, root / np.sqrt(aspect))
    left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
    box = (left, top, left + width, top + height)
    cropped = Image.fromarray(image).resize((style.px, style.px), Image.Resampling.BILINEAR, box=box)
    return cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cropped


def _through_codec(image: Image.Image, style: CropStyle, rng: np.random.Generator) -> Image.Image:
    """Encode and decode as the image offload would, at a random quality (lower ones more often)."""
    low, high = np.log(style.quality)
    quality = int(np.exp(rng.uniform(low, high)))
    buffer = io.BytesIO()
    image.save(buffer, "webp" if rng.random() < 0.6 else "jpeg", quality=quality)
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


def recoded(images: Tensor, style: CropStyle, rng: np.random.Generator) -> Tensor:
    """A batch `[B, 3, H, W]` in [-1, 1] after JPEG or WebP at random qualities."""
    pixels = ((images.permute(0, 2, 3, 1) + 1.0) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
    coded = np.stack([np.asarray(_through_codec(Image.fromarray(p), style, rng)) for p in pixels])
    return scale(coded).to(images.device)


def _batch(pictures: Pictures, index: Ints, style: CropStyle, rng: np.random.Generator) -> tuple[Bytes, Ints]:
    images = np.empty((len(index), style.px, style.px, 3), dtype=np.uint8)
    for i, which in enumerate(index):
        image = _crop(pictures.images[which], style, rng)
        if rng.random() < style.codec_share:
            image = _through_codec(image, style, rng)
        images[i] = np.asarray(image)
    return images, pictures.labels[index]


def batches(
    pictures: Pictures, index: Ints, size: int, style: CropStyle, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One shuffled epoch of (image `[B, 3, px, px]` in [-1, 1], label `[B]`); the incomplete batch is dropped."""
    order = np.random.default_rng((seed, epoch)).permutation(index)
    steps = len(order) // size

    def prepare(step: int) -> tuple[Bytes, Ints]:
        rng = np.random.default_rng((seed, epoch, step))
        return _batch(pictures, order[step * size : (step + 1) * size], style, rng)

    for images, labels in _ahead(prepare, steps):  # torch stays on this thread: a second OpenMP pool would spin
        yield scale(images), torch.from_numpy(labels)


def _ahead(prepare: Callable[[int], tuple[Bytes, Ints]], steps: int) -> Iterator[tuple[Bytes, Ints]]:
    """Results of `prepare(0..steps-1)` in order, up to four computed ahead; a failure is raised where it is awaited."""
    ready: queue.Queue[tuple[Bytes, Ints] | BaseException] = queue.Queue(maxsize=4)
    stop = threading.Event()

    def work() -> None:
        for step in range(steps):
            if stop.is_set():
                return
            try:
                ready.put(prepare(step))
            except Exception as error:
                ready.put(error)
                return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        for _ in range(steps):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        while thread.is_alive():
            try:
                ready.get(timeout=0.05)
            except queue.Empty:
                continue
