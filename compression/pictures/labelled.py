"""Labelled pictures held in memory as uint8, cropped and augmented without a DataLoader.

Pictures are squashed to a square, so that the whole scene counts. The squares are cached in the system's temporary
folder. Each batch has a random generator of its own, made of (seed, epoch, step). So a resumed run sees the batches
that it would have seen.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from tidesplit.compression.codec.image_codec import UNREADABLE
from tidesplit.compression.codec.pixels import load_square

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
AHEAD = 4  # batches prepared before they are asked for
FAULT_PX = 8  # the size at which a picture is decoded to see that it can be
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True)
class Pictures:
    """Images uint8 `[N, S, S, 3]`, labels `[N]`, and class names in the order of the labels."""

    images: Bytes
    labels: Ints
    classes: tuple[str, ...]


@dataclass(frozen=True)
class CropStyle:
    """How a training crop is drawn.

    Args:
        px: side of the crop.
        area: smallest and largest share of the picture that it shows.
        aspect: smallest and largest width over height.
        codec_share: share of pictures that pass through JPEG or WebP.
        quality: lowest and highest quality there.
    """

    px: int = 160
    area: tuple[float, float] = (0.35, 1.0)
    aspect: tuple[float, float] = (0.75, 1.3333)
    codec_share: float = 0.0
    quality: tuple[int, int] = (5, 90)


def _to_stderr(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr)


def list_pictures(
    folder: Path, expected: tuple[str, ...] = (), tell: Callable[[str], None] = _to_stderr
) -> tuple[list[Path], Ints, tuple[str, ...]]:
    """Files, labels and class names of `folder/<class>/<picture>`, sorted. Broken pictures are named and left out.

    Args:
        expected: class names in the order of the labels; the folder may have fewer. Empty: those of the folder.
        tell: takes the sentence about broken pictures.

    Raises:
        FileNotFoundError: no class folder, or no picture that can be read.
        ValueError: a class folder that is none of the expected ones.
    """
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise FileNotFoundError(f"{folder} has no class folders: expected {folder}/<class>/<picture>.jpg")
    classes = expected or tuple(found)
    if unknown := [name for name in found if name not in classes]:
        known = f"its {len(classes)} classes are {', '.join(classes[:3])}{' ...' if len(classes) > 3 else ''}"
        raise ValueError(f"{folder}: {len(unknown)} class folders that the CNN does not know: {_few(unknown)}; {known}")
    files = [p for name in found for p in sorted((folder / name).iterdir()) if p.suffix.lower() in SUFFIXES]
    good = readable(folder, files, tell)
    return good, np.array([classes.index(p.parent.name) for p in good], dtype=np.int64), classes


def readable(folder: Path, files: list[Path], tell: Callable[[str], None] = _to_stderr) -> list[Path]:
    """Those files of a folder that decode. The others are named and counted.

    Raises:
        FileNotFoundError: there is none.
    """
    with ThreadPoolExecutor() as pool:
        faults = list(pool.map(_fault, files))
    broken = [f"{path.relative_to(folder)} ({fault})" for path, fault in zip(files, faults, strict=True) if fault]
    if len(broken) == len(files):
        why = f"none of its {len(files)} pictures can be read: {_few(broken)}" if files else "it holds no picture"
        raise FileNotFoundError(f"{folder}: {why}")
    if broken:
        tell(f"{folder}: {len(broken)} of {len(files)} pictures cannot be read and are left out: {_few(broken, 20)}")
    return [path for path, fault in zip(files, faults, strict=True) if not fault]


def _fault(path: Path) -> str:
    """Why a picture cannot be decoded; nothing where it can."""
    try:
        load_square(path, FAULT_PX)
    except UNREADABLE as error:
        return str(error).split(" '")[0].split(": '")[0] or type(error).__name__
    return ""


def _few(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def load_pictures(folder: Path, px: int) -> Pictures:
    """All pictures of a folder at `px`, see `squares`."""
    return squares(*list_pictures(folder), px)


def squares(files: list[Path], labels: Ints, classes: tuple[str, ...], px: int, crop: float = 0.0) -> Pictures:
    """Listed pictures at `px`, `crop` as in `squash`. They are cached under a key of their file names and sizes."""
    listing = "\n".join(f"{path}:{path.stat().st_size}" for path in files)
    key = hashlib.sha256(f"{px}{f' {crop}' if crop else ''}\n{listing}".encode()).hexdigest()[:16]
    cache = Path(tempfile.gettempdir()) / f"tidesplit-pictures-{key}.npy"
    if not cache.exists():
        partial = cache.with_suffix(f".{threading.get_ident()}.tmp.npy")
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(files), px, px, 3))
        for i, path in enumerate(files):
            array[i] = load_square(path, px, crop)
        array.flush()
        partial.rename(cache)
    images: Bytes = np.load(cache, mmap_mode="r")
    return Pictures(images, labels, classes)


def split(labels: Ints, share: float, seed: int) -> tuple[Ints, Ints]:
    """Indices to train on, and to hold out. Nothing is held out at a share of 0.

    Otherwise the same share of every class is, at least one picture each.
    """
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
    """A random box of the square picture, resized to `style.px`, and mirrored in half of all cases."""
    side = image.shape[0]
    aspect = np.exp(rng.uniform(*np.log(style.aspect)))
    root = side * np.sqrt(rng.uniform(*style.area))
    width, height = min(side, root * np.sqrt(aspect)), min(side, root / np.sqrt(aspect))
    left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
    box = (left, top, left + width, top + height)
    cropped = Image.fromarray(image).resize((style.px, style.px), Image.Resampling.BILINEAR, box=box)
    return cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cropped


def _through_codec(image: Image.Image, style: CropStyle, rng: np.random.Generator) -> Image.Image:
    """The picture as the server sees it after image offload. Low qualities are drawn more often."""
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
    """One shuffled epoch of images `[B, 3, px, px]` in [-1, 1] and labels `[B]`, whole batches only."""
    order = np.random.default_rng((seed, epoch)).permutation(index)
    steps = len(order) // size

    def prepare(step: int) -> tuple[Bytes, Ints]:
        rng = np.random.default_rng((seed, epoch, step))
        return _batch(pictures, order[step * size : (step + 1) * size], style, rng)

    for images, labels in _ahead(prepare, steps):  # torch stays on this thread, because a second OpenMP pool would spin
        yield scale(images), torch.from_numpy(labels)


def _ahead(prepare: Callable[[int], tuple[Bytes, Ints]], steps: int) -> Iterator[tuple[Bytes, Ints]]:
    """Results of `prepare` for 0 to `steps` - 1 in order, computed ahead on another thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = deque(pool.submit(prepare, step) for step in range(min(AHEAD, steps)))
        try:
            for step in range(AHEAD, AHEAD + steps):
                if step < steps:
                    waiting.append(pool.submit(prepare, step))
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
