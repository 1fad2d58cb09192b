"""The report of a profile: accuracy, bytes in comparison with JPEG, WebP and the plain feature, and speed.

tidesplit profile report --profile efficientnet_lite0 --plot docs/rate_accuracy.png
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from tidesplit.compression.codec.knobs import VIDEO_CODECS
from tidesplit.models.registry import build
from tidesplit.profiling.points.profile import OperatingPoint, Profile


def frontier(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Points that no other one beats in both bytes and accuracy, by rising bytes."""
    best: list[OperatingPoint] = []
    for point in sorted(points, key=lambda p: (p.bytes_mean, -p.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def stills(profile: Profile) -> list[OperatingPoint]:
    """The points at which a picture crosses as JPEG or WebP. Bytes of video depend on the scene."""
    return [p for p in profile.points if p.partition == 0 and p.stream is None]


def image_bytes_at(profile: Profile, accuracy: float) -> float:
    """Bytes at which the better of JPEG and WebP reaches an accuracy, log-linear between measured qualities.

    Infinite where neither reaches it. Never below the bytes of the cheapest quality.
    """
    front = frontier(stills(profile))
    if accuracy <= front[0].accuracy:
        return front[0].bytes_mean
    for low, high in itertools.pairwise(front):
        if accuracy <= high.accuracy:
            share = (accuracy - low.accuracy) / (high.accuracy - low.accuracy)
            return math.exp((1 - share) * math.log(low.bytes_mean) + share * math.log(high.bytes_mean))
    return math.inf


def plain_feature_bytes(profile: Profile, partition: int) -> int:
    """Bytes of the uncompressed float32 feature at a cut. A prepared CNN's profile has them, others' nets are built."""
    if "feature_bytes" in profile.cnn:
        return int(profile.cnn["feature_bytes"][str(partition)])
    net = build(profile.name, int(profile.cnn["classes"]))
    return 4 * math.prod(net.shape(partition))


def cheapest_within(points: Sequence[OperatingPoint], accuracy: float) -> OperatingPoint | None:
    """The point of fewest bytes that reaches an accuracy, if any does."""
    fine = [p for p in points if p.accuracy >= accuracy]
    return min(fine, key=lambda p: p.bytes_mean) if fine else None


def most_ahead(profile: Profile, partition: int) -> OperatingPoint | None:
    """The point of a cut that saves the largest share of the bytes that JPEG or WebP need for its accuracy.

    Only points between the least and the most accurate pictures can be compared.
    """
    pictures = frontier(stills(profile))
    low, high = pictures[0].accuracy, pictures[-1].accuracy
    fair = [p for p in profile.points if p.partition == partition and low <= p.accuracy <= high]
    return max(fair, key=lambda p: image_bytes_at(profile, p.accuracy) / p.bytes_mean, default=None)


def _line(point: OperatingPoint, full: OperatingPoint) -> str:
    low, high = point.accuracy_ci95
    lost = 100 * (full.accuracy - point.accuracy)
    return (
        f"{point.id}: {100 * point.accuracy:.2f} % [{100 * low:.2f}, {100 * high:.2f}], {lost:+.2f} points lost, "
        f"{point.bytes_mean:.0f} bytes"
    )


def _cut_lines(profile: Profile, full: OperatingPoint) -> list[str]:
    """For each partition: best within 1,000 and 500 bytes, most ahead of pictures, cheapest within one point lost."""
    lines = []
    for partition in range(1, profile.partitions):
        points = [p for p in profile.points if p.partition == partition]
        share = max(p.head_macs for p in points) / full.head_macs
        lines.append(f"partition {partition}: head {100 * share:.0f} % of the compute at full width")
        for limit in (1000, 500):
            cheap = [p for p in points if p.bytes_mean <= limit]
            if cheap:
                lines.append(f"  within {limit} bytes   {_line(max(cheap, key=lambda p: p.accuracy), full)}")
        ahead = most_ahead(profile, partition)
        if ahead is not None:
            times = image_bytes_at(profile, ahead.accuracy) / ahead.bytes_mean
            lines.append(
                f"  most ahead of pictures, {times:.1f}x fewer bytes at the same accuracy   {_line(ahead, full)}"
            )
        near = cheapest_within(points, full.accuracy - 0.01)
        if near is None:
            lines.append("  no point within 1.0 points of the uncut net")
            continue
        image, plain = image_bytes_at(profile, near.accuracy), plain_feature_bytes(profile, partition)
        lines.append(f"  within 1.0 points    {_line(near, full)}")
        lines.append(
            f"    {image / near.bytes_mean:.1f}x fewer bytes than the better of JPEG and WebP at the same accuracy, "
            f"{plain / near.bytes_mean:.0f}x fewer than the float32 feature ({plain} bytes)"
        )
    return lines


def _run_lines(profile: Profile) -> list[str]:
    """Milliseconds and joules of each whole CNN on each machine. Joules have the idle machine's in them."""
    nets = [point.id for point in profile.points if point.codec == "none"]
    width = max(map(len, profile.devices), default=0)
    lines = [f"one run, ms (J): {', '.join(nets)}"]
    for label, table in profile.devices.items():
        seconds = [table.timings[net].head_s for net in nets]
        joules = [f" ({s * table.power.busy_w:.3f})" if table.power else "" for s in seconds]
        times = "  ".join(f"{1e3 * s:.1f}{j}" for s, j in zip(seconds, joules, strict=True))
        by = f"{table.engine}, {table.threads} threads, {table.provenance.kind}"
        lines.append(f"  {label:{width}s}  {times}  {by}")
    return lines


def report(profile: Profile) -> str:
    """The report as text."""
    full = profile.point("device-c1.00")
    lines = [f"{profile.name}, n = {full.n}, 95 % intervals in brackets", "", "whole CNN on the device"]
    for point in profile.points:
        if point.codec == "none":
            lines.append(f"  {_line(point, full)}; {point.head_macs / 1e6:.0f} M multiply-accumulates")
    lines += ["", *_run_lines(profile)]
    lines += ["", "image offload"]
    lines += [f"  {_line(p, full)}" for p in frontier(stills(profile))]
    if videos := [p for p in profile.points if p.codec in VIDEO_CODECS]:
        lines += ["", "video, bytes relative to the frame before", *(f"  {_line(p, full)}" for p in frontier(videos))]
    lines += ["", *_cut_lines(profile, full)]
    return "\n".join(lines)


def plot(profile: Profile, path: Path) -> None:
    """Rate-accuracy curves of JPEG, WebP and every cut, with 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.8), layout="constrained")
    groups = [(name, [p for p in profile.points if p.codec == name]) for name in ("jpeg", "webp")]
    groups += [
        (f"cut {p}", [q for q in profile.points if q.partition == p and q.channel_ratio == 1.0])
        for p in range(1, profile.partitions)
    ]
    for name, points in groups:
        front = frontier(points)
        accuracy = [100 * p.accuracy for p in front]
        errors = [
            [100 * (p.accuracy - p.accuracy_ci95[0]) for p in front],
            [100 * (p.accuracy_ci95[1] - p.accuracy) for p in front],
        ]
        line, marker = ("--", "s") if name in ("jpeg", "webp") else ("-", "o")
        size = [p.bytes_mean for p in front]
        label = name.upper() if name == "jpeg" else "WebP" if name == "webp" else name
        axes.errorbar(size, accuracy, errors, label=label, capsize=2, markersize=4, linestyle=line, marker=marker)
    full = 100 * profile.point("device-c1.00").accuracy
    axes.axhline(full, color="grey", linewidth=0.8, label="uncut, nothing compressed")
    axes.set(xscale="log", xlabel="mean bytes on the wire", ylabel="top-1, %", ylim=(max(40.0, full - 25), full + 2))
    axes.set_title(f"{profile.name}: {profile.cnn['dataset']}, n = {profile.point('device-c1.00').n}, full-width heads")
    axes.grid(alpha=0.3)
    axes.legend(ncols=2, fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
