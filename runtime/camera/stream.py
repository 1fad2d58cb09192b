"""A stream of JPEGs from a camera program. It gives the newest picture, and says how many older ones it passed over.

One thread reads and cuts the stream, a second one decodes. A stream that was recorded (a file, or a program that writes
faster than any camera) is slowed down to the loop's rate instead, and gives every picture.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO

from tidesplit.compression.codec.image_codec import UNREADABLE
from tidesplit.compression.codec.pixels import Pixels
from tidesplit.runtime.camera.mjpeg import LARGEST_JPEG, Cutter
from tidesplit.runtime.camera.picture import Picture, Say, Skipped, SourceError, silent

CHUNK = 1 << 16  # a pipe's size
# A camera keeps its reader waiting between pictures; whoever writes a recording is faster than 250 a second. A second
# of such waits in all is a camera, so that a few files from a slow disk are not.
WAIT_S, LIVE_S = 0.004, 1.0
HELD_BYTES = 2 * LARGEST_JPEG  # of a recording, in memory
QUIET_S = 5.0  # then the silence of a camera is said
EARLY = 2.0  # decoding begins this many decoding times before the loop is expected to ask


class CameraStream(Iterator[Picture]):
    """Pictures of the JPEG stream `file`, in the order in which they came. `decode` takes one JPEG's bytes."""

    def __init__(self, file: IO[bytes], decode: Callable[[bytes], Pixels], skipped: Skipped, say: Say = silent) -> None:
        self._read, self._decode, self._skipped, self._say = _reader(file), decode, skipped, say
        self._changed = threading.Condition()
        self._whole: deque[tuple[bytes, float]] = deque()  # JPEGs that are not decoded, and when they came
        self._ready: Picture | None = None
        self._live = self._ended = self._over = self._asking = False
        self._error: BaseException | None = None
        self._received = self._passed_over = self._given = 0
        self._given_s = self._decoding_s = 0.0
        self._busy_s: deque[float] = deque(maxlen=8)  # between giving a picture and being asked for the next
        for work in (self._collect, self._decode_all):
            threading.Thread(target=self._guarded, args=(work,), daemon=True, name=work.__name__).start()

    def __next__(self) -> Picture:
        """The newest picture of a camera, as soon as there is one; the next picture of a recording."""
        with self._changed:
            if self._given:
                self._busy_s.append(time.perf_counter() - self._given_s)
            self._asking = True
            self._changed.notify_all()
            self._wait_for_picture()
            self._asking = False
            if self._ready is None:
                raise self._error or self._end()
            picture, self._ready = self._ready, None
            self._given, self._given_s = self._given + 1, time.perf_counter()
            self._changed.notify_all()
            return picture

    def _wait_for_picture(self) -> None:
        said = False
        while self._ready is None and not self._over:
            if not self._changed.wait(QUIET_S) and not said:
                said = True
                self._say(f"no picture on the stream for {QUIET_S:.0f} s, {self._received} bytes received so far")

    def _end(self) -> Exception:
        if self._given:
            return StopIteration()
        if self._skipped.count:
            return SourceError(f"none of the {self._skipped.count} pictures of the stream can be decoded")
        return SourceError(f"the stream ended without a picture: {self._received} bytes received, MJPEG expected")

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread's work. Its failure is raised after the last picture."""
        try:
            work()
        except Exception as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._over = self._over or work == self._decode_all
            self._changed.notify_all()

    def _collect(self) -> None:
        """Read and cut the stream until it ends."""
        cutter, waited_s, first = Cutter(), 0.0, True
        while True:
            begin_s = time.perf_counter()
            data = self._read(CHUNK)
            now_s = time.perf_counter()
            self._received += len(data)
            if now_s - begin_s >= WAIT_S and not first:
                waited_s += now_s - begin_s
            broken = cutter.broken
            whole = cutter.feed(data) if data else cutter.close()
            if cutter.broken > broken:
                self._skipped("a picture of the stream", "it is cut short", cutter.broken - broken)
            if whole:
                first = False
                self._store([(one, now_s) for one in whole], waited_s >= LIVE_S)
            if not data:
                return
            if cutter.waiting > LARGEST_JPEG:
                raise SourceError(f"{cutter.waiting} bytes without a whole JPEG received, an MJPEG stream expected")

    def _store(self, whole: list[tuple[bytes, float]], live: bool) -> None:
        with self._changed:
            self._live = self._live or live
            self._whole.extend(whole)
            while self._live and len(self._whole) > 1:
                self._whole.popleft()
                self._passed_over += 1
            self._changed.notify_all()
            while not self._live and sum(len(data) for data, _ in self._whole) > HELD_BYTES:
                self._changed.wait()

    def _decode_all(self) -> None:
        """Decode one picture for each that the loop takes, until the stream has ended."""
        while (found := self._next()) is not None:
            data, taken_s = found
            begin_s = time.perf_counter()
            try:
                pixels = self._decode(data)
            except UNREADABLE as error:
                self._skipped("a picture of the stream", error)
                continue
            with self._changed:
                self._decoding_s = time.perf_counter() - begin_s
                when = taken_s if self._live else None
                self._ready = Picture(pixels, f"stream-{self._given}", None, when, self._passed_over)
                self._passed_over = 0
                self._changed.notify_all()

    def _next(self) -> tuple[bytes, float] | None:
        """The JPEG to decode next, once it is time to. Returns None where the stream has ended."""
        with self._changed:
            while (left_s := self._left_s()) > 0.0:
                if self._ended and not self._whole:
                    return None
                self._changed.wait(None if math.isinf(left_s) else left_s)
            found = self._whole.popleft()
            self._changed.notify_all()
            return found

    def _left_s(self) -> float:
        """Time until a picture should be decoded: as late as possible, so that the newest is ready when asked for."""
        if not self._whole or self._ready is not None:
            return math.inf
        if self._asking:
            return 0.0
        if not self._given:
            return math.inf
        if not self._live or not self._busy_s:
            return 0.0
        return self._given_s + min(self._busy_s) - EARLY * self._decoding_s - time.perf_counter()


def _reader(file: IO[bytes]) -> Callable[[int], bytes]:
    """A function that returns bytes as soon as some are there. A file's own `read` waits until a block is full.

    It also takes a lock, which the interpreter needs when it ends: a thread that waits there would crash it.
    """
    try:
        return partial(os.read, file.fileno())
    except OSError:
        return file.read
