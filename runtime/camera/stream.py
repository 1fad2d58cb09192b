"""A live source's newest picture. It says how many older ones it passed over.

One thread reads the source, a second one decodes. A source that was recorded (a file in a pipe, or a program that
writes faster than any camera) is slowed down to the loop's rate instead, and gives every picture.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tidesplit.compression.codec.image_codec import UNREADABLE
from tidesplit.compression.codec.pixels import Pixels
from tidesplit.runtime.camera.picture import Picture, Say, Skipped, SourceError, silent
from tidesplit.runtime.camera.reading import Shot

HELD_BYTES = 16 << 20  # of a recording, in memory
QUIET_S = 5.0  # then the silence of a camera is said
EARLY = 2.0  # decoding begins this many decoding times before the loop is expected to ask


class CameraStream(Iterator[Picture]):
    """Pictures in the order in which they came. `decode` makes pixels of a shot's data.

    `shots` runs on a thread of its own. Its text says what was received, for a source that never gives a picture.
    """

    def __init__(
        self, shots: Iterable[list[Shot]], decode: Callable[[Any], Pixels], skipped: Skipped, say: Say = silent
    ) -> None:
        self._shots, self._decode, self._skipped, self._say = shots, decode, skipped, say
        self._changed = threading.Condition()
        self._waiting: deque[Shot] = deque()
        self._ready: Picture | None = None
        self._live = self._ended = self._over = self._asking = False
        self._error: BaseException | None = None
        self._after_s = -math.inf
        self._passed_over = self._given = 0
        self._given_s = self._decoding_s = 0.0
        self._busy_s: deque[float] = deque(maxlen=8)  # between giving a picture and being asked for the next
        for work in (self._collect, self._decode_all):
            threading.Thread(target=self._guarded, args=(work,), daemon=True, name=work.__name__).start()

    def after(self, moment_s: float) -> None:
        """Pass over live pictures that came before this moment (`time.perf_counter`)."""
        with self._changed:
            self._after_s = moment_s
            if self._ready is not None and self._too_soon(self._ready.taken_s):
                self._passed_over += 1 + self._ready.skipped
                self._ready = None
            self._changed.notify_all()

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
                self._say(f"no picture from the camera for {QUIET_S:.0f} s: {self._shots}")

    def _end(self) -> Exception:
        if self._given:
            return StopIteration()
        if self._skipped.count:
            return SourceError(f"none of the {self._skipped.count} pictures of the stream can be decoded")
        return SourceError(f"the stream ended without a picture: {self._shots}")

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
        """Take all that the source gives."""
        for shots in self._shots:
            with self._changed:
                self._live = self._live or any(shot.live for shot in shots)
                for shot in shots:  # what a recording's reader waited for is old when others are taken before it
                    awaited = shot.waited and self._asking and not self._waiting and self._ready is None
                    self._waiting.append(shot._replace(waited=awaited))
                while self._live and len(self._waiting) > 1:
                    self._waiting.popleft()
                    self._passed_over += 1
                self._changed.notify_all()
                while not self._live and sum(len(shot.data) for shot in self._waiting) > HELD_BYTES:
                    self._changed.wait()

    def _decode_all(self) -> None:
        """Decode one picture for each that the loop takes, until the source has ended."""
        while (shot := self._next()) is not None:
            begin_s = time.perf_counter()
            try:
                pixels = self._decode(shot.data)
            except UNREADABLE as error:
                self._skipped("a picture of the stream", error)
                continue
            with self._changed:
                self._decoding_s = time.perf_counter() - begin_s
                when = shot.came_s if self._live or shot.waited else None
                self._ready = Picture(pixels, f"stream-{self._given}", None, when, self._passed_over)
                self._passed_over = 0
                self._changed.notify_all()

    def _next(self) -> Shot | None:
        """The shot to decode next, once it is time to. Returns None where the source has ended."""
        with self._changed:
            while (left_s := self._left_s()) > 0.0:
                if self._ended and (not self._waiting or self._too_soon(self._waiting[0].came_s)):
                    return None
                self._changed.wait(None if math.isinf(left_s) else left_s)
            found = self._waiting.popleft()
            self._changed.notify_all()
            return found

    def _left_s(self) -> float:
        """Time until a picture should be decoded: as late as possible, so that the newest is ready when asked for."""
        if not self._waiting or self._ready is not None or self._too_soon(self._waiting[0].came_s):
            return math.inf
        if self._asking:
            return 0.0
        if not self._given:
            return math.inf
        if not self._live or not self._busy_s:
            return 0.0
        return self._given_s + min(self._busy_s) - EARLY * self._decoding_s - time.perf_counter()

    def _too_soon(self, came_s: float | None) -> bool:
        return self._live and came_s is not None and came_s < self._after_s
