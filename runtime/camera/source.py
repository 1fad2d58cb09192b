"""Sources of frames: a folder of pictures, a camera, a recording, or drawn test pictures.

A thread of its own decodes pictures ahead, so that reading a file does not count as the device's work. `crop` says
which part of a picture is taken, see `squash`.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from tidesplit.compression.codec.image_codec import UNREADABLE
from tidesplit.compression.codec.pixels import Pixels, load_square, natural_picture, squash
from tidesplit.runtime.camera import video_frames
from tidesplit.runtime.camera.mjpeg import START
from tidesplit.runtime.camera.opened import Camera
from tidesplit.runtime.camera.picture import Picture, Say, Skipped, SourceError, silent
from tidesplit.runtime.camera.reading import PictureReader
from tidesplit.runtime.camera.stream import CameraStream

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
DRAWN = 16


def folder(path: Path, px: int, skipped: Skipped | None = None, crop: float = 0.0) -> Iterator[Picture]:
    """Pictures of a folder and its subfolders in the order of their names, over and over."""
    if not path.is_dir():
        raise SourceError(f"{path} is not a folder of pictures")
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise SourceError(f"{path} holds no pictures: expected files that end in {', '.join(sorted(SUFFIXES))}")
    return _read(files, path, px, skipped or Skipped(), crop)


def _read(files: list[Path], root: Path, px: int, skipped: Skipped, crop: float) -> Iterator[Picture]:
    broken: set[Path] = set()
    for file in cycle(files):
        if len(broken) == len(files):
            raise SourceError(f"none of the {len(files)} files in {root} is a picture that can be decoded")
        if file in broken:
            continue
        try:
            pixels = load_square(file, px, crop)
        except UNREADABLE as error:
            broken.add(file)
            skipped(str(file), error)
            continue
        label = file.parent.name if file.parent != root else None
        yield Picture(pixels, str(file.relative_to(root)), label)


def drawn(px: int) -> Iterator[Picture]:
    """Drawn pictures without a class, to try out timings without pictures."""
    made = [Picture(natural_picture(px, seed), f"drawn-{seed}") for seed in range(DRAWN)]
    return cycle(made)


def stream(
    file: IO[bytes], px: int, skipped: Skipped | None = None, say: Say = silent, crop: float = 0.0
) -> CameraStream:
    """The MJPEG or H.264 stream of a camera program. `rpicam-vid -o -` and ffmpeg write both."""
    skipped = skipped or Skipped(say)
    reader = PictureReader(file, partial(video_frames.H264Decoder, skipped), skipped)
    return CameraStream(reader, partial(video_frames.square, px=px, crop=crop), skipped, say)


def of_arrays(arrays: Iterable[Pixels], px: int, crop: float = 0.0) -> Iterator[Picture]:
    """The caller's own pictures, uint8 `[height, width, 3]`. A live one arrives when it is handed over.

    Raises:
        SourceError: another shape or type.
    """
    for number, array in enumerate(arrays):
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise SourceError(
                f"picture {number}: {array.dtype} {array.shape} received, uint8 [height, width, 3] expected"
            )
        yield Picture(squash(Image.fromarray(array), px, crop), f"picture-{number}")


def source(
    where: str, px: int, fps: float, skipped: Skipped, say: Say = silent, crop: float = 0.0
) -> Iterator[Picture]:
    """Pictures from a folder, a video file, a device, an address, or a stream (a named pipe, or "-")."""
    if not where:
        return drawn(px)
    if where == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise SourceError("--source -: no stream on the standard input, the output of a camera program expected")
        return stream(open(sys.stdin.fileno(), "rb", closefd=False), px, skipped, say, crop)
    path = Path(where)
    if "://" in where or path.is_char_device():
        return CameraStream(
            Camera(where, fps, skipped, say), partial(video_frames.square, px=px, crop=crop), skipped, say
        )
    if path.is_dir():
        return folder(path, px, skipped, crop)
    if not path.exists():
        raise SourceError(f"{where} is not a folder of pictures, a video file, a camera device or an address")
    if path.is_fifo() or _begins_as_jpeg(path):
        return stream(path.open("rb"), px, skipped, say, crop)
    return video_frames.recording(where, px, fps, skipped, say, crop)


def _begins_as_jpeg(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(START)) == START


def ahead(pictures: Iterator[Picture], depth: int = 4) -> Iterator[Picture]:
    """The same pictures, up to `depth` of them decoded ahead. An error is raised in the place of its picture.

    A stream decodes ahead by itself: pictures that wait here would grow old.
    """
    return pictures if isinstance(pictures, CameraStream) else _ahead(pictures, depth)


def _ahead(pictures: Iterator[Picture], depth: int) -> Iterator[Picture]:
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
