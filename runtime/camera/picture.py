"""One picture of a source, and the count of those that could not be decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tidesplit.compression.codec.pixels import Pixels

NAMED = 5
Say = Callable[[str], None]


def silent(_: str) -> None:
    """Say nothing."""


class SourceError(ValueError):
    """A source without usable pictures. The message is one sentence."""


@dataclass(frozen=True)
class Picture:
    """Pixels uint8 `[px, px, 3]`, a name, and the name of the folder as the picture's class.

    `taken_s` is the moment (`time.perf_counter`) at which the last byte of a live camera's picture came, None for
    files. `skipped` counts pictures passed over since the one before, because newer ones had come.
    """

    pixels: Pixels
    name: str
    label: str | None = None
    taken_s: float | None = None
    skipped: int = 0


class Skipped:
    """Counts pictures that could not be decoded. It says the first `NAMED` of them, and then every tenfold."""

    def __init__(self, say: Say = silent) -> None:
        self.count, self._say = 0, say

    def __call__(self, name: str, reason: object, count: int = 1) -> None:
        """Count pictures. `name` and `reason` are those of the last one."""
        before, self.count = self.count, self.count + count
        if before < NAMED or len(str(self.count)) > len(str(before)):
            more = f" ({self.count} pictures so far)" if self.count > NAMED else ""
            self._say(f"skipped {name}, which cannot be decoded: {reason}{more}")
