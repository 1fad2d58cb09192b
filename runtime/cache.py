"""The user's cache of exported CNNs: where it is, and that it stays within its limit."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

LARGEST_BYTES = 1 << 30
"""All models of one CNN take 150 MB. So the cache holds a handful of CNNs, or of versions of one."""


def cache_folder() -> Path:
    """The folder with one folder for each export."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidesplit"


def used(folder: Path) -> None:
    """Mark an export as used now."""
    with contextlib.suppress(OSError):  # a cache that somebody else filled
        os.utime(folder)


def bound(kept: Path, largest: int = LARGEST_BYTES) -> str:
    """Delete the exports that were not used for longest until the cache is within its limit. ``kept`` stays.

    Returns a sentence for the user.
    """
    root, removed = cache_folder(), 0
    sizes = {folder: _size(folder) for folder in root.iterdir() if folder.is_dir()}
    for folder in sorted(sizes, key=lambda made: made.stat().st_mtime):
        if sum(sizes.values()) > largest and folder != kept:
            shutil.rmtree(folder, ignore_errors=True)
            del sizes[folder]
            removed += 1
    deleted = f"; older exports deleted: {removed}" if removed else ""
    return f"{root} holds {sum(sizes.values()) / 2**20:.0f} MiB of at most {largest / 2**20:.0f}{deleted}"


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
