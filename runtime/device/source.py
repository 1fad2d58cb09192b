"""Sources of frames: a folder of pictures, a stream of JPEGs (MJPEG of a camera program), or drawn test pictures.

A thread of its own decodes pictures ahead, so that reading a file does not count as the device's work.
"""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import IO

from tidesplit.compression.codec.pixels import Pixels, load_square, natural_picture

__all__ = ["Picture", "SourceError", "ahead", "drawn", "folder", "stream"]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
DRAWN = 16
LARGEST_JPEG = 8 << 20
START, END = b"\xff\xd8", b"\xff\xd9"


class SourceError(ValueError):
    """A source without usable pictures. The message is one sentence."""


@dataclass(frozen=True)
class Picture:
    """Pixels uint8 `[px, px, 3]`, a name, and the name of the folder as the picture's class."""

    pixels: Pixels
    name: str
    label: str | None = None


def folder(path: Path, px: int) -> Iterator[Picture]:
    """Pictures of a folder and its subfolders in the order of their names, over and over."""
    if not path.is_dir():
        raise SourceError(f"{path} is not a folder of pictures")
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise SourceError(f"{path} holds no pictures: expected files that end in {', '.join(sorted(SUFFIXES))}")
    return _read(files, path, px)


def _read(files: list[Path], root: Path, px: int) -> Iterator[Picture]:
    broken: set[Path] = set()
    for file in cycle(files):
        if len(broken) == len(files):
            raise SourceError(f"none of the {len(files)} files in {root} is a picture that can be decoded")
        try:
            pixels = load_square(file, px)
        except (OSError, ValueError):
            broken.add(file)
            continue
        label = file.parent.name if file.parent != root else None
        yield Picture(pixels, str(file.relative_to(root)), label)


def drawn(px: int) -> Iterator[Picture]:
    """Drawn pictures without a class, to try out timings without pictures."""
    made = [Picture(natural_picture(px, seed), f"drawn-{seed}") for seed in range(DRAWN)]
    return cycle(made)


def stream(file: IO[bytes], px: int) -> Iterator[Picture]:
    """The JPEGs of a stream, laid end to end as `rpicam-vid --codec mjpeg -o -` and ffmpeg write them."""
    number = 0
    for data in _jpegs(file):
        try:
            yield Picture(load_square(io.BytesIO(data), px), f"stream-{number}")
        except (OSError, ValueError):
            continue  # a damaged frame
        number += 1


def _jpegs(file: IO[bytes]) -> Iterator[bytes]:
    """JPEGs, cut at their markers. Coded data never contains the end marker, because JPEG stuffs its 0xff bytes."""
    held = b""
    while chunk := file.read(1 << 16):
        held += chunk
        while (start := held.find(START)) >= 0 and (end := held.find(END, start)) >= 0:
            yield held[start : end + len(END)]
            held = held[end + len(END) :]
        if len(held) > LARGEST_JPEG:
            raise SourceError(f"{len(held)} bytes without the end of a JPEG received, an MJPEG stream expected")


def ahead(pictures: Iterator[Picture], depth: int = 4) -> Iterator[Picture]:
    """The same pictures, up to `depth` of them decoded ahead. An error is raised in the place of its picture."""
    ready: queue.Queue[Picture | BaseException | None] = queue.Queue(maxsize=depth)

    def work() -> None:
        try:
            for picture in pictures:
                ready.put(picture)
            ready.put(None)
        except Exception as error:
            ready.put(error)

    threading.Thread(target=work, daemon=True, name="pictures").start()
    while (item := ready.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
