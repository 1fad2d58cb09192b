"""Table, plot and cheapest points of benchmarks/clips.py, from invented rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tidesplit.benchmarks import clips

ROWS = {  # id: bytes, share
    "uncut": (0.0, 0.95), "p0-jpeg-q20": (3000.0, 0.945), "p0-jpeg-q10": (2000.0, 0.90), "p0-h264-q30": (240.0, 0.94),
    "p0-h264-q36": (130.0, 0.91), "p5-c1.00-r1.00-b2": (350.0, 0.945), "p5-c1.00-r1.00-b2-s": (70.0, 0.943),
}  # fmt: skip
AGAINST = {"p0-h264-q30": "p0-jpeg-q20", "p0-h264-q36": "p0-jpeg-q20", "p5-c1.00-r1.00-b2-s": "p5-c1.00-r1.00-b2"}


def rows(kind: str) -> list[dict[str, Any]]:
    made = []
    for point_id, (size, share) in ROWS.items():
        row: dict[str, Any] = {"id": point_id, "clips": kind, "measure": "accuracy", "n": 400, "n_clips": 100}
        row |= {"share": share, "share_ci95": [share - 0.02, share + 0.02], "bytes_mean": size, "bytes_std": 1.0}
        row |= {"below_uncut": 0.95 - share, "below_uncut_ci95": [0.94 - share, 0.96 - share]}
        if point_id in AGAINST:
            row |= {"against": AGAINST[point_id], "lost": 0.002, "lost_ci95": [-0.004, 0.008]}
            row |= {"bytes_by_age": [size] * 6, "bytes_key": 9 * size}
        made.append(row)
    return made


def test_the_cheapest_point_within_one_point() -> None:
    found = {way: row["id"] for way, row in clips.cheapest(rows("static")).items()}
    assert found == {
        "p0 jpeg": "p0-jpeg-q20", "p0 h264": "p0-h264-q30", "p5": "p5-c1.00-r1.00-b2",
        "p5 memory": "p5-c1.00-r1.00-b2-s",
    }  # fmt: skip


def test_table_and_plot_of_kept_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, plot = tmp_path / "clips.json", tmp_path / "clips.png"
    kept.write_text(json.dumps([*rows("static"), *rows("pans")]))
    assert clips.main(["--json", str(kept), "--plot", str(plot)]) == 0
    shown = capsys.readouterr().out
    assert "static: 100 clips, 400 frames judged, accuracy" in shown
    assert "-0.3 to 1.7" in shown  # the cut with memory against the uncut net
    assert "5.0x" in shown  # 350 bytes without memory, 70 with it
    assert "p5 memory: 70 bytes" in shown
    assert plot.stat().st_size > 10_000
    assert clips.main(["--pictures", "here"]) == 2


def test_points_have_their_comparisons() -> None:
    ids = clips.points_of()
    assert "p5-c1.00-r1.00-b2" in ids
    assert len(set(ids)) == len(ids)
