"""Where frames come from: a folder of pictures, a stream of JPEGs (any camera program's MJPEG), or drawn test pictures.

Pictures are decoded ahead by a thread of their own, so that reading a file is not counted as the device's work.
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
    """Pictures that cannot be had; the sentence says what was received and expected."""


@dataclass(frozen=True)
class Picture:
    """Pixels uint8 `[px, px, 3]`, what to call the picture, and the class that its folder's name tells."""

    pixels: Pixels
    name: str
    label: str | None = None


def folder(path: Path, px: int) -> Iterator[Picture]:
    """Pictures of a folder and its subfolders in the order of their names, again and again."""
    if not path.is_dir():
        raise SourceError(f"{path} is no folder of pictures")
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
    """Drawn pictures without a class, for trying out timings where no pictures are at hand."""
    made = [Picture(natural_picture(px, seed), f"drawn-{seed}") for seed in range(DRAWN)]
    return cycle(made)


def stream(file: IO[bytes], px: int) -> Iterator[Picture]:
    """JPEGs laid end to end, as `rpicam-vid --codec mjpeg -o -` or ffmpeg write them; ends with the stream."""
    number = 0
    for data in _jpegs(file):
        try:
            yield Picture(load_square(io.BytesIO(data), px), f"stream-{number}")
        except (OSError, ValueError):
            continue  # a frame damaged on its way from the camera
        number += 1


def _jpegs(file: IO[bytes]) -> Iterator[bytes]:
    """Cut at the markers: the end marker cannot occur within a JPEG's coded data, which stuffs 0xff bytes."""
    held = b""
    while chunk := file.read(1 << 16):
        held += chunk
        while (start := held.find(START)) >= 0 and (end := held.find(END, start)) >= 0:
            yield held[start : end + len(END)]
            held = held[end + len(END) :]
        if len(held) > LARGEST_JPEG:
            raise SourceError(f"{len(held)} bytes without the end of a JPEG received, an MJPEG stream expected")


def ahead(pictures: Iterator[Picture], depth: int = 4) -> Iterator[Picture]:
    """The same pictures, up to `depth` of them decoded ahead; an error is raised where its picture is awaited."""
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
