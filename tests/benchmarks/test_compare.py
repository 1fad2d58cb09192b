"""Means, shares of the headroom and tables of benchmarks that compare controllers, from invented figures."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from tests.agents.small import BUMPY, DEAD, scenario
from tests.profiles import synthetic_profile
from tidesplit.agents.judging.budgeted import FORESIGHT, MIXTURE, THRESHOLD
from tidesplit.agents.judging.evaluation import History, Row, summarise
from tidesplit.agents.judging.ladder import POLICY
from tidesplit.agents.rules.controllers import Lookup
from tidesplit.benchmarks import budgets, compare, contributions, headroom
from tidesplit.benchmarks.results import write_json
from tidesplit.envs.budget.prices import Prices
from tidesplit.envs.traces.trace import load_traces
from tidesplit.envs.world.vocabulary import SERVER, Demand
from tidesplit.profiling.points.profile import save


def row(controller: str, trace: str, utility: float) -> Row:
    """Two frames, one after the other, each with this utility."""
    two = np.full(2, utility)
    record = History(np.arange(2), np.full(2, SERVER), two, two, two, two, two > 1, two, two, two, two)
    return summarise(record, controller=controller, trace=trace, period_s=1.0, decision_us=0.0, bound=1.0)


def text(table: Table) -> list[str]:
    console = Console(width=150)
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


def cells(lines: list[str], first: str) -> list[str]:
    """Cells of the line that begins with this word."""
    (line,) = (line for line in lines if line.lstrip("│┃ ").startswith(first))
    return [cell.strip() for cell in line.strip("│ ").split("│")]


def test_means_are_over_traces() -> None:
    rows = [row("PPO", "a", 0.5), row("PPO", "b", 0.9), row("JMDC", "a", 0.25), row("JMDC", "b", 0.25)]
    assert compare.means(rows, ["PPO", "JMDC"], "utility") == {"PPO": pytest.approx(0.7), "JMDC": 0.25}
    assert compare.means(rows, ["PPO"], "latency_ms_mean") == {"PPO": pytest.approx(700.0)}
    assert compare.means(rows, ["PPO"], "switches_per_min") == {"PPO": pytest.approx(30.0)}


@pytest.mark.parametrize(
    ("utility", "bound", "shown"),
    [(0.85, 0.9, "50 %"), (0.8, 0.9, "0 %"), (0.7, 0.9, "-100 %"), (0.9, 0.9, "100 %"), (0.8, 0.804, "-")],
)
def test_share_of_the_headroom(utility: float, bound: float, shown: str) -> None:
    """Above the best static point's 0.8; where the bound is hardly higher there is nothing to share."""
    assert compare.share(utility, 0.8, bound) == shown


def figures(utility: float) -> dict[str, float]:
    others = {"miss_rate": 0.01, "accuracy": 0.9, "latency_ms_mean": 50.0, "latency_ms_p95": 80.0, "watts": 3.25}
    return {**dict.fromkeys(compare.KEYS, 0.0), "utility": utility, "gb_per_month": 77.76, **others}


def test_table_of_seeds() -> None:
    """PPO captures three quarters and one quarter of the headroom of its two seeds."""
    found: dict[str, Any] = {
        "demand": {"fps": 30.0, "deadline_s": 0.1},
        "seeds": 2,
        "recipe": {"tiers": 2},
        "bounds": [0.9, 0.9],
        "controllers": {
            "best static point": [figures(0.7), figures(0.7)],
            "PPO": [figures(0.85), figures(0.75)],
        },
    }
    lines = text(compare.seeds_table(found))
    assert "30 fps, 100 ms, 2 tiers: 2 seeds, simulated" in lines[0]
    assert cells(lines, "PPO") == ["PPO", "0.8000 [0.7500, 0.8500]", "50 %", "1.00", "0.9000", "80.0", "3.25", "78"]
    assert cells(lines, "best static")[1:3] == ["0.7000 [0.7000, 0.7000]", "0 %"]
    assert cells(lines, "clairvoyant")[1:3] == ["0.9000", "100 %"]


def test_table_of_the_map() -> None:
    utility = {
        "best static point": 0.8,
        "look-up, tuned": 0.8,
        "MPC, tuned": 0.82,
        "PPO": 0.85,
        "MPC, true bandwidth": 0.9,
    }
    rows = [
        {"fps": fps, "deadline_ms": 75.0, "bound": bound, "utility": utility} for fps, bound in ((5, 0.802), (30, 0.9))
    ]
    lines = text(compare.grid_table({"cells": rows}))
    assert cells(lines, "5 ")[2:] == ["0.8000", "0.8020", "0.0020", "-", "-", "-", "-"]
    assert cells(lines, "30 ")[2:] == ["0.8000", "0.9000", "0.1000", "0 %", "20 %", "50 %", "100 %"]


def test_traces_are_shortened(tmp_path: Any) -> None:
    save(synthetic_profile(), tmp_path / "profile.json")
    words = ["map", "--train", "lte", "--test", "lte", "--profile", str(tmp_path / "profile.json")]
    options = compare.arguments().parse_args(words)
    assert compare.scenario_of(options, "lte", [Demand()], 60.0).traces[0].duration_s == 60.0
    assert compare.scenario_of(options, "lte", [Demand()]).traces[0].duration_s == 1200.0


def in_cell(controller: str, utility: float, within: bool = True) -> dict[str, Any]:
    return {"controller": controller, "utility": utility, "within": within}


def test_headroom_is_over_the_best_rule_that_keeps_to_its_budgets() -> None:
    rows = [in_cell("best static point", 0.7), in_cell(MIXTURE, 0.8), in_cell(THRESHOLD, 0.9, within=False)]
    found = headroom.standing([*rows, in_cell(FORESIGHT, 0.9), in_cell(POLICY, 0.85)])
    assert found.rule == MIXTURE
    assert (found.headroom, found.share) == pytest.approx((0.1, 0.5))


def test_a_map_goes_on_with_the_rows_of_its_file_but_not_with_those_of_another_run(tmp_path: Path) -> None:
    file, facts = tmp_path / "map.json", {"kind": "simulated", "seconds": 20.0}
    assert headroom.begun(file, facts) == []
    rows = [in_cell(MIXTURE, 0.8)]
    write_json(file, {**facts, "rows": rows})
    assert headroom.begun(file, facts) == rows
    with pytest.raises(SystemExit, match=r"seconds 20\.0, not 60\.0"):
        headroom.begun(file, {**facts, "seconds": 60.0})


@pytest.mark.parametrize("text", ["30", "30:x", "30:100:5"])
def test_a_pace_is_two_numbers(text: str) -> None:
    assert headroom.pace("12.5:80") == (12.5, 80.0)
    with pytest.raises(argparse.ArgumentTypeError, match="FPS:MS expected, such as 30:100"):
        headroom.pace(text)


def test_families_that_are_played_at_once_do_not_touch() -> None:
    both = replace(scenario(BUMPY, DEAD), episode_s=6.0)
    rule = Lookup(name="look-up")
    for found, trace in zip(budgets.rows_of(rule, both, courses=3), both.traces, strict=True):
        (by_itself,) = budgets.rows_of(rule, replace(both, traces=(trace,)), courses=3)
        assert {name: pytest.approx(value) for name, value in by_itself.items()} == found


def test_what_each_phase_adds_is_shown_in_two_tables() -> None:
    judged = scenario(BUMPY, max_gb_month=50.0, episode_s=4.0)
    rows = [contributions.facts_of("look-up", Lookup(name="look-up"), judged, Prices.of(0.0, 1e-5), courses=2)]
    assert cells(text(budgets.table_of(rows)), "bumpy")[2] == "50 GB"
    assert cells(text(contributions.starts_of(rows)), "look-up")[1] == f"{rows[0]['starts']:.4f}"


def test_time_that_was_trained_on_is_not_judged() -> None:
    seen, judged = budgets.parted(["lte.csv"], [("lte", "lte.csv"), ("metro", "metro.csv")])
    (lte,), (metro,) = load_traces("lte.csv"), load_traces("metro.csv")
    assert [trace.duration_s for trace in seen] == [0.8 * lte.duration_s]
    assert judged["lte"].duration_s == 60.0
    assert judged["metro"].duration_s == metro.duration_s
