"""Streams as points of a profile: accuracy on still pictures less what the stream loses, and times of the codec."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tidesplit.compression.codec.knobs import stream_of
from tidesplit.profiling.measuring.clock import time_interleaved
from tidesplit.profiling.measuring.trained import load_trained
from tidesplit.profiling.points.profile import DeviceTable, OperatingPoint, Profile, Provenance, StreamBytes
from tidesplit.profiling.streams.clip_counts import comparable
from tidesplit.profiling.streams.clip_nets import ClipHeads
from tidesplit.profiling.streams.clip_rows import VIDEO_POINTS, opener
from tidesplit.profiling.streams.stream_work import FRAMES, ends, film

Times = Mapping[str, tuple[float, float]]
"""Seconds to encode and to decode, by point id."""
ROUNDS, RUNS = 5, 5


def codec_times(name: str, weights: Path | None, rows: Iterable[Mapping[str, Any]]) -> Times:
    """Times on this machine of the streams in `rows` and of the points that they are compared with."""
    ids = dict.fromkeys(row[key] for row in rows if "against" in row for key in ("against", "id"))
    frames = film(load_trained(name, weights).system.net.input_px)
    heads = ClipHeads(name, weights, frames, range(FRAMES))
    work: dict[str, Callable[[], object]] = {}
    for point_id in ids:
        both = ends(opener(name, weights, point_id, frames, heads), picture=point_id.startswith("p0-"))
        work |= {f"encode {point_id}": both.encode, f"decode {point_id}": both.decode}
    found = time_interleaved(work, ROUNDS, RUNS)
    return {i: (found[f"encode {i}"].quiet_s, found[f"decode {i}"].quiet_s) for i in ids}


def with_streams(profile: Profile, rows: Sequence[Mapping[str, Any]], times: Times, provenance: Provenance) -> Profile:
    """The profile with the points of the streams in `rows`, in place of those of the same name.

    Points of one stream share their dead zone, and lose about the same. So each gets the mean of their losses, never a
    gain. Single differences of a few hundred frames are mostly chance, and a policy would choose the luckiest.

    Every device gets their times: head, tail and finish are those of the point that the stream is compared with.
    Encoding and decoding were timed on this machine for both points, and the ratio of the two is taken for all devices.

    Raises:
        ValueError: rows that say nothing of accuracy or of an age, or without the point that they are compared with.
    """
    streams = [row for row in rows if "against" in row]
    lost = _losses(streams)
    measure = profile.cnn.get("measure", "accuracy")
    made = [_point(profile.point(row["against"]), row, lost[stream_of(row["id"])], measure) for row in streams]
    ids = {point.id for point in made}
    against = {row["id"]: row["against"] for row in streams}
    return replace(
        profile,
        points=(*(p for p in profile.points if p.id not in ids), *made),
        devices={label: _timed(table, against, times) for label, table in profile.devices.items()},
        stream_provenance=provenance,
    )


def _losses(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Accuracy lost by each stream."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(stream_of(row["id"]), []).append(row["lost"])
    return {stream: max(0.0, math.fsum(lost) / len(lost)) for stream, lost in found.items()}


def _point(base: OperatingPoint, row: Mapping[str, Any], lost: float, measure: str) -> OperatingPoint:
    if row["measure"] != measure:
        raise ValueError(f"{row['clips']} has no labels of the CNN's classes: {row['measure']} is no {measure}")
    if None in row["bytes_by_age"]:
        raise ValueError(f"{row['clips']}: the clips are too short for the bytes of {row['id']} at all ages")
    half = (row["lost_ci95"][1] - row["lost_ci95"][0]) / 2
    low, high = (math.hypot(edge - base.accuracy, half) for edge in base.accuracy_ci95)
    accuracy = _share(base.accuracy - lost)
    return replace(
        base, id=row["id"], accuracy=accuracy, accuracy_ci95=(_share(accuracy - low), _share(accuracy + high)),
        bytes_mean=row["bytes_by_age"][0], bytes_std=row["bytes_std"], n=row["n"],
        stream=StreamBytes(by_age=tuple(row["bytes_by_age"]), key=row["bytes_key"]), **_video(row["id"]),
    )  # fmt: skip


def with_streams_of(before: Profile, made: Profile) -> Profile:
    """The profile `made`, of stills measured again, with the streams that it had `before`.

    Each loses as much accuracy as before against the point that it is compared with. Streams of other weights are left
    out, and those without this point or without their fallback.
    """
    if before.cnn.get("weights_sha256") != made.cnn.get("weights_sha256"):
        return made
    now, then = ({p.id: p.accuracy for p in profile.points} for profile in (made, before))
    common = now.keys() & then.keys()
    kept = [
        _moved(p, now[comparable(p.id)] - then[comparable(p.id)])
        for p in before.points
        if p.stream is not None and comparable(p.id) in common and (p.fallback is None or p.fallback in now)
    ]
    provenance = before.stream_provenance if kept else None
    return replace(made, points=(*made.points, *kept), stream_provenance=provenance)


def _moved(point: OperatingPoint, by: float) -> OperatingPoint:
    low, high = (_share(edge + by) for edge in point.accuracy_ci95)
    return replace(point, accuracy=_share(point.accuracy + by), accuracy_ci95=(low, high))


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def _video(point_id: str) -> dict[str, Any]:
    """The columns in which a video's point differs from a picture's."""
    found = next((point for point in VIDEO_POINTS if point.id == point_id), None)
    return {} if found is None else {"codec": found.codec, "bits": found.quality, "resolution": found.px}


def _timed(table: DeviceTable, against: Mapping[str, str], times: Times) -> DeviceTable:
    timings = dict(table.timings)
    for point_id, base in against.items():
        known = table.timings[base]
        encode, decode = (here / there for here, there in zip(times[point_id], times[base], strict=True))
        timings[point_id] = replace(known, encode_s=known.encode_s * encode, decode_s=known.decode_s * decode)
    return replace(table, timings=timings)
