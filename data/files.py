"""Where the bundled files lie, and how a file is written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ROOT / "data" / "profiles"
TRACES = ROOT / "data" / "traces"
GENERALIST = ROOT / "data" / "policies" / "generalist"
WEIGHTS = ROOT / "models"


def profile_files(name: str, file: Path | None = None) -> tuple[Path, Path]:
    """The profile of a CNN to begin with, and the file to write it to.

    Both are ``file`` where one is given. Else NAME.json in the working directory is written, and begun from the bundled
    profile where it does not exist yet: an installed package stays as it is.
    """
    written = file or Path(f"{name}.json")
    return (written if file or written.exists() else PROFILES / written), written


def ranges_file(weights: Path) -> Path:
    """The file of activations' ranges, next to a weights file."""
    return weights.with_suffix(".ranges.json")


def streams_file(weights: Path) -> Path:
    """The file of the tables of cuts with memory, next to a weights file."""
    return weights.with_suffix(".streams.json")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to. It takes the place of ``path`` at the end, so that a crash leaves the old file whole."""
    part = path.with_name(path.name + ".part")
    yield part
    os.replace(part, path)
