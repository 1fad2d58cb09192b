"""Cuts a stream of JPEGs laid end to end (MJPEG) at their markers (ITU-T T.81, annex B). Pure, without file or clock.

Segments of a JPEG are skipped by their lengths, because their contents may hold any bytes. An EXIF segment holds a
whole thumbnail, for example. Only coded data, after the start of scan (SOS), is searched for the next marker.
"""

from __future__ import annotations

import re

LARGEST_JPEG = 8 << 20
START = b"\xff\xd8\xff"  # the start of image (SOI), and the first byte of the marker that follows it
SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a segment: TEM and the restarts
FREE = {*range(0xE0, 0xF0), 0xFE}  # application data and comments, with any bytes in them
# Coded data stuffs a zero after each 0xff, and holds restart markers. Any other marker ends it.
SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class Cutter:
    """Takes a stream's bytes in pieces of any size. `broken` counts JPEGs that were cut short or have wrong lengths."""

    def __init__(self) -> None:
        self.broken = 0
        self.waiting = 0  # bytes since the last whole JPEG
        self._held = bytearray()
        self._leave(0)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes. Returns the JPEGs that they complete, oldest first."""
        self._held += data
        self.waiting += len(data)
        whole: list[bytes] = []
        while self._inside or self._enter():
            marker = self._marker()
            if marker is None:
                break
            if marker == EOI:
                whole.append(bytes(self._held[: self._at]))
                self._leave(self._at)
                self.waiting = len(self._held)
        return whole

    def close(self) -> list[bytes]:
        """The stream ended. Returns whole JPEGs that a damaged length had swallowed."""
        whole: list[bytes] = []
        while self._inside:
            self._break()
            whole += self.feed(b"")
        return whole

    def _enter(self) -> bool:
        """Drop bytes up to the next JPEG. Returns False where none begins in the bytes held."""
        found = self._held.find(START)
        del self._held[: found if found >= 0 else max(0, len(self._held) - len(START) + 1)]
        self._inside = found >= 0
        return self._inside

    def _leave(self, end: int) -> None:
        """Drop bytes up to `end`. The next JPEG is searched from there."""
        del self._held[:end]
        self._inside, self._coded = False, False
        self._at, self._sound = 2, 2  # the next marker, and the last one found where a segment's length promised one

    def _break(self) -> None:
        """Give up this JPEG. The next one may begin within a segment whose length is wrong, so begin before that."""
        self.broken += 1
        self._leave(self._sound)

    def _marker(self) -> int | None:
        """Go past the next marker and its segment. Returns EOI, 0 for another, or None where more bytes are needed."""
        held = self._held
        if self._coded:
            found = SCAN_END.search(held, self._at)
            self._at = found.start() if found else max(self._at, len(held) - 1)
        if len(held) < self._at + 2:
            return None
        code = held[self._at + 1]
        if held[self._at] != 0xFF or code == 0x00:
            self._break()
        elif code == 0xFF:  # a fill byte
            self._at += 1
        elif code == SOI:
            self._sound = self._at
            self._break()
        elif code == EOI or code in BARE:
            self._at += 2
            return EOI if code == EOI else 0
        else:
            return self._segment(code)
        return 0

    def _segment(self, code: int) -> int | None:
        held, length = self._held, int.from_bytes(self._held[self._at + 2 : self._at + 4], "big")
        if len(held) < self._at + 4:
            return None
        self._sound, end = self._at, self._at + 2 + length
        if length < 2:
            self._break()
        elif len(held) < end:
            return None
        elif (swallowed := held.find(START, end - 2 if code in FREE else self._at + 2, end + 2)) >= 0:
            self._sound = swallowed  # cut short in this segment: here begins the next one
            self._break()
        else:
            self._at, self._coded = end, code == SOS
        return 0
