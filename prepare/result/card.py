"""A page about a prepared net: what it was made of, what its cuts lose, and where a picture does as well."""

from __future__ import annotations

from collections.abc import Mapping

from tidesplit.compression.codec.knobs import VIDEO_CODECS
from tidesplit.prepare.chosen_cuts import share_of
from tidesplit.prepare.cut_net import CutNet
from tidesplit.prepare.result.judged import UNCUT, Judged
from tidesplit.prepare.source.folder_pictures import FolderPictures
from tidesplit.prepare.source.preprocessing import Preprocess
from tidesplit.prepare.task import Task, Words
from tidesplit.profiling.measuring.claims import stills
from tidesplit.profiling.points.profile import AGES, OperatingPoint, Profile
from tidesplit.profiling.streams.clip_counts import COMPARED
from tidesplit.runtime.wire.output_tensors import AnswerForm

CARD_FILE = "card.md"
SHOWN_AGES = (1, 4, 16)
SMALL_BYTES = 500
"""The last line of a preparation names the best cut of at most so many bytes."""


def card(
    profile: Profile, counts: Mapping[str, Judged], net: CutNet, pictures: FolderPictures, task: Task,
    preprocess: Preprocess, command: str, training: str,
) -> str:  # fmt: skip
    """The page, in Markdown. ``training``: how many steps were done."""
    words = task.words
    lines = [
        f"# {profile.name}", "", f"Made by `{command}`.", "",
        f"- {_answers(task.form)}, pictures of {preprocess.size} x {preprocess.size}"
        f" pixels, {preprocess.colours}, mean {list(preprocess.mean)}, std {list(preprocess.std)}",
        f"- weights `{str(profile.cnn['weights_sha256'])[:16]}`",
        f"- fitted to {len(pictures.fit)} pictures, measured on {len(pictures.held)} others",
        f"- trained {training}",
        f"- the figures are {words.meaning}, with a 95 % interval",
        f"- uncut net: {profile.point(UNCUT).accuracy:.1%}",
        *_of_server(profile, net),
        "- *gain*: points more than the uncut net on the same pictures, with a 95 % interval",
        f"- *same answer*: {words.same}",
        "- *instead*: a picture of no more bytes that answers as well as the cut; take it where the server has time",
        "",
        f"| point | after | of the compute | bytes | {words.measure} | interval | gain | same answer | instead |",
        "|---|---|---:|---:|---:|---|---:|---:|---|",
    ]  # fmt: skip
    rows = [_row(point, profile, counts[point.id], net) for point in profile.points if point.stream is None]
    return "\n".join([*lines, *rows, *_video(profile, words)]) + "\n"


def _video(profile: Profile, words: Words) -> list[str]:
    """A table of video's points, where there are any."""
    points = [point for point in profile.points if point.codec in VIDEO_CODECS]
    if not points:
        return []
    rows = []
    for point in points:
        assert point.stream is not None
        ages = [f"{point.stream.by_age[AGES.index(age)]:.0f}" for age in SHOWN_AGES]
        low, high = point.accuracy_ci95
        figures = [*ages, f"{point.stream.key:.0f}", f"{point.accuracy:.1%}", f"{low:.1%} to {high:.1%}"]
        rows.append(f"| `{point.id}` | {' | '.join(figures)} |")
    frames = " | ".join(f"{age} frame{'s' if age > 1 else ''}" for age in SHOWN_AGES)
    return [
        "", f"Video. Its {words.measure} is that of `{COMPARED}` less what video loses on {points[0].n} frames of a"
        " moving camera. Bytes by the time since the frame before:", "",
        f"| point | {frames} | key | {words.measure} | interval |",
        f"|---|{'---:|' * (len(SHOWN_AGES) + 2)}---|", *rows,
    ]  # fmt: skip


def _answers(form: AnswerForm) -> str:
    """What an answer is, in a few words."""
    if form.classes:
        return f"{len(form.classes)} classes"
    return "answers " + ", ".join(f"`{name}` {list(shape)}" for name, shape in form.shapes.items())


def _of_server(profile: Profile, net: CutNet) -> list[str]:
    if net.server is None:
        return []
    times = net.server.macs / sum(net.traced.macs.values())
    name = profile.cnn["server_net"]["net"]
    return [f"- pictures are answered by `{name}`: {times:.1f} times the compute, at {net.server.own_px} pixels"]


def _row(point: OperatingPoint, profile: Profile, judged: Judged, net: CutNet) -> str:
    where = share = instead = ""
    if point.codec == "feature":
        cut, rival = net.cuts[point.partition - 1], as_good_picture(point, profile)
        where, share = f"`{cut.name}`", f"{share_of(cut):.0%}"
        instead = f"`{rival.id}`, {rival.accuracy:.1%}" if rival else ""
    low, high = point.accuracy_ci95
    figures = f"{point.bytes_mean:.0f} | {point.accuracy:.1%} | {low:.1%} to {high:.1%} | {_gain(judged)}"
    return f"| `{point.id}` | {where} | {share} | {figures} | {judged.same / judged.n:.1%} | {instead} |"


def _gain(judged: Judged) -> str:
    mean, half = judged.gain()
    return f"{100 * mean:+.1f} ± {100 * half:.1f}"


def as_good_picture(cut: OperatingPoint, profile: Profile) -> OperatingPoint | None:
    """The best picture of at most a cut's bytes, where it is at least as accurate as the cut."""
    fit = [p for p in stills(profile) if p.bytes_mean <= cut.bytes_mean]
    best = max(fit, key=lambda p: p.accuracy, default=None)
    return best if best is not None and best.accuracy >= cut.accuracy else None


def summary(profile: Profile, counts: Mapping[str, Judged], words: Words) -> str:
    """The best cut of few bytes, how many cuts a picture of no more bytes beats, and the best video of few bytes."""
    cuts = [p for p in profile.points if p.codec == "feature"]
    beaten = [p for p in cuts if as_good_picture(p, profile)]
    small = [p for p in cuts if p.bytes_mean <= SMALL_BYTES]
    said = f"no cut takes {SMALL_BYTES} bytes or fewer"
    if small:
        best = max(small, key=lambda p: p.accuracy)
        judged = counts[best.id]
        said = (
            f"best cut of at most {SMALL_BYTES} bytes: {best.id}, {best.bytes_mean:.0f} bytes, {_gain(judged)} points "
            f"to the uncut net on {judged.n} pictures, {words.brief} {judged.same / judged.n:.1%}"
        )
    said += f"; a picture of no more bytes does as well as {len(beaten)} of {len(cuts)} points at cuts"
    videos = [p for p in profile.points if p.codec in VIDEO_CODECS and p.bytes_mean <= SMALL_BYTES]
    if videos:
        best = max(videos, key=lambda p: p.accuracy)
        said += (
            f"; video of a moving camera: {best.id}, {best.bytes_mean:.0f} bytes, {words.measure} {best.accuracy:.1%}"
        )
    return said
