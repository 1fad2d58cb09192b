"""Steps that can be resumed: each writes one file, named by a hash of everything that it depends on."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from tidesplit.data.files import whole

KEY_DIGITS = 12  # of a SHA-256
EVERY_S = 10.0
"""Seconds between two lines of progress in a log. A terminal has one line that changes."""


class Steps:
    """The steps of one preparation, in a folder of their files.

    Args:
        folder: of finished steps.
        total: number of steps, for the display.
        out: where progress is shown; None for the standard error output.
    """

    def __init__(self, folder: Path, total: int, out: TextIO | None = None) -> None:
        self._folder, self._total, self._out, self._done = folder, total, out or sys.stderr, 0
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str, suffix: str, depends: Any) -> Path:
        """The file of a step, which may not be there yet."""
        key = hashlib.sha256(json.dumps([name, depends]).encode()).hexdigest()[:KEY_DIGITS]
        return self._folder / f"{name.replace(' ', '-')}.{key}{suffix}"

    def skip(self) -> None:
        """Count a step that is not needed, because those that use it are done."""
        self._done += 1

    def file(self, name: str, suffix: str, depends: Any, make: Callable[[Path, Show], str]) -> Path:
        """The file of a step. It is made only where it is not there yet.

        Args:
            name: of the step, in words.
            suffix: of the file.
            depends: JSON values that the result depends on.
            make: writes the file, or a folder, to a path, and says in a few words what it found.
        """
        self._done += 1
        path, stem = self.path(name, suffix, depends), name.replace(" ", "-")
        title = f"[{self._done}/{self._total}] {name}"
        if path.exists():
            print(f"{title}: done before", file=self._out, flush=True)
            return path
        begun_s, show = time.perf_counter(), Show(title, self._out)
        with whole(path) as part:
            found = make(part, show)
        for old in self._folder.glob(f"{stem}.*{suffix}"):
            if old != path:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        show.end(f"{found}, {time.perf_counter() - begun_s:.0f} s")
        return path


class Show:
    """The progress of one step: the share that is done, a few words, and the time left."""

    def __init__(self, title: str, out: TextIO) -> None:
        self._title, self._out, self._live = title, out, out.isatty()
        self._begun_s = self._shown_s = time.perf_counter()

    def __call__(self, share: float, words: str = "") -> None:
        """Show the share in (0, 1] that is done."""
        now_s = time.perf_counter()
        if now_s - self._shown_s < (0.2 if self._live else EVERY_S):
            return
        self._shown_s, left_s = now_s, (now_s - self._begun_s) / max(share, 1e-6) * (1.0 - share)
        text = f"{self._title}: {100 * share:.0f} %, {words + ', ' if words else ''}{left_s:.0f} s left"
        print(f"\r\x1b[K{text}" if self._live else text, end="" if self._live else "\n", file=self._out, flush=True)

    def end(self, words: str) -> None:
        """Show the result."""
        print(f"{chr(13) + chr(27) + '[K' if self._live else ''}{self._title}: {words}", file=self._out, flush=True)
