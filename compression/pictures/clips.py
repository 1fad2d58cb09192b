"""Clips: consecutive frames of one camera, made of still pictures or read from files.

`moving_clips` makes frames of stills by a stated model of a camera, for training and for measuring where no clips with
labels are. Nothing in the scene moves by itself, so a static camera's frames differ by noise and exposure only. The
pixels are computed with whole numbers, and are the same on every machine. `real_clips` reads frames or video files.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tidesplit.compression.codec.image_codec import resized
from tidesplit.compression.codec.pixels import Pixels, load_square

Ints = npt.NDArray[np.int32]
LISTING = "labels.csv"
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".ts", ".h264")
MARGIN = 1.18  # side of the still over that of the view, so that small shifts show no mirrored edge
KEPT_SPEED = 0.9  # share of the camera's speed that the next frame keeps
KEPT_EXPOSURE = 0.98  # the same for the deviation from the mean exposure
BEGUN = 64  # frames before the first one, so that the camera is in motion from the start
FURTHEST = 0.11  # share of the side by which the view's middle may leave the still's, so that the subject stays in view


@dataclass(frozen=True)
class Clip:
    """Consecutive frames of one camera.

    Args:
        name: unique among the clips of one folder.
        label: class of what all frames show, None where it is not known.
        length: number of frames.
        frames: begins anew and gives the frames uint8 `[px, px, 3]` one by one.
    """

    name: str
    label: str | None
    length: int
    frames: Callable[[], Iterator[Pixels]]


@dataclass(frozen=True)
class CameraMotion:
    """How a camera moves: normal accelerations a frame, a return to the middle, exposure and the sensor's noise.

    Args:
        shift: acceleration in shares of the side.
        turn: in degrees.
        zoom: in natural logarithms of the scale.
        back: share of the deviation from the middle by which a frame's speed changes towards it.
        exposure: step of the logarithm of the gain.
        noise: standard deviation of the sensor's noise, in grey values of 255.
    """

    shift: float = 0.0
    turn: float = 0.0
    zoom: float = 0.0
    back: float = 0.0
    exposure: float = 0.001
    noise: float = 2.5


# Assumptions. Speeds that follow at 224 pixels: handheld 1.1 pixels and 0.1 degrees a frame, vehicle 3.7 pixels and 0.3
# degrees. The middle is 8 and 16 pixels away (standard deviations), and the exposure varies by 0.5, 1 and 3 per cent.
CAMERAS = {
    "static": CameraMotion(),
    "handheld": CameraMotion(0.0022, 0.04, 0.0006, 0.02, 0.002),
    "vehicle": CameraMotion(0.0071, 0.13, 0.0015, 0.05, 0.006),
}


def moving_clips(
    folder: Path, kind: str, px: int, frames: int, count: int = 0, seed: int = 0, scene: float = 0.0
) -> list[Clip]:
    """Clips of `frames` frames, each made of one picture of `folder/<class>/`, which is also its label.

    Args:
        folder: pictures to train on, or others to test with. What is made of them stays apart as they do.
        kind: one of `CAMERAS`.
        count: number of clips, each of another picture; 0 for all pictures.
        seed: of the choice of pictures and of all that happens in the clips.
        scene: mean frames until the scene becomes another picture of the same class; 0 for never.

    Raises:
        ValueError: an unknown kind.
        FileNotFoundError: a folder without pictures.
    """
    if kind not in CAMERAS:
        raise ValueError(f"camera {kind!r} received, one of {tuple(CAMERAS)} expected")
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in PICTURES)
    if not files:
        raise FileNotFoundError(f"{folder}: no pictures, {folder}/<class>/<picture>.jpg expected")
    chosen = np.random.default_rng(seed).permutation(len(files))[: count or None].tolist()

    def clip(index: int) -> Clip:
        path = files[index]
        others = [other for other in files if other.parent == path.parent]
        moving = partial(_moving, path, others if scene else [], CAMERAS[kind], px, frames, (seed, index), scene)
        return Clip(f"{kind}/{path.parent.name}/{path.stem}", path.parent.name, frames, moving)

    return [clip(index) for index in chosen]


def _moving(
    path: Path, others: list[Path], motion: CameraMotion, px: int, frames: int, seed: tuple[int, int], scene: float
) -> Iterator[Pixels]:
    stills = _scenes(path, others, round(MARGIN * px), np.random.default_rng((*seed, 1)), scene)
    return islice(camera_frames(stills, motion, px, np.random.default_rng(seed)), frames)


def _scenes(path: Path, others: list[Path], side: int, rng: np.random.Generator, scene: float) -> Iterator[Pixels]:
    still = load_square(path, side)
    while True:
        yield still
        if others and rng.random() < 1.0 / scene:
            still = load_square(others[rng.integers(len(others))], side)


def camera_frames(
    stills: Iterable[Pixels], motion: CameraMotion, px: int, rng: np.random.Generator
) -> Iterator[Pixels]:
    """Frames `[px, px, 3]` of a camera that looks at a still, which is larger than they are. `stills`: one a frame."""
    last_still = last_pose = seen = None
    movement = islice(zip(_path(motion, rng), _gains(motion, rng), strict=False), BEGUN, None)
    for still, (pose, gain) in zip(stills, movement, strict=False):
        if seen is None or still is not last_still or (pose != last_pose).any():
            last_still, last_pose, seen = still, pose, _view(still, pose, px)
        noise = np.rint(rng.standard_normal(seen.shape, dtype=np.float32) * (256 * motion.noise)).astype(np.int32)
        yield np.clip(((seen * gain >> 12) + noise + 128) >> 8, 0, 255).astype(np.uint8)


def _path(motion: CameraMotion, rng: np.random.Generator) -> Iterator[npt.NDArray[np.float64]]:
    """Where the camera looks in each frame: shift to the right and down, turn in radians, logarithm of the scale."""
    strength = np.array([motion.shift, motion.shift, math.radians(motion.turn), motion.zoom])
    furthest = np.array([FURTHEST, FURTHEST, math.radians(12.0), 0.15])
    speed, pose = np.zeros(4), np.zeros(4)
    while True:
        yield pose
        speed = KEPT_SPEED * speed + strength * rng.standard_normal(4) - motion.back * pose
        pose = np.clip(pose + speed, -furthest, furthest)


def _gains(motion: CameraMotion, rng: np.random.Generator) -> Iterator[int]:
    """Factor of each frame's brightness, in units of 1/4096."""
    level = 0.0
    while True:
        yield round(4096 * math.exp(level))
        level = KEPT_EXPOSURE * level + motion.exposure * rng.standard_normal()


def _view(still: Pixels, pose: npt.NDArray[np.float64], px: int) -> Ints:
    """The still seen from a pose, bilinear, in units of 1/256. The still goes on mirrored outside its edges.

    Coordinates are whole numbers of 1/65536 pixel. So no processor's way of rounding changes a pixel.
    """
    side = still.shape[0]
    right, down, turn, zoom = pose.tolist()
    a, b = (round(32768 * math.exp(-zoom) * f(turn)) for f in (math.cos, math.sin))
    steps = 2 * np.arange(px, dtype=np.int64) - (px - 1)
    middle = (side - 1) << 15
    x = a * steps[None, :] - b * steps[:, None] + middle + round(65536 * right * px)
    y = b * steps[None, :] + a * steps[:, None] + middle + round(65536 * down * px)
    (x0, fx), (y0, fy) = _parts(x), _parts(y)
    edges = [_mirrored(at, side) for at in (x0, x0 + 1, y0, y0 + 1)]
    left, right_, top, bottom = edges
    flat = still.reshape(-1, 3)

    def row(of: Any) -> Ints:
        near, far = (flat[of * side + at].astype(np.int32) for at in (left, right_))
        result: Ints = near * (256 - fx) + far * fx
        return result

    seen: Ints = (row(top) * (256 - fy) + row(bottom) * fy) >> 8
    return seen


def _parts(at: Any) -> tuple[Any, Ints]:
    """Whole pixels, and the rest in units of 1/256 `[px, px, 1]`."""
    return at >> 16, ((at >> 8) & 255).astype(np.int32)[..., None]


def _mirrored(at: Any, side: int) -> Any:
    """Positions inside the still, for those outside it as in a mirror at its edge."""
    period = 2 * side
    at = at % period
    return np.minimum(at, period - 1 - at)


def real_clips(folder: Path, px: int) -> list[Clip]:
    """Clips of a folder, squashed to `px`.

    A file `labels.csv` in the folder lists them, or one next to it, of which the rows inside the folder count. Columns:
    `path` (frames with a pattern such as `dog/%06d.jpg`, or a video file), `first`, `last`, `label`, and if wanted
    `set`, `clip`, `caltech101`, `split`, `stride`. Rows whose split is `train`, or whose frames are not consecutive,
    are left out. Without such a file, each folder of frames and each video file is a clip.

    Raises:
        FileNotFoundError: no clip in the folder.
    """
    listings = [where for where in (folder, folder.resolve().parent) if (where / LISTING).is_file()]
    clips = _listed(listings[0], folder.resolve(), px) if listings else _found(folder, px)
    if not clips:
        raise FileNotFoundError(f"{folder}: no clips, folders of frames or video files expected")
    return clips


def _listed(folder: Path, wanted: Path, px: int) -> list[Clip]:
    with (folder / LISTING).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    clips = []
    for row in rows:
        inside = (folder / row["path"]).resolve().is_relative_to(wanted)
        if not inside or row.get("split") == "train" or int(row.get("stride") or 1) != 1:
            continue
        name = "/".join(row[key] for key in ("set", "clip") if row.get(key)) or row["path"]
        label = row.get("caltech101") or row["label"] or None
        numbers = range(int(row["first"]), int(row["last"]) + 1)
        if "%" in row["path"]:
            paths = [path for number in numbers if (path := folder / (row["path"] % number)).is_file()]
            clips += [_of_pictures(name, label, paths, px)] if paths else []
        elif (folder / row["path"]).is_file():
            clips.append(_of_video(name, label, folder / row["path"], len(numbers), px))
    return clips


def _found(folder: Path, px: int) -> list[Clip]:
    """Clips in the order of their names. The frames of a folder are sorted by the numbers in their names."""
    clips = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            frames = sorted((p for p in path.iterdir() if p.suffix.lower() in PICTURES), key=_order)
            clips += [_of_pictures(name, None, frames, px)] if frames else []
        elif path.suffix.lower() in VIDEOS:
            clips.append(_of_video(name, None, path, sum(1 for _ in _video(path)), px))
    return clips


def _order(path: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"[0-9]+", path.stem)], path.name


def _of_pictures(name: str, label: str | None, paths: list[Path], px: int) -> Clip:
    return Clip(name, label, len(paths), lambda: (load_square(path, px) for path in paths))


def _of_video(name: str, label: str | None, path: Path, length: int, px: int) -> Clip:
    return Clip(name, label, length, lambda: (resized(pixels, px) for pixels in _video(path)))


def _video(path: Path) -> Iterator[Pixels]:
    """Frames of a video file in the order in which they are shown."""
    import av  # the extra `video`: clips of frames do not need it

    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
