"""The benchmark runs and tells what it says; how fast is for an idle machine to show."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from benchmarks import env_throughput
from tests.profiles import synthetic_profile
from tidesplit.profiling.points.profile import save


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "profile.json"
    save(synthetic_profile(), path)
    return str(path)


def test_processes_are_added_up(profile: str) -> None:
    args = argparse.Namespace(trace="lte", profile=profile, tiers=2, seconds=0.05, rounds=2)
    row = env_throughput.measure(env_throughput.batched, "batched", args, lanes=16, processes=2)
    assert (row.processes, row.lanes, row.points, len(row.rounds)) == (2, 16, 10, 2)
    assert row.frames_per_s > 0.0


def test_table_and_file(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.json"
    short = ["--seconds", "0.02", "--rounds", "1", "--lanes", "8", "--processes", "1"]
    monkeypatch.setattr(sys, "argv", ["env_throughput.py", "--profile", profile, "--json", str(out), *short])
    env_throughput.main()
    rows = json.loads(out.read_text())["rows"]
    assert [row["what"] for row in rows] == ["batched", "batched", "DummyVecEnv of single", "PPO training"]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "batched",
        "batched",
        "DummyVecEnv",
        "PPO",
    ]
