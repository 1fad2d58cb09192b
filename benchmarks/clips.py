"""Bytes against accuracy on clips: JPEG, WebP, video, and every cut with and without memory.

python benchmarks/clips.py --pictures DIR --video DIR     # measures, writes clips.json and docs/clips.png
python benchmarks/clips.py                                # table and plot of the clips.json that there is

DIR of --pictures has one folder of test pictures a class, of which the cameras static, handheld and vehicle make clips.
DIR of --video has a labels.csv and real clips as JPEG frames. Static cameras and pans are never averaged. Video files
are left out: what was coded between frames before flatters every codec with memory. Where the CNN's classes do not fit,
the share is agreement with the uncut net's own answers. An interrupted run goes on where it stopped.

"below uncut" compares with the uncut net, and "lost" with the same cut without memory, or video with JPEG of quality
95. Both compare answers to the same frames, so their intervals are narrower than those of two shares.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

from tidesplit.compression.codec.knobs import BITS, RATIOS, Knobs, cut_id, partition_of, stream_of
from tidesplit.compression.pictures.clips import CAMERAS
from tidesplit.profiling.measuring.trained import load_trained
from tidesplit.profiling.streams.clip_rows import UNCUT, VIDEO_POINTS, measure_streams
from tidesplit.profiling.streams.clip_source import ClipSource

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first: there may be no display
from matplotlib.axes import Axes

HERE = Path(__file__).resolve().parent
CNN = "efficientnet_lite0"
CLIPS = 100  # of each camera: 400 frames, on which a loss of one point stands out where answers agree
REAL = {"pavement": ("fod",), "static cameras": ("cdnet", "otb", "pets09"), "pans": ("davis16",)}
STILL = ("p0-jpeg-q10", "p0-jpeg-q20", "p0-jpeg-q50", "p0-webp-q1", "p0-webp-q10", "p0-webp-q50")
SHOWN_BITS = 2
ONE_POINT = 0.01
COLOURS = {"jpeg": "black", "webp": "grey"}

Row = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure where pictures are given, print the table, draw the plot. Returns 0, or 2 for a user's mistake."""
    options = _parser().parse_args(argv)
    if (options.pictures is None) != (options.video is None):
        print("clips.py: error: --pictures and --video belong together", file=sys.stderr)
        return 2
    if options.pictures is not None:
        rows = measure(options.pictures, options.video, options.limit, options.json, options.jobs)
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    rows = json.loads(options.json.read_text(encoding="utf-8"))
    console = Console(width=150)
    for clips in dict.fromkeys(row["clips"] for row in rows):
        some = [row for row in rows if row["clips"] == clips]
        console.print(table(some))
        for way, row in cheapest(some).items():
            console.print(f"  {way}: {row['bytes_mean']:.0f} bytes at one point lost or less ({row['id']})")
    draw(rows, options.plot)
    return 0


def measure(pictures: Path, video: Path, limit: int, kept: Path, jobs: int) -> list[dict[str, Any]]:
    """Rows of every kind of clips. Finished work is kept next to the file `kept`."""
    points = points_of()
    partial = kept.with_suffix(".partial.jsonl")
    rows = []
    for kind in CAMERAS:
        rows += measure_streams(CNN, ClipSource(pictures, kind, limit), points, partial, jobs)
    for name, sets in REAL.items():
        found = measure_streams(CNN, ClipSource(video, "", 0, sets), points, partial, jobs)
        rows += [{**row, "clips": name} for row in found]
    return rows


def points_of() -> list[str]:
    """Ids of all points: still pictures, video, cuts without memory, and cuts with it where the CNN has its tables."""
    changes = load_trained(CNN).codec.wire.changes
    cuts = [Knobs(p, ratio, 1.0, SHOWN_BITS) for p in load_trained(CNN).codec.wire.cuts for ratio in RATIOS[1:]]
    cuts += [Knobs(p, 1.0, 1.0, bits) for p, bits in changes if bits != SHOWN_BITS and bits in BITS]
    memory = [cut_id(k, stream=True) for k in cuts if (k.partition, k.bits) in changes]
    return [*STILL, *(point.id for point in VIDEO_POINTS), *map(cut_id, cuts), *memory]


def table(rows: Sequence[Row]) -> Table:
    """Rows of one kind of clips, smallest first within each way of sending."""
    first = rows[0]
    made = Table(title=f"{first['clips']}: {first['n_clips']} clips, {first['n']} frames judged, {first['measure']}")
    columns = ("point", "bytes", "key", "share", "95 %", "below uncut", "95 %", "lost", "95 %", "fewer bytes")
    for column in columns:
        made.add_column(column, justify="left" if column == "point" else "right")
    sizes = {row["id"]: row["bytes_mean"] for row in rows}
    for row in sorted(rows, key=lambda r: (_way(r["id"]), r["bytes_mean"])):
        made.add_row(*_cells(row, sizes))
    return made


def _cells(row: Row, sizes: Mapping[str, float]) -> list[str]:
    cells = [row["id"], "" if row["id"] == UNCUT else f"{row['bytes_mean']:.0f}"]
    cells += [f"{row['bytes_key']:.0f}" if "against" in row else "", _percent(row["share"])]
    cells += [_between(row["share_ci95"]), *_lost(row, "below_uncut"), *_lost(row, "lost")]
    if "against" not in row:
        return [*cells, ""]
    smaller = sizes[row["against"]] / row["bytes_mean"]
    return [*cells, f"{smaller:.1f}x" if _cut(row["id"]) else ""]


def _lost(row: Row, name: str) -> list[str]:
    return [_percent(row[name]), _between(row[f"{name}_ci95"])] if name in row else ["", ""]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _between(interval: Sequence[float]) -> str:
    return " to ".join(map(_percent, interval))


def _cut(point_id: str) -> int:
    return 0 if point_id == UNCUT else partition_of(point_id)


def _way(point_id: str) -> tuple[str, ...]:
    """A key by which points of one curve are neighbours: a codec, or a cut with or without memory."""
    if point_id == UNCUT:
        return ("",)
    if _cut(point_id) == 0:
        return ("p0", point_id.split("-")[1], "px" if point_id.endswith("px") else "")
    return (f"p{_cut(point_id)}", "memory" if stream_of(point_id) else "")


def cheapest(rows: Sequence[Row], loss: float = ONE_POINT) -> dict[str, Row]:
    """The point with the fewest bytes whose share is at most `loss` under the uncut net's, for each way of sending."""
    floor = next(row["share"] for row in rows if row["id"] == UNCUT) - loss
    found: dict[str, Row] = {}
    for row in sorted(rows, key=lambda r: -r["bytes_mean"]):
        if row["share"] >= floor and row["id"] != UNCUT:
            found[" ".join(part for part in _way(row["id"]) if part)] = row
    return found


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each kind of clips: bytes of a frame against the share. The table has the intervals."""
    kinds = list(dict.fromkeys(row["clips"] for row in rows))
    figure, panels = plt.subplots(2, -(-len(kinds) // 2), figsize=(13, 8), layout="constrained", squeeze=False)
    for axes, kind in zip(panels.flat, kinds, strict=False):
        _panel(axes, [row for row in rows if row["clips"] == kind])
    for axes in panels.flat[len(kinds) :]:
        axes.set_visible(False)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=8, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    uncut = next(row for row in rows if row["id"] == UNCUT)
    for way in sorted({_way(row["id"]) for row in rows if row["id"] != UNCUT}):
        points = sorted((r for r in rows if _way(r["id"]) == way), key=lambda r: r["bytes_mean"])
        shares = [100 * row["share"] for row in points]
        cut = _cut(points[0]["id"])
        colour = f"C{cut}" if cut else COLOURS.get(way[1], "magenta")
        axes.plot(
            [row["bytes_mean"] for row in points], shares, label=" ".join(part for part in way if part),
            markersize=4, color=colour,
            linestyle="-" if way[-1] == "memory" else "--" if cut else ":", marker="o" if cut else "s",
        )  # fmt: skip
    axes.axhline(100 * uncut["share"], color="grey", linewidth=0.8)
    axes.axhspan(*(100 * edge for edge in uncut["share_ci95"]), color="grey", alpha=0.12)
    axes.set(xscale="log", xlabel="mean bytes a frame", ylabel=f"{uncut['measure']}, %")
    lowest = min(100 * row["share"] for row in rows)
    axes.set_ylim(max(0.0, lowest - 3), 103)
    axes.set_title(f"{uncut['clips']}: {uncut['n_clips']} clips")
    axes.grid(alpha=0.3)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clips.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="test pictures, one folder a class")
    parser.add_argument("--video", type=Path, metavar="DIR", help="real clips, listed in labels.csv")
    parser.add_argument("--limit", type=int, default=CLIPS, help="clips of each camera (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=HERE / "clips.json", help="file of the rows")
    parser.add_argument("--plot", type=Path, default=HERE.parent / "docs" / "clips.png", help="picture to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())
