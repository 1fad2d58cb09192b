"""CIFAR-10 in one file: arrays `jpeg` (all pictures' bytes), `offsets` `[N + 1]`, `labels` `[N]`, `label_names`.

Test pictures as they were published come as the arrays `x_test` `[N, 32, 32, 3]`, `y_test` `[N]` and `label_names`.

tidesplit unpack FILE.npz FOLDER      writes PNG class folders, which `tidesplit profile accuracy` reads
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tidesplit.compression.codec.pixels import load_square
from tidesplit.compression.pictures.labelled import Bytes, Ints, Pictures, list_pictures, squares


def load_packed(path: Path) -> Pictures:
    """All pictures `[N, 32, 32, 3]` in the file's order. Classes are sorted by name, as those of a folder are."""
    with np.load(path, allow_pickle=False) as data:
        images: Bytes
        if "x_test" in data:
            images, labels = data["x_test"], data["y_test"].astype(np.int64)
        else:
            images, labels = _decode(data["jpeg"].tobytes(), data["offsets"]), data["labels"].astype(np.int64)
        names = tuple(str(name) for name in data["label_names"])
    order = np.argsort(names)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return Pictures(images, rank[labels], tuple(names[i] for i in order))


def _decode(blob: bytes, offsets: Ints) -> Bytes:
    images = np.empty((len(offsets) - 1, 32, 32, 3), dtype=np.uint8)
    for i in range(len(images)):
        with Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]])) as image:
            images[i] = np.asarray(image.convert("RGB"))
    return images


class TrainingPictures:
    """The training pictures in `data`: a packed file, whose pictures keep their size, or a folder train/<class>/."""

    def __init__(self, data: Path) -> None:
        self.folder, self.packed = data / "train", load_packed(data) if data.suffix == ".npz" else None
        listed = list_pictures(self.folder) if self.packed is None else ([], self.packed.labels, self.packed.classes)
        self.files, self.labels, self.classes = listed

    def all(self, px: int) -> Pictures:
        """All of them at `px`."""
        return self.packed or squares(self.files, self.labels, self.classes, px)

    def rows(self, rows: Ints, px: int) -> Pictures:
        """Some of them at `px`."""
        if self.packed:
            return Pictures(self.packed.images[rows], self.labels[rows], self.classes)
        images = [load_square(self.files[row], px) for row in rows]
        return Pictures(np.array(images, np.uint8).reshape(-1, px, px, 3), self.labels[rows], self.classes)


def write_folder(pictures: Pictures, folder: Path) -> None:
    """Write pictures as PNG class folders."""
    for name in pictures.classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, (image, label) in enumerate(zip(pictures.images, pictures.labels, strict=True)):
        Image.fromarray(image).save(folder / pictures.classes[int(label)] / f"{i:05d}.png")


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="tidesplit unpack", description="Write packed pictures as PNG class folders.")
    parser.add_argument("file", type=Path, help="packed pictures (.npz)")
    parser.add_argument("folder", type=Path, help="folder to write")
    chosen = parser.parse_args(arguments)
    try:
        write_folder(load_packed(chosen.file), chosen.folder)
    except (KeyError, OSError, ValueError) as error:
        expected = f"{chosen.file}: packed pictures (.npz) expected"
        print(f"tidesplit unpack: error: {expected}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
