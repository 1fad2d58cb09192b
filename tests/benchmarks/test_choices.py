"""Sets of points of benchmarks/choices.py, and their table, from an invented profile and the beginning of a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console

from tests.agents.small import BUMPY
from tests.profiles import DEVICE, SERVER, stream_profile, synthetic_profile
from tidesplit.agents.judging.ladder import Tuning
from tidesplit.benchmarks import choices
from tidesplit.compression.codec.knobs import INT8
from tidesplit.profiling.points.profile import Profile, save
from tidesplit.profiling.points.table import table_for


def with_more(profile: Profile | None = None) -> Profile:
    """The synthetic profile, or another, with an int8 net on the device, twice as quick, and with a small picture."""
    profile = profile or synthetic_profile()
    net, picture = profile.point("device-w50"), profile.point("jpeg50")
    quick, small = replace(net, id="device-w50-i8", precision=INT8), replace(picture, id="jpeg50-128px", resolution=128)
    small = replace(small, bytes_mean=0.4 * picture.bytes_mean)
    devices = {}
    for label, table in profile.devices.items():
        old = table.timings["device-w50"]
        more = {quick.id: replace(old, head_s=0.5 * old.head_s), small.id: table.timings["jpeg50"]}
        devices[label] = replace(table, timings={**table.timings, **more})
    return replace(profile, points=(*profile.points, quick, small), devices=devices)


def options(tmp_path: Path, *more: str) -> Any:
    save(with_more(), tmp_path / "profile.json")
    words = ["--trace", "lte", "--tune-on", "lte", "--profile", str(tmp_path / "profile.json"), "--seeds", "2"]
    return choices.arguments().parse_args([*words, *more])


@pytest.mark.parametrize(
    ("name", "int8", "races"),
    [("neither", False, False), ("int8", True, False), ("races", False, True), ("int8 and races", True, True)],
)
def test_sets_have_the_points_that_they_are_named_for(name: str, int8: bool, races: bool, tmp_path: Path) -> None:
    table = choices.scenario_of(options(tmp_path), with_more(), choices.SETS[name], [BUMPY]).table
    assert any(point.endswith("-i8") for point in table.ids) == int8
    assert table.races.any() == races
    assert any("jpeg50-128px" in point for point in table.ids)


def test_small_pictures_can_be_left_out(tmp_path: Path) -> None:
    asked = options(tmp_path, "--no-small", "--world", "granted")
    scenario = choices.scenario_of(asked, with_more(), choices.SETS["races"], [BUMPY])
    assert not any("128px" in point for point in scenario.table.ids)
    assert scenario.world.grant_s == 0.009


def test_every_set_is_played_on_the_same_courses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "STATIC_TUNING", Tuning(lanes=2, episode_s=1.0))
    asked = options(tmp_path, "--seconds", "2", "--device", DEVICE)
    with ThreadPoolExecutor(1) as pool:
        found = choices.played(asked, cast("Any", pool))
    rows = {(row["points"], row["controller"]): row for row in found["rows"]}
    assert list(rows) == [
        ("neither", "best static point"), ("neither", "device only"),
        ("int8", "best static point"), ("int8", "device only"),
        ("races", "best static point"), ("int8 and races", "best static point"),
    ]  # fmt: skip
    assert rows["int8", "device only"]["point"] == "device-w50-i8"
    assert rows["int8", "device only"]["gb_per_month"] == rows["int8", "device only"]["radio_watts"] == 0.0
    assert rows["int8", "device only"]["utility"] == pytest.approx(0.85, abs=0.02)  # 23 ms of every 33
    assert rows["neither", "device only"]["utility"] == pytest.approx(0.75, abs=0.02)  # the quarter width: 28 ms
    assert all(len(row["by_seed"]) == 2 and list(row["by_trace"]) == ["lte"] for row in rows.values())
    assert all(row["utility"] == pytest.approx(sum(row["by_seed"]) / 2) for row in rows.values())
    json.dumps(found)
    console = Console(width=150)
    with console.capture() as captured:
        console.print(choices.table_of_choices(found))
    (line,) = (each for each in captured.get().splitlines() if "device-w50-i8" in each and "device only" in each)
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells[1:4] == ["device only", "device-w50-i8", f"{rows['int8', 'device only']['utility']:.4f}"]


def test_rules_are_tuned_for_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATIC_TUNING", "RULE_TUNING"):
        monkeypatch.setattr(choices, name, Tuning(lanes=1, episode_s=0.2))
    scenario = choices.scenario_of(options(tmp_path), with_more(), choices.SETS["neither"], [BUMPY])
    found = choices.entrants_of(scenario, ["best static point", "look-up, tuned", "MPC, tuned"])
    assert list(found) == ["best static point", "look-up, tuned", "MPC, tuned"]
    assert choices.point_of(found["best static point"], scenario) in scenario.table.ids
    assert choices.point_of(found["MPC, tuned"], scenario) == ""


@pytest.mark.parametrize(
    ("words", "rules"), [([], ()), (["--rules"], choices.RULES), (["--rules", "MPC, tuned"], ["MPC, tuned"])]
)
def test_the_rules_that_are_asked_for(words: list[str], rules: Sequence[str]) -> None:
    assert choices.rules_of(choices.arguments().parse_args(["--trace", "lte", *words])) == rules


def test_sets_that_a_profile_has_points_for() -> None:
    def sets_of(profile: Profile) -> list[str]:
        return [name for name, choice in choices.SETS.items() if choices.has_points(profile, choice)]

    assert sets_of(synthetic_profile()) == ["neither", "races"]
    assert sets_of(with_more()) == ["neither", "int8", "races", "int8 and races"]
    assert sets_of(with_more(stream_profile())) == list(choices.SETS)


def test_shares_of_the_points_chosen() -> None:
    table = table_for(with_more(stream_profile()), DEVICE, SERVER)
    rows = [table.row("device-w50")] * 98 + [int(np.flatnonzero(table.streams.of >= 0)[0])] * 102
    found = choices.chosen_by(table, np.array(rows))
    assert found["kinds"] == {"device": 0.49, "memory": 0.51}
    assert found["points"]["device-w50"] == 0.49
