"""Bytes and accuracy of operating points on clips, through the real codecs: streams, and stateless points to compare.

A stream is run once for each age in AGES: a run gets every age-th frame of the clip, so each payload's reference is
that many frames old. The server's answers are judged on a few frames of the runs of ages 1 and 8, on which the same
frames are judged for the point that it is compared with: a cut without memory, or JPEG of quality 95 for video. The
difference is what the stream loses. Frames of one clip resemble each other, so intervals count clips, not frames.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tidesplit.compression.codec.image_codec import CODECS
from tidesplit.compression.codec.knobs import CUT, FLOAT32, INT8, VIDEO_CODECS, cut_id, read_knobs, stream_of
from tidesplit.compression.codec.pixels import Pixels
from tidesplit.profiling.measuring.spread import run_chunks
from tidesplit.profiling.measuring.trained import ImagePoint, Trained, load_trained
from tidesplit.profiling.points.profile import AGES
from tidesplit.profiling.streams.clip_counts import KEY, ClipCounts, comparable
from tidesplit.profiling.streams.clip_nets import ClipHeads, answers
from tidesplit.profiling.streams.clip_source import LENGTH, ClipSource
from tidesplit.profiling.streams.senders import CutSender, ImageSender, MemorySender, Sender, VideoSender

CHUNK = 4  # clips: some seconds of work
SETTLED = 8  # payloads of earlier frames do not count: the key frame's quality still helps them
JUDGED = {1: (8, 16, 24), 8: (64,)}  # frames whose answers count, by the age of the run
LAST = {1: 24, 2: 32}  # last frame of a run by age, 64 of the others: as many payloads of each age as heads allow
COUNTED = 2  # version of the counts in the file of finished chunks
UNCUT = "uncut"  # the whole CNN on the server, on the frames as they are
# Made smaller to 160 pixels, video loses as much at equal bytes, and takes twice as long to encode.
VIDEO_POINTS = tuple(ImagePoint(codec, quality) for codec in VIDEO_CODECS for quality in (26, 30, 34, 38))


def measure_streams(
    name: str, source: ClipSource, points: Sequence[str], kept: Path, jobs: int, ray: str | None = None,
    weights: Path | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of the points asked for, those that they are compared with, and the uncut net.

    Where every clip's label is a class of the CNN, an answer is right where it is the label. Otherwise it is right
    where it is the uncut net's own answer to the frame as it is, and the measure is called agreement.

    Args:
        kept: file of finished chunks.
        jobs: processes.
        ray: address of a Ray cluster to run on instead.

    Raises:
        ValueError: a point that the CNN does not have.
        FileNotFoundError: no clip.
    """
    trained = load_trained(name, weights)
    wanted = list(dict.fromkeys([*map(comparable, points), *points]))
    for point_id in wanted:
        _check(point_id, trained)
    clips = source.clips(trained.system.net.input_px)
    measure = "accuracy" if all(clip.label in trained.classes for clip in clips) else "agreement"
    threads = max(1, torch.get_num_threads() // max(1, jobs))
    key = hashlib.sha256(json.dumps([COUNTED, trained.sha256, wanted, str(source), measure]).encode()).hexdigest()
    spans = [(i, min(i + CHUNK, len(clips))) for i in range(0, len(clips), CHUNK)]
    arguments = [(name, weights, source, span, wanted, measure, threads) for span in spans]
    counts: dict[str, ClipCounts] = defaultdict(lambda: ClipCounts([], {}))
    for found in run_chunks(_chunk, arguments, kept, key, jobs, ray):
        for point_id, some in found.items():
            counts[point_id].add(ClipCounts(**some))
    return [counts[point_id].row(point_id, source.name, measure) for point_id in (UNCUT, *wanted)]


def _check(point_id: str, trained: Trained) -> None:
    memory = trained.codec.wire.changes
    known = {point.id for point in (*VIDEO_POINTS, *trained.image_points)}
    for precision in trained.precisions:
        known |= {cut_id(k, precision) for k in trained.knobs}
        known |= {cut_id(k, precision, stream=True) for k in trained.knobs if (k.partition, k.bits) in memory}
    if point_id not in known:
        raise ValueError(f"no operating point {point_id!r} for clips; there is, for example, {VIDEO_POINTS[0].id!r}")


def _chunk(
    name: str, weights: Path | None, source: ClipSource, span: tuple[int, int], wanted: list[str], measure: str,
    threads: int,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Tallies of a few clips as plain values."""
    torch.set_num_threads(threads)
    trained = load_trained(name, weights)
    counts: dict[str, ClipCounts] = defaultdict(lambda: ClipCounts([], {}))
    for clip in source.clips(trained.system.net.input_px)[slice(*span)]:
        label = trained.classes.index(clip.label) if measure == "accuracy" and clip.label else None
        for point_id, count in _clip(name, weights, list(clip.frames()), label, wanted).items():
            counts[point_id].add(count)
    return {point_id: {"clips": t.clips, "sizes": t.sizes} for point_id, t in counts.items()}


@dataclass
class Sent:
    """What a point sent of a clip: the tail's inputs at the judged frames, and the sizes by age."""

    partition: int
    arrived: dict[int, Any]
    sizes: dict[str, list[int]]


def _clip(
    name: str, weights: Path | None, frames: list[Pixels], label: int | None, wanted: list[str]
) -> dict[str, ClipCounts]:
    sent = {UNCUT: Sent(0, {k: frames[k] for ks in JUDGED.values() for k in ks if k < len(frames)}, {})}
    heads = ClipHeads(name, weights, frames, sorted({k for age in AGES for k in _frames_of(age, len(frames))}))
    for point_id in wanted:
        sent[point_id] = sent_over(point_id, opener(name, weights, point_id, frames, heads), len(frames))
    found = {point_id: _answers(name, weights, one) for point_id, one in sent.items()}
    target = np.array(label) if label is not None else found[UNCUT]
    right = {point_id: found[point_id] == target for point_id in sent}
    return {
        point_id: ClipCounts.of(
            [len(ok), *(int(right[i].sum()) for i in (point_id, comparable(point_id), UNCUT))], sent[point_id].sizes
        )
        for point_id, ok in right.items()
    }


def sent_over(point_id: str, opened: Callable[[], Sender], length: int) -> Sent:
    """What a point sends of a clip of so many frames. ``opened``: opens a new stream over them."""
    partition = 0 if point_id.startswith("p0-") else read_knobs(point_id).partition
    sent = Sent(partition, {}, defaultdict(list))
    if not stream_of(point_id):
        sender = opened()
        for k in (k for ks in JUDGED.values() for k in ks if k < length):
            payload = sender.send(k, True)
            sent.sizes[KEY].append(len(payload))
            sent.arrived[k] = sender.receive(payload)
        return sent
    for age in AGES:
        _run(sent, opened(), age, _frames_of(age, length))
    return sent


def _frames_of(age: int, length: int) -> range:
    """The frames of a clip of so many that a run sends."""
    return range(0, min(length, LAST.get(age, LENGTH - 1) + 1), age)


def _run(sent: Sent, sender: Sender, age: int, frames: range) -> None:
    """One run of a stream over a clip. That of age 1 ends with a key, as after a break."""
    judged = JUDGED.get(age, ())
    for k in frames:
        payload = sender.send(k, k == 0)
        if k >= SETTLED:
            sent.sizes[str(age)].append(len(payload))
        if judged and k <= max(judged):
            value = sender.receive(payload)
            if k in judged:
                sent.arrived[k] = value
    if age == 1:
        sent.sizes[KEY].append(len(sender.send(frames[-1], True)))


def opener(
    name: str, weights: Path | None, point_id: str, frames: Sequence[Pixels], heads: ClipHeads
) -> Callable[[], Sender]:
    """A function that opens a new stream of a point over a clip's frames."""
    if CUT.fullmatch(point_id):
        knobs, codec = read_knobs(point_id), load_trained(name, weights).codec.wire
        values = heads.of(knobs, INT8 if "-i8" in point_id else FLOAT32)
        return partial(MemorySender if stream_of(point_id) else CutSender, values, codec, knobs)
    points = {p.id: p for p in (*VIDEO_POINTS, *load_trained(name, weights).image_points)}
    point = points[point_id]
    kind: Any = ImageSender if point.codec in CODECS else VideoSender
    return partial(kind, frames, point.codec, point.quality, point.px)


def _answers(name: str, weights: Path | None, sent: Sent) -> Any:
    """Classes that the server answers to the judged frames in their order."""
    return answers(name, weights, sent.partition, [sent.arrived[k] for k in sorted(sent.arrived)])


def stream_ids(trained: Trained) -> list[str]:
    """The points of streams that a profile gets unless others are named: video, and cuts that have memory."""
    codec = trained.codec.wire
    cuts = [k for k in trained.knobs if (k.partition, k.bits) in codec.changes and k.region == 1.0]
    return [point.id for point in VIDEO_POINTS] + [cut_id(knobs, stream=True) for knobs in cuts]
