"""What video costs and loses of a prepared net: clips of a moving camera that looks at the pictures that judge.

Bytes and losses are those of `profiling.streams`, by the models that device and server run. The profile's bytes are
those of a camera on a vehicle, and a device learns from its own payloads how much its scene moves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice, repeat
from typing import Any

import numpy as np

from tidesplit.compression.codec.pixels import Pixels
from tidesplit.compression.codec.video import VideoEncoder
from tidesplit.compression.pictures.clips import CAMERAS, MARGIN, camera_frames
from tidesplit.prepare.result.judged import Judge
from tidesplit.prepare.source.folder_pictures import FolderPictures
from tidesplit.prepare.task import Task
from tidesplit.profiling.points.profile import Profile
from tidesplit.profiling.streams.clip_counts import COMPARED, ClipCounts
from tidesplit.profiling.streams.clip_rows import COUNTED, JUDGED, VIDEO_POINTS, Sent, sent_over
from tidesplit.profiling.streams.clip_source import LENGTH
from tidesplit.profiling.streams.senders import ImageSender, VideoSender
from tidesplit.profiling.streams.stream_points import with_streams

CAMERA, CLIPS = "vehicle", 50
FILMED = [CAMERA, CLIPS, COUNTED, [point.id for point in VIDEO_POINTS]]
"""What the rows depend on, but for the net and its pictures."""
MOST_BYTES = 2**29  # of frames of all clips that are at work


def why_not(px: int) -> str | None:
    """Why there is no video of pictures of this side here; None where there is."""
    if px % 2:
        return f"H.264 takes even sides only, and the net's is {px}"
    try:
        VideoEncoder(VIDEO_POINTS[0].codec, VIDEO_POINTS[0].quality, px)
    except ImportError as error:
        return str(error)
    return None


def film(
    judge_of: Judge, pictures: FolderPictures, task: Task, px: int, crop: float, threads: int = 1,
    say: Callable[[float], None] = lambda _: None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of video's points, for `profiling.streams.stream_points.with_streams`."""
    stills = pictures.to_film(px, MARGIN, crop, CLIPS).images
    counts: dict[str, ClipCounts] = defaultdict(lambda: ClipCounts([], {}))
    threads = min(threads, max(1, MOST_BYTES // (LENGTH * 3 * px * px)))
    with ThreadPoolExecutor(threads) as pool:
        task = task.knowing(lambda: pool.map(judge_of.reference, list(pictures.to_judge(px, crop).images)))
        one = partial(_clip, judge_of, task, px)
        for done, found in enumerate(pool.map(one, range(len(stills)), list(stills)), start=1):
            for point, some in found.items():
                counts[point].add(some)
            say(done / len(stills))
    return [counts[point.id].row(point.id, CAMERA, task.words.measure) for point in VIDEO_POINTS]


def with_video(profile: Profile, rows: Sequence[Mapping[str, Any]]) -> Profile:
    """The profile with video's points. It has no times yet."""
    origin = profile.accuracy_provenance
    source = f"{origin.source}: clips of a camera on a {CAMERA} over the pictures that judge"
    made = replace(origin, source=source, n=min(row["n"] for row in rows), spread="95 %, from clip to clip")
    return with_streams(profile, rows, {}, made)


def _clip(judge_of: Judge, task: Task, px: int, number: int, still: Pixels) -> dict[str, ClipCounts]:
    """Counts of video's points on the clip of one picture."""
    moving = camera_frames(repeat(np.asarray(still)), CAMERAS[CAMERA], px, np.random.default_rng((0, number)))
    frames = list(islice(moving, LENGTH))
    judged = sorted(k for of_age in JUDGED.values() for k in of_age)
    references = {k: judge_of.reference(frames[k]) for k in judged}
    expected = {k: task.expected(number, partial(references.__getitem__, k)) for k in judged}

    def score(values: Mapping[int, Any]) -> float:
        return sum(task.score(task.answer(of), expected[k]) for k, of in values.items())

    def arrived(sent: Sent) -> float:
        return score({k: judge_of.reference(pixels) for k, pixels in sent.arrived.items()})

    sent: dict[str, Sent] = {
        COMPARED: sent_over(COMPARED, partial(ImageSender, frames, "jpeg", 95, None), LENGTH),
        **{p.id: sent_over(p.id, partial(VideoSender, frames, p.codec, p.quality, p.px), LENGTH) for p in VIDEO_POINTS},
    }
    uncut, base = score(references), arrived(sent[COMPARED])
    return {
        point.id: ClipCounts.of([len(judged), arrived(sent[point.id]), base, uncut], sent[point.id].sizes)
        for point in VIDEO_POINTS
    }
