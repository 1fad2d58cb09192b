"""The user's pictures: which ones to fit to, which ones to judge by, and their classes where the folder says them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tidesplit.compression.pictures.labelled import SUFFIXES, Ints, Pictures, readable, squares
from tidesplit.prepare.source.preprocessing import PrepareError

LEAST = 16
"""Pictures to fit to and to judge by. Fewer say nothing."""
HELD_SHARE, HELD_MOST = 0.2, 400
CROPS_FROM = 8 / 7
"""Side of the pictures that training crops are taken from, over the net's."""


@dataclass(frozen=True)
class FolderPictures:
    """Files to fit to and to judge by.

    Args:
        fit: files to train bottlenecks and tables on.
        held: files that accuracy is measured on.
        labels: classes of `held` by index; None where the folder does not say them.
        classes: names of the net's classes; empty where it has none.
    """

    fit: tuple[Path, ...]
    held: tuple[Path, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]

    def to_fit(self, px: int, crop: float = 0.0) -> Pictures:
        """The training pictures, a little larger than the net's. `crop`: see `squash`."""
        side, labels = round(CROPS_FROM * px), np.zeros(len(self.fit), dtype=np.int64)
        return squares(list(self.fit), labels, ("",), side, min(1.0, CROPS_FROM * crop))

    def to_judge(self, px: int, crop: float = 0.0) -> Pictures:
        """The pictures that accuracy is measured on. Labels are zeros where there are none."""
        labels: Ints = np.array(self.labels or [0] * len(self.held), dtype=np.int64)
        return squares(list(self.held), labels, self.classes, px, crop)

    def to_film(self, px: int, margin: float, crop: float, most: int) -> Pictures:
        """The first of the pictures that judge, larger than the net's by ``margin``: a camera moves over them."""
        labels: Ints = np.array((self.labels or [0] * len(self.held))[:most], dtype=np.int64)
        side, share = round(margin * px), min(1.0, margin * crop)
        return squares(list(self.held[:most]), labels, self.classes, side, share)


def listing(files: Sequence[Path]) -> list[str]:
    """Files by name and size, for the hash of what depends on them."""
    return [f"{path}:{path.stat().st_size}" for path in files]


def read_folder(folder: Path, outputs: int, names: Sequence[str] = (), limit: int = HELD_MOST) -> FolderPictures:
    """The pictures below a folder. Damaged ones are named and left out.

    With sub-folders `train` and `test`, the first are fitted to and the second judge. Otherwise a fifth judges.

    Args:
        folder: pictures in any sub-folders.
        outputs: number of the net's classes, 0 where it has none.
        names: of the classes; empty where they are not known.
        limit: most pictures that judge.

    Raises:
        PrepareError: too few pictures, or wrong names.
    """
    if not folder.is_dir():
        raise PrepareError(f"--pictures {folder}: no such folder")
    if names and len(names) != outputs:
        raise PrepareError(f"{len(names)} class names received, {outputs} expected: the net has so many outputs")
    apart = all((folder / name).is_dir() for name in ("train", "test"))
    order = np.random.default_rng(0)
    if apart:
        fit, held = (_shuffled(_pictures(folder / name), order) for name in ("train", "test"))
    else:
        every = _shuffled(_pictures(folder), order)
        count = max(LEAST, round(HELD_SHARE * len(every)))
        held, fit = every[: min(count, limit)], every[count:]
    if len(fit) < LEAST or len(held) < LEAST:
        raise PrepareError(
            f"{folder}: {len(fit)} pictures to fit to and {len(held)} to judge by, at least {LEAST} of each expected"
        )
    roots = [folder / "train", folder / "test"] if apart else [folder]
    held = held[:limit]
    labels, classes = _labels(roots, held, outputs, names)
    return FolderPictures(tuple(fit), tuple(held), labels, classes)


def _pictures(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise PrepareError(f"{folder} holds no picture: {', '.join(sorted(SUFFIXES))} expected")
    try:
        return readable(folder, files)
    except FileNotFoundError as error:
        raise PrepareError(str(error)) from error


def _shuffled(files: list[Path], order: np.random.Generator) -> list[Path]:
    return [files[i] for i in order.permutation(len(files))]


def _labels(
    roots: list[Path], held: list[Path], outputs: int, names: Sequence[str]
) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """Labels of the pictures, and the names of the classes. Sub-folders are classes by name, or by sorted order."""
    folders = sorted({entry.name for root in roots for entry in root.iterdir() if entry.is_dir()})
    known = tuple(names) or (tuple(folders) if len(folders) == outputs else ())
    if known and all(path.parent.name in known and path.parent.parent in roots for path in held):
        return tuple(known.index(path.parent.name) for path in held), known
    return None, known or tuple(f"class {i}" for i in range(outputs))
