"""The benchmark runs and adds up; an idle machine has to show how fast."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from tests.profiles import synthetic_profile
from tidesplit.benchmarks import env_throughput
from tidesplit.benchmarks.env_throughput import Speed
from tidesplit.profiling.points.profile import save


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "profile.json"
    save(synthetic_profile(), path)
    return str(path)


def test_rounds_of_processes_are_added_and_their_median_counts() -> None:
    first, second = [(100.0, 110.0), (300.0, 330.0), (200.0, 220.0)], [(10.0, 11.0), (10.0, 11.0), (60.0, 66.0)]
    speed = Speed.of("batched", [first, second], lanes=4, points=9)
    assert speed.rounds == [(110.0, 121.0), (310.0, 341.0), (260.0, 286.0)]
    assert (speed.processes, speed.frames_per_s, speed.frames_per_cpu_s) == (2, 260.0, 286.0)
    assert speed.line().split() == ["batched", "2", "4", "9", "260", "286", "110", "to", "310"]


def test_two_processes_play_at_once(profile: str) -> None:
    args = argparse.Namespace(trace="lte", profile=profile, tiers=2, seconds=0.05, rounds=2)
    row = env_throughput.measure(env_throughput.batched, "batched", args, lanes=16, processes=2)
    assert (row.processes, row.lanes, row.points, len(row.rounds)) == (2, 16, 18, 2)  # ten points, eight races
    assert row.frames_per_s > 0.0


def test_table_and_file(profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.json"
    short = ["--seconds", "0.02", "--rounds", "1", "--lanes", "8", "--processes", "1"]
    env_throughput.main(["--profile", profile, "--json", str(out), *short])
    rows = json.loads(out.read_text())["rows"]
    learning = ["PPO training", "PPO, critic only", "labels", "fitting"]
    assert [row["what"] for row in rows] == ["batched", "batched", "DummyVecEnv of single", *learning]
    lines = capsys.readouterr().out.splitlines()
    assert [text.split()[0] for text in lines[:5]] == ["environment", "batched", "batched", "DummyVecEnv", "PPO"]
    assert len(lines) == 8


def test_an_older_copy_is_compared_by_processor_time() -> None:
    rows = [Speed.of("batched", [[(9.0, 40.0)]] * processes, lanes=4, points=9) for processes in (1, 2)]
    first, last = ({"batched": [(1.0, a)], "batched, 2 processes": [(1.0, 16.0)]} for a in (10.0, 30.0))
    found = env_throughput.ratios(rows, first, last)
    assert found["batched"] == {"before": 20.0, "after": 40.0, "ratio": 2.0}
    assert found["batched, 2 processes"]["ratio"] == 5.0
