"""Where clips to measure on come from: a folder of real ones, or a camera's model and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from tidesplit.compression.codec.pixels import Pixels
from tidesplit.compression.pictures.clips import CAMERAS, Clip, moving_clips, real_clips

LENGTH = 65  # frames of a clip, two payloads at the largest age; a longer one is cut into several
SHORTEST = 9  # frames that a clip must have: the first that is judged is number 8
WINDOWS = 4  # of one clip at most, so that a long clip does not outweigh others


@dataclass(frozen=True)
class ClipSource:
    """Where clips come from.

    Args:
        folder: real clips, or with a `kind` pictures to make clips of.
        kind: a camera of `CAMERAS`; empty for real clips.
        limit: number of clips; 0 for all.
        sets: sub-folders that count, of a folder of real clips; empty for all.
    """

    folder: Path
    kind: str = ""
    limit: int = 0
    sets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name in tables."""
        return self.kind or self.folder.name

    def clips(self, px: int) -> list[Clip]:
        """The clips, in an order that does not depend on the limit."""
        if self.kind:
            return moving_clips(self.folder, self.kind, px, LENGTH, self.limit)
        clips = [c for name in self.sets for c in real_clips(self.folder / name, px)] or real_clips(self.folder, px)
        return [window for clip in clips for window in _windows(clip)][: self.limit or None]


def _windows(clip: Clip) -> list[Clip]:
    """Parts of a clip, of which the last may be shorter. One that is too short to be judged is left out."""
    starts = [start for start in range(0, clip.length, LENGTH) if clip.length - start >= SHORTEST][:WINDOWS]

    def frames(start: int) -> Iterator[Pixels]:
        return islice(clip.frames(), start, start + LENGTH)

    return [Clip(f"{clip.name}@{s}", clip.label, min(LENGTH, clip.length - s), partial(frames, s)) for s in starts]


def source_of(text: str, images: Path | None, limit: int) -> ClipSource:
    """The source that `--stream` names.

    Raises:
        ValueError: a kind of camera without pictures, or neither a kind nor a folder.
    """
    if text in CAMERAS:
        if images is None:
            raise ValueError(f"--stream {text} makes clips of pictures: name their folder with --images")
        return ClipSource(images, text, limit)
    if not Path(text).is_dir():
        raise ValueError(f"--stream {text!r} received, a folder of clips or one of {tuple(CAMERAS)} expected")
    return ClipSource(Path(text), "", limit)
