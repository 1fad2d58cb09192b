"""Cuts an H.264 byte stream at its pictures (ITU-T H.264, annex B and 7.4.1.2.3). Pure, without file or clock.

The stream does not say where a picture ends: only the next picture's start code does. A live picture would be given one
period late. But camera programs write each picture at once. So where a stream has paused only at the ends of pictures,
its next pause is taken for one.
"""

from __future__ import annotations

import re

START_CODE = re.compile(rb"\x00?\x00\x00\x01")
LONGEST_START = 6  # a start code, the unit's header, and the first byte of its content
SLICES = {1, 2, 5}
BEGINNERS = {6, 7, 8, 9, *range(14, 19)}  # units that belong to the next picture where they follow a slice
FIRST_BLOCK = 0x80  # a slice's first bit says that it begins at the picture's first block
GOOD_PAUSES = 5  # at ends of pictures, one after the other; then the next pause is believed
MOST_PAUSES = 1000  # the same for a stream that often pauses elsewhere


class AccessUnits:
    """Takes a stream's bytes in pieces of any size. Gives pictures, each with the parameters that precede its slices.

    `broken` counts pictures that were given at a pause and then went on. `whole_before` is True where the first picture
    that `feed` gave had its last byte before that piece.
    """

    def __init__(self) -> None:
        self.broken = 0
        self.whole_before = False
        self._held = bytearray()
        self._at = 0  # start codes before this are known
        self._sliced = False  # True where the picture held has a slice
        self._paused_at: int | None = None
        self._given = False  # True where the picture held was given at a pause
        self._good, self._needed = 0, GOOD_PAUSES

    @property
    def waiting(self) -> int:
        """Bytes since the last picture's end."""
        return len(self._held)

    @property
    def pending(self) -> bool:
        """True where a pause of the stream would be news."""
        return self._sliced and self._paused_at is None

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes. Returns the pictures that they complete, oldest first."""
        before = len(self._held)
        self._held += data
        self._judge_pause()
        whole: list[bytes] = []
        while (found := START_CODE.search(self._held, self._at)) and len(self._held) >= found.end() + 2:
            begin, unit = found.start(), found.end()
            if self._sliced and self._begins(unit):
                if not self._given:
                    whole.append(bytes(self._held[:begin]))
                    self.whole_before = begin <= before if len(whole) == 1 else self.whole_before
                del self._held[:begin]
                before, unit = before - begin, unit - begin
                self._sliced = self._given = False
            self._sliced = self._sliced or self._held[unit] & 0x1F in SLICES
            self._at = unit
        if found is None:
            self._at = max(self._at, len(self._held) - 3)
        return whole

    def pause(self) -> list[bytes]:
        """The stream has paused. Returns the picture held, if pauses of this stream have been ends of pictures."""
        if not self.pending:
            return []
        self._paused_at = len(self._held)
        self._given = self._given or self._good >= self._needed
        return [bytes(self._held)] if self._good >= self._needed else []

    def close(self) -> list[bytes]:
        """The stream ended. Returns the last picture."""
        return [bytes(self._held)] if self._sliced and not self._given else []

    def _begins(self, unit: int) -> bool:
        """True where the unit whose header is at `unit` belongs to the next picture."""
        kind = self._held[unit] & 0x1F
        return kind in BEGINNERS or (kind in SLICES and bool(self._held[unit + 1] & FIRST_BLOCK))

    def _judge_pause(self) -> None:
        """Find out whether the last pause was the end of a picture."""
        if self._paused_at is None or len(self._held) < self._paused_at + LONGEST_START:
            return
        found = START_CODE.match(self._held, self._paused_at)
        if found and self._begins(found.end()):
            self._good += 1
        else:
            self.broken += self._given
            self._good, self._needed = 0, min(2 * self._needed, MOST_PAUSES)
        self._paused_at = None
