"""Reads a camera program's bytes as soon as they are there, and cuts them at its pictures: MJPEG or H.264."""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any, NamedTuple

from tidesplit.runtime.camera.h264 import AccessUnits
from tidesplit.runtime.camera.mjpeg import LARGEST_JPEG, Cutter
from tidesplit.runtime.camera.picture import Skipped, SourceError

CHUNK = 1 << 16  # a pipe's size
# A camera keeps its reader waiting between pictures; whoever writes a recording is faster than 250 a second. Half a
# second of such waits in all is a camera, so that a few files from a slow disk are not.
WAIT_S, LIVE_S = 0.004, 0.5
PAUSE_S = 0.005  # a program that has not written for so long has written its picture
# Where pictures begin: a JPEG, or the parameters of an H.264 stream, which a delimiter (9) may precede.
BEGIN = re.compile(rb"\xff\xd8\xff|\x00\x00\x01(?=[\x09\x27\x47\x67])")
BEGIN_BYTES = 4
H264_START = b"\x00\x00\x01"

Decode = Callable[[bytes, float], list[tuple[Any, float]]]  # an H.264 picture and when it came to frames, and when


class Shot(NamedTuple):
    """A picture that is not yet pixels, and when its last byte came.

    `waited` is True where its reader had to wait for it, `live` where the source is a camera.
    """

    data: Any  # bytes of a JPEG, or a decoded video frame
    came_s: float
    waited: bool
    live: bool


class PictureReader:
    """The pictures of the byte stream `file`. `h264` makes a decoder, and is called where the stream is H.264."""

    def __init__(self, file: IO[bytes], h264: Callable[[], Decode], skipped: Skipped, pause_s: float = PAUSE_S) -> None:
        self.received = 0  # bytes
        self._file, self._h264, self._skipped = file, h264, skipped  # the file would close with its last name
        self._read, self._pauses = _functions(file, pause_s)
        self._cutter: Cutter | AccessUnits | None = None
        self._decode: Decode = lambda unit, came_s: [(unit, came_s)]
        self._noise = bytearray()  # the last bytes before the first picture
        self._now_s = 0.0  # end of the last read
        self._ended = False

    def __str__(self) -> str:
        return f"{self.received} bytes received, MJPEG or H.264 expected"

    def __iter__(self) -> Iterator[list[Shot]]:
        """Those that each read completes, oldest first, until the stream ends."""
        wait_s, waits_s, first = 0.0, 0.0, True
        while not self._ended:
            begin_s = time.perf_counter()
            units = paused = self._pause()
            if not paused:
                units = self._more()
                wait_s += took_s if (took_s := self._now_s - begin_s) >= WAIT_S else 0.0
            if not units:
                continue
            waits_s += 0.0 if first else wait_s
            first = False
            shots = [shot for unit, came_s in units for shot in self._decode(unit, came_s)]
            yield [Shot(data, came_s, bool(paused) or wait_s > 0.0, waits_s >= LIVE_S) for data, came_s in shots]
            wait_s = 0.0

    def _pause(self) -> list[tuple[bytes, float]]:
        """The picture that a pause of an H.264 stream ends, and when its last byte came."""
        if not isinstance(self._cutter, AccessUnits) or not self._cutter.pending or not self._pauses():
            return []
        return [(unit, self._now_s) for unit in self._cutter.pause()]

    def _more(self) -> list[tuple[bytes, float]]:
        """Read. Returns the pictures that the bytes complete, and when their last bytes came."""
        data, last_s = self._read(CHUNK), self._now_s
        self._now_s = time.perf_counter()
        self.received += len(data)
        if not data:
            self._ended = True
            self._file.close()
        if (cutter := self._cutter or self._kind(data)) is None:
            return []
        if self._cutter is None:
            self._cutter, data = cutter, bytes(self._noise)
        broken = cutter.broken
        whole = cutter.close() if self._ended else cutter.feed(data)
        if cutter.broken > broken:
            self._skipped("a picture of the stream", "it is cut short", cutter.broken - broken)
        if cutter.waiting > LARGEST_JPEG:
            raise SourceError(f"{cutter.waiting} bytes without a whole picture received, MJPEG or H.264 expected")
        early = isinstance(cutter, AccessUnits) and (cutter.whole_before or self._ended)
        return [(unit, last_s if early and number == 0 else self._now_s) for number, unit in enumerate(whole)]

    def _kind(self, data: bytes) -> Cutter | AccessUnits | None:
        """Find out what the stream holds. The bytes from its first picture on are in `_noise` then."""
        self._noise += data
        if (begin := BEGIN.search(self._noise)) is None:
            del self._noise[:-BEGIN_BYTES]
            if self.received > LARGEST_JPEG:
                raise SourceError(f"{self.received} bytes without a picture received, MJPEG or H.264 expected")
            return None
        jpeg = begin.group() != H264_START
        del self._noise[: begin.start()]
        if jpeg:
            return Cutter()
        self._decode = self._h264()
        return AccessUnits()


def _functions(file: IO[bytes], pause_s: float) -> tuple[Callable[[int], bytes], Callable[[], bool]]:
    """A function that returns bytes as soon as some are there, and one that is True where none come for `pause_s`.

    A file's own `read` waits until a block is full. It also takes a lock, which the interpreter needs when it ends: a
    thread that waits there would crash it.
    """
    try:
        number = file.fileno()
    except OSError:
        return file.read, lambda: False
    ready = select.poll()
    ready.register(number, select.POLLIN)
    return partial(os.read, number), lambda: not ready.poll(1e3 * pause_s)
