"""Pictures of a run: frames of clips, all made before the run, so that making them takes no time from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from tidesplit.compression.codec.pixels import to_input
from tidesplit.compression.pictures.clips import CAMERAS, Clip, moving_clips, real_clips
from tidesplit.runtime.camera.picture import Picture
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.models import tail_name

LENGTH = 200  # frames of a clip that is made of one picture


def clip_pictures(names: Sequence[str], images: Path, server: Cnn, frames: int) -> list[Picture]:
    """Frames of clips one after another, over and over. The scene changes where two clips meet.

    The label of a frame is the class of its clip where all clips have one of the CNN's. Otherwise it is the answer of
    the uncut net to the frame as it is.

    Args:
        names: cameras, by which clips are made of pictures, or folders of clips.
        images: pictures, one folder per class.
        server: the CNN with the tail of partition 0.
        frames: number of them.
    """
    clips = [clip for name in names for clip in _clips(name, images, server.input_px, frames)]
    pictures = list(islice(_frames(clips), frames))
    if all(clip.label in server.classes for clip in clips):
        return pictures
    uncut = server.session(tail_name(0))
    answers = [int(np.argmax(uncut.run(None, {"x": to_input(p.pixels)})[0][0])) for p in pictures]
    return [replace(p, label=server.classes[answer]) for p, answer in zip(pictures, answers, strict=True)]


def _clips(name: str, images: Path, px: int, frames: int) -> list[Clip]:
    if name in CAMERAS:
        return moving_clips(images, name, px, LENGTH, count=-(-frames // LENGTH))
    return real_clips(Path(name), px)


def _frames(clips: Sequence[Clip]) -> Iterator[Picture]:
    for clip in cycle(clips):
        for number, pixels in enumerate(clip.frames()):
            yield Picture(pixels, f"{clip.name}/{number}", clip.label)
