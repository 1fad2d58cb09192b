"""Folders of pictures: broken ones are named, counted and left out; class folders belong to the classes expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.pictures.labelled import list_pictures, load_pictures
from tidesplit.compression.pictures.packed import TrainingPictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three pictures."""
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        for i in range(3):
            Image.fromarray(natural_picture(48, seed=i)).save(tmp_path / label / f"{i}.png")
    return tmp_path


def broken(folder: Path) -> None:
    """An empty file, a web page, half a picture, and a header that promises too many."""
    whole = (folder / "ant" / "0.png").read_bytes()
    (folder / "ant" / "empty.jpg").write_bytes(b"")
    (folder / "ant" / "page.jpg").write_text("<html>not found</html>")
    (folder / "bee" / "half.png").write_bytes(whole[: len(whole) // 2])
    size = (40_000).to_bytes(4, "big")
    (folder / "bee" / "bomb.png").write_bytes(whole[:16] + size + size + whole[24:])


def test_broken_pictures_are_named_counted_and_left_out(folder: Path) -> None:
    broken(folder)
    told: list[str] = []
    files, labels, classes = list_pictures(folder, tell=told.append)
    assert [path.name for path in files] == ["0.png", "1.png", "2.png"] * 2
    assert (labels.tolist(), classes) == ([0, 0, 0, 1, 1, 1], ("ant", "bee"))
    (sentence,) = told
    assert sentence.startswith(f"{folder}: 4 of 10 pictures cannot be read and are left out: ant/empty.jpg (")
    for name in ("ant/page.jpg (cannot identify image file)", "bee/half.png (", "bee/bomb.png ("):
        assert name in sentence
    assert "\n" not in sentence


def test_whole_pictures_are_not_told_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list_pictures(folder)[0]) == 6
    assert capsys.readouterr().err == ""


def test_training_leaves_them_out_everywhere_and_tells_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = tmp_path / "train"
    train.mkdir()
    for label in ("ant", "bee"):
        (folder / label).rename(train / label)
    broken(train)
    pictures = TrainingPictures(tmp_path)
    everything = pictures.all(32)
    assert everything.images.shape == (6, 32, 32, 3)
    np.testing.assert_array_equal(pictures.rows(np.arange(6), 32).images, everything.images)
    assert capsys.readouterr().err.count("4 of 10 pictures cannot be read") == 1


@pytest.mark.parametrize("whole", [False, True])
def test_a_folder_without_a_picture_to_read_is_an_error(whole: bool, tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    if whole:
        (tmp_path / "ant" / "page.jpg").write_text("<html>")
    with pytest.raises(FileNotFoundError, match="none of its 1 pictures can be read" if whole else "holds no picture"):
        load_pictures(tmp_path, 32)


def test_some_of_the_expected_classes_keep_their_labels(folder: Path) -> None:
    _, labels, classes = list_pictures(folder, ("wasp", "bee", "cat", "ant"))
    assert labels.tolist() == [3, 3, 3, 1, 1, 1]
    assert classes == ("wasp", "bee", "cat", "ant")


def test_unknown_class_folders_are_counted_and_named(folder: Path) -> None:
    for name in ("zebra", "yak", "xerus", "wolf"):
        (folder / name).mkdir()
    with pytest.raises(ValueError, match="does not know") as caught:
        list_pictures(folder, ("ant", "bee", "cat"))
    assert str(caught.value) == (
        f"{folder}: 4 class folders that the CNN does not know: wolf, xerus, yak and 1 more; "
        "its 3 classes are ant, bee, cat"
    )


def test_hidden_folders_are_no_classes(folder: Path) -> None:
    (folder / ".cache").mkdir()
    assert list_pictures(folder)[2] == ("ant", "bee")
