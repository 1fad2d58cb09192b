"""Clips made of stills, and clips read from folders."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.pictures.clips import CAMERAS, Clip, moving_clips, real_clips

PX = 48


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for k in range(3):
            Image.fromarray(natural_picture(64, seed=k + 10 * len(name))).save(tmp_path / name / f"{k}.png")
    return tmp_path


def differences(clip: Clip) -> float:
    """Mean absolute difference of neighbouring frames."""
    frames = np.stack(list(clip.frames())).astype(np.int64)
    return float(np.abs(np.diff(frames, axis=0)).mean())


def test_frames_are_pictures_of_the_size_asked_for(pictures: Path) -> None:
    clips = moving_clips(pictures, "handheld", PX, 5)
    assert len({clip.name for clip in clips}) == 6
    for clip in clips:
        frames = list(clip.frames())
        assert [f.shape for f in frames] == [(PX, PX, 3)] * 5 == [(PX, PX, 3)] * clip.length
        assert frames[0].dtype == np.uint8
        assert clip.label in ("ant", "bee")
        assert clip.label in clip.name


def test_a_clip_is_the_same_each_time_and_on_every_machine(pictures: Path) -> None:
    (clip,) = moving_clips(pictures, "vehicle", PX, 4, count=1, seed=3)
    digest = hashlib.sha256(np.stack(list(clip.frames())).tobytes()).hexdigest()
    assert digest == hashlib.sha256(np.stack(list(clip.frames())).tobytes()).hexdigest()
    assert digest[:16] == "98b6b1732955e606"
    (other,) = moving_clips(pictures, "vehicle", PX, 4, count=1, seed=4)
    assert digest != hashlib.sha256(np.stack(list(other.frames())).tobytes()).hexdigest()


def test_the_number_of_clips_does_not_change_a_clip(pictures: Path) -> None:
    one, all_ = moving_clips(pictures, "static", PX, 2, count=1), moving_clips(pictures, "static", PX, 2)
    assert one[0].name == all_[0].name
    assert all((a == b).all() for a, b in zip(one[0].frames(), all_[0].frames(), strict=True))


def test_a_camera_that_moves_more_changes_more(pictures: Path) -> None:
    static, handheld, vehicle = (
        np.mean([differences(clip) for clip in moving_clips(pictures, kind, PX, 12)]) for kind in CAMERAS
    )
    noise = 2 * CAMERAS["static"].noise / np.sqrt(np.pi)
    assert static == pytest.approx(noise, rel=0.1)
    assert static < handheld < vehicle


def test_the_subject_stays_in_view(pictures: Path) -> None:
    """After 200 frames of a vehicle the view still overlaps the first by most of it: no pixel is far from it."""
    (clip,) = moving_clips(pictures, "vehicle", PX, 200, count=1)
    frames = [frame.astype(np.float64) for frame in clip.frames()]
    shift = 12
    steps = range(-shift, shift + 1, 2)
    around = [np.roll(frames[0], (y, x), (0, 1)) for y in steps for x in steps]
    nearest = min(np.abs(frames[-1] - other)[shift:-shift, shift:-shift].mean() for other in around)
    foreign = np.abs(frames[-1] - natural_picture(PX, seed=99)).mean()
    assert nearest < 0.6 * foreign


def test_scenes_change_within_a_class(pictures: Path) -> None:
    (calm,), (cut,) = (moving_clips(pictures, "static", PX, 40, count=1, scene=scene) for scene in (0.0, 8.0))
    jumps = [
        sum(np.abs(b.astype(int) - a).mean() > 10 for a, b in pairwise(frames))
        for frames in (list(calm.frames()), list(cut.frames()))
    ]
    assert jumps[0] == 0
    assert 1 <= jumps[1] <= 12
    assert cut.label == calm.label


def test_a_wrong_kind_and_an_empty_folder_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no pictures"):
        moving_clips(tmp_path, "static", PX, 2)
    with pytest.raises(ValueError, match="'flying' received"):
        moving_clips(tmp_path, "flying", PX, 2)
    with pytest.raises(FileNotFoundError, match="no clips"):
        real_clips(tmp_path, PX)


def test_folders_of_frames_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "door"
    folder.mkdir()
    for k in range(12):
        Image.new("RGB", (20, 10), (k, k, k)).save(folder / f"frame{k}.png")
    (clip,) = real_clips(tmp_path, PX)
    assert (clip.name, clip.label, clip.length) == ("door", None, 12)
    assert [int(frame[0, 0, 0]) for frame in clip.frames()] == list(range(12))


def test_a_listing_leaves_out_pictures_to_train_on(tmp_path: Path) -> None:
    rows = ["set,clip,path,first,last,label,caltech101,split,stride"]
    for name, split, stride in (("a", "", "1"), ("b", "train", "1"), ("c", "test", "5"), ("d", "test", "")):
        (tmp_path / name).mkdir()
        for k in (3, 4, 6):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{k:03d}.png")
        rows.append(f"own,{name},{name}/%03d.png,3,9,Nut,{'airplanes' if name == 'a' else ''},{split},{stride}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    clips = real_clips(tmp_path, PX)
    assert [(c.name, c.label, c.length) for c in clips] == [("own/a", "airplanes", 3), ("own/d", "Nut", 3)]
    assert len(list(clips[0].frames())) == 3
    assert [clip.name for clip in real_clips(tmp_path / "d", PX)] == ["own/d"]  # a folder of a set that is listed
