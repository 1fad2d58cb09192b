"""The whole of evaluate.py: a bundle on two uplinks from the command line, and what users get wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.profiles import CLOUD, DEVICE, SERVER, synthetic_profile, three_tier_profile
from tidesplit import evaluate
from tidesplit.agents import bundle
from tidesplit.agents.judging import contest, ladder
from tidesplit.agents.judging.evaluation import COLUMNS
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.agents.learning.purpose import stretches
from tidesplit.agents.learning.training import PpoConfig, Recipe, new_model, policy_of
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.profile import Profile

ROOT = Path(evaluate.__file__).parent
FEW = ("jpeg50", "cut1-w50-b4", "device-w50", "device-w25")
CONTROLLERS = [*ladder.RULES, ladder.POLICY, ladder.TRUE_BANDWIDTH]


def few_points() -> Profile:
    whole = synthetic_profile()
    return replace(whole, points=tuple(whole.point(name) for name in FEW))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an untrained policy for 5 frames a second, which keeps the rules' tuning short."""
    folder = tmp_path_factory.mktemp("bundle")
    demand = Demand(fps=5.0, deadline_s=0.15)
    scenario = scenario_from(trace="lte", profile=few_points(), demands=[demand])
    write_bundle(
        folder,
        policy_of(new_model(scenario, Recipe(ppo=PpoConfig(lanes=4, rollout=8, batch=32)))),
        profile=few_points(),
        table=scenario.table,
        machines=(DEVICE, SERVER),
        demand=demand,
        config={"trace": "lte"},
    )
    return folder


@pytest.fixture(scope="module")
def uplinks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two short traces."""
    folder = tmp_path_factory.mktemp("uplinks")
    for name, mbps in (("slow", (0.2, 0.1, 0.0, 0.4)), ("swift", (8.0, 4.0, 0.0, 9.0))):
        rows = "".join(f"{second},{value}\n" for second, value in enumerate(mbps))
        (folder / f"{name}.csv").write_text("time_s,bandwidth_mbps\n" + rows)
    return folder


def test_every_controller_on_every_trace(out: Path, uplinks: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    words = [out, "--trace", uplinks / "slow.csv", uplinks / "swift.csv", "--json", results]
    call = [sys.executable, str(ROOT / "evaluate.py"), *map(str, words)]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    for name in CONTROLLERS:
        assert name in done.stdout
    assert "simulated" in done.stdout
    document: dict[str, Any] = json.loads(results.read_text())
    rows = document["rows"]
    assert [tuple(row) for row in rows] == [COLUMNS] * len(rows)
    assert [(r["controller"], r["trace"]) for r in rows] == [(c, t) for c in CONTROLLERS for t in ("slow", "swift")]
    assert document["kind"] == "simulated"
    assert document["bounds"].keys() == {"slow", "swift"}
    assert all(row["utility"] <= document["bounds"][row["trace"]] + 1e-9 for row in rows)
    assert "less MPC, tuned" in done.stdout
    assert list(document["standings"]) == CONTROLLERS
    for name, standing in document["standings"].items():
        mpc = {row["trace"]: row["utility"] for row in rows if row["controller"] == document["rival"]}
        own = {row["trace"]: row["utility"] for row in rows if row["controller"] == name}
        assert standing["difference_by_trace"] == pytest.approx({trace: own[trace] - mpc[trace] for trace in mpc})
        assert standing["utility_iqm"]["low"] <= standing["utility_iqm"]["value"] <= standing["utility_iqm"]["high"]
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_names_and_lengths_of_traces(uplinks: Path) -> None:
    """A folder's traces under names that differ, at most as long as was asked for."""
    again = [*load_traces(uplinks), *load_traces(uplinks / "slow.csv"), *load_traces("lte")]
    found = evaluate.unambiguous(again, longest_s=3.0)
    assert [trace.name for trace in found] == ["slow", "swift", "slow (2)", "lte"]
    assert [trace.duration_s for trace in found] == [3.0] * 4
    assert evaluate.unambiguous(again, longest_s=None)[0].duration_s == 4.0


def configured(out: Path, folder: Path, config: dict[str, Any]) -> bundle.Bundle:
    """A copy of the bundle that was trained with this configuration."""
    shutil.copytree(out, folder)
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest | {"config": config}))
    return bundle.load(folder)


def ramp(name: str, bins: int) -> Trace:
    return Trace(name, np.arange(float(bins)), float(bins), 1e6 * np.arange(1.0, bins + 1))


@pytest.mark.parametrize(
    ("traces", "longest_s", "told"),
    [
        ([ramp("seen", 100)], np.inf, "the first 80 s of seen. "),
        ([ramp("copy", 100), ramp("exactly", 80)], np.inf, "the first 80 s of copy, the first 80 s of exactly. "),
        ([ramp("seen", 100)], 10.0, "the first 10 s of seen. "),
        ([ramp(str(i), 100) for i in range(5)], np.inf, "80 s of 2 and of 2 more. "),
        ([ramp("seen", 100).slice(80.0, 100.0)], np.inf, None),
        ([Trace("other", np.arange(100.0), 100.0, np.full(100, 1e6))], np.inf, None),
    ],
)
def test_judging_on_training_time_is_told(
    traces: list[Trace], longest_s: float, told: str | None, out: Path, tmp_path: Path
) -> None:
    """Traces are known by their content; the last 20 of 100 s were held out."""
    seen = stretches([ramp("seen", 100).slice(0.0, 80.0)])
    trained = configured(out, tmp_path / "bundle", {"trace": "gone", "trained_on": seen})
    warning = evaluate.training_time([trained], traces, longest_s)
    assert told is None if warning is None else told is not None and told in warning


def test_bundles_that_list_no_traces_name_them(out: Path, tmp_path: Path) -> None:
    before = configured(out, tmp_path / "before", {"trace": "lte", "holdout": 0.2})
    assert "the first 960 s of lte" in str(evaluate.training_time([before], load_traces("lte"), np.inf))
    assert evaluate.training_time([before], load_traces("metro"), np.inf) is None
    moved = configured(out, tmp_path / "moved", {"trace": "gone.csv"})
    assert "training traces are not here" in str(evaluate.training_time([moved], load_traces("lte"), np.inf))


def test_a_moved_bundle_names_the_option(
    out: Path, uplinks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configured(out, tmp_path / "moved", {"trace": "gone/my.csv", "trained_on": []})
    words = [str(tmp_path / "moved"), "--trace", str(uplinks)]
    refused(words, r"--tune-on expected: the policy's training traces cannot be read here \(.*gone/my.csv", capsys)
    options = evaluate.arguments().parse_args([*words, "--tune-on", "lte"])
    _, tune_on = evaluate.scenarios(bundle.load(tmp_path / "moved"), load_traces(uplinks), options)
    assert [trace.name for trace in tune_on.traces] == ["lte"]


def test_a_moved_bundle_of_three_tiers_names_the_second_option(
    three: Path, uplinks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configured(three, tmp_path / "moved", {"trace": "lte", "second_trace": "gone.csv"})
    words = [str(tmp_path / "moved"), "--trace", str(uplinks)]
    refused(words, r"--second-trace expected: the policy's training traces cannot be read here \(.*gone.csv", capsys)
    options = evaluate.arguments().parse_args([*words, "--second-trace", "metro"])
    both = evaluate.scenarios(bundle.load(tmp_path / "moved"), load_traces(uplinks), options)
    assert [[trace.name for trace in scenario.further[0]] for scenario in both] == [["metro"]] * 2


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], Demand(fps=5.0, deadline_s=0.15)),
        (["--fps", "10"], Demand(fps=10.0, deadline_s=0.15)),
        (["--deadline-ms", "75"], Demand(fps=5.0, deadline_s=0.075)),
        (["--min-accuracy", "0.8", "--fps", "15"], Demand(fps=15.0, deadline_s=0.15, min_accuracy=0.8)),
    ],
)
def test_the_command_line_changes_the_demand(words: list[str], asked: Demand) -> None:
    options = evaluate.arguments().parse_args(["OUT", "--trace", "lte", *words])
    trained = Demand(fps=5.0, deadline_s=0.15)
    assert trained.changed(options.fps, options.deadline_ms, options.min_accuracy) == asked


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--trace", "nowhere"], r"trace 'nowhere': no such file"),
        (["--trace", "lte", "--tune-on", "nowhere"], r"trace 'nowhere': no such file"),
        (["--trace", "lte", "--fps", "0"], r"0 frames a second received"),
        (["--trace", "lte", "--deadline-ms", "nan"], r"a deadline of nan ms received"),
        (["--trace", "lte", "--min-accuracy", "2"], r"an accuracy of at least 2 received"),
        (["--trace", "lte", "--min-accuracy", "0.99"], r"no operating point reaches it"),
        (["--trace", "lte", "--seconds", "0"], r"--seconds"),
        (["--trace", "lte", "--seed", "-1"], r"--seed"),
        (["--trace", "lte", "--controllers", "MPC"], r"--controllers: no rule 'MPC'; there are 'best static point', "),
        (["--trace", "lte", "--controller", "no_such:rule"], r"no_such:rule: there is no module no_such in "),
        (["--trace", "lte", "--world", "none.json"], r"world 'none.json': No such file"),
        (["--trace", "lte", "--utility", "math:sqrt"], r"math:sqrt\(accuracy, latency_s, deadline_s\) failed: TypeE"),
        (["--trace", "lte", "--json", "/nowhere/at/all.json"], r"/nowhere/at"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    words: list[str], sentence: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused([str(out), *words], sentence, capsys)


def test_a_bad_trace_is_told_with_file_and_line(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "back.csv").write_text("time_s,bandwidth_mbps\n1,2\n0,2\n")
    refused([str(out), "--trace", str(tmp_path / "back.csv")], r"back\.csv, line 3: time goes from 1 s", capsys)


def test_an_altered_bundle_is_refused(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in out.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / bundle.POLICY).open("ab") as policy:
        policy.write(b"\0")
    refused([str(tmp_path), "--trace", "lte"], r"policy\.onnx: SHA-256 .* it was altered", capsys)
    refused([str(tmp_path / "none"), "--trace", "lte"], r"none is no bundle", capsys)


def refused(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line that begins with the program's name."""
    assert evaluate.main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("tidesplit evaluate: error: ")
    assert told.count("\n") == 1
    assert re.search(sentence, told), told


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The rules are tuned on a few short episodes, and nobody waits for worker processes to import torch."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contest, "workers", lambda: ThreadPoolExecutor(1))
    for name, value in {"lanes": 2, "episode_s": 3.0}.items():
        monkeypatch.setitem(ladder.Tuning.__init__.__kwdefaults__, name, value)


@pytest.mark.usefixtures("quick")
def test_policies_of_several_seeds_take_turns(out: Path, uplinks: Path, tmp_path: Path) -> None:
    """Two policies and three seeds: the first has the outer ones, and plays there exactly as alone."""
    other = tmp_path / "other"
    shutil.copytree(out, other)
    asked = ["--trace", str(uplinks / "swift.csv"), "--tune-on", str(uplinks), "--seeds", "3"]
    for number, outs in enumerate([[str(out)], [str(out), str(other)]]):
        assert evaluate.main([*outs, *asked, "--json", str(tmp_path / f"{number}.json")]) == 0
    alone, both = (json.loads((tmp_path / f"{n}.json").read_text()) for n in range(2))
    told = [[{**row, "decision_us": 0.0} for row in document["rows"]] for document in (alone, both)]
    assert told[0] == told[1]
    assert alone["standings"] == both["standings"]


@pytest.mark.usefixtures("quick")
def test_a_controller_a_world_and_a_utility_of_ones_own(
    out: Path, uplinks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They come from the working directory. The second run finds the tuned rules in the cache."""
    (tmp_path / "own_of_test.py").write_text(
        "class First:\n    def __init__(self, scenario): pass\n"
        "    def predict(self, observation): return observation.mask.argmax(axis=1)\n"
        "def half(accuracy, latency_s, deadline_s): return 0.5 * accuracy\n"
    )
    monkeypatch.setattr(evaluate.figures, "save", lambda figure, path: None)
    (tmp_path / "far.json").write_text('{"rtt_s": 0.04}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    asked = [str(out), "--trace", str(uplinks / "swift.csv"), "--tune-on", str(uplinks), "--json", "rows.json"]
    asked += ["--controller", "own_of_test:First", "--controllers", "best static point", "look-up, naive"]
    found = []
    for more in ([], ["--world", "as-traced"], ["--world", "far.json", "--utility", "own_of_test:half"]):
        assert evaluate.main([*asked, *more]) == 0
        told = capsys.readouterr().out
        assert ("tuned on the same before" in told) == (more == ["--world", "as-traced"])
        found.append(json.loads((tmp_path / "rows.json").read_text()))
    names = ["best static point", "look-up, naive", ladder.POLICY, "First"]
    assert [row["controller"] for row in found[0]["rows"]] == names
    assert list(found[0]["standings"]) == names
    usual, again, other = ({row["controller"]: row for row in of["rows"]} for of in found)
    for name in names:
        assert {**usual[name], "decision_us": 0.0} == {**again[name], "decision_us": 0.0}
    assert other["First"]["latency_ms_mean"] < usual["First"]["latency_ms_mean"] - 10.0  # a round trip of 20 ms less
    assert other["First"]["utility"] == pytest.approx(0.5 * other["First"]["accuracy"])
    assert other["First"]["utility"] <= found[2]["bounds"]["swift"] <= 0.5


def test_policies_that_are_not_alike_are_refused(
    out: Path, three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused([str(out), str(three), "--trace", "lte", "--ladder"], r"different operating points", capsys)
    refused([str(out), str(out), "--trace", "lte"], r"2 policies received for --seeds 1", capsys)


@pytest.mark.parametrize("words", [[], ["OUT"], ["OUT", "--trace", "lte", "--seeds", "0"]])
def test_missing_options_and_a_bad_number_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        evaluate.main(words)
    assert caught.value.code == 2
    assert "usage: tidesplit evaluate" in capsys.readouterr().err


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `out`, in three tiers."""
    folder = tmp_path_factory.mktemp("three")
    demand = Demand(fps=5.0, deadline_s=0.15)
    profile = three_tier_profile()
    scenario = scenario_from(
        trace="lte", profile=profile, tiers=3, server=SERVER, cloud=CLOUD, second_trace="metro", demands=[demand]
    )
    some = [scenario.table.row(i) for i in ("jpeg95", "jpeg95>cloud", "jpeg95>cut2-w100-b2", "device-w50")]
    few = replace(scenario, table=scenario.table.take(some))
    write_bundle(
        folder,
        policy_of(new_model(few, Recipe(ppo=PpoConfig(lanes=4, rollout=8, batch=32)))),
        profile=profile,
        table=few.table,
        machines=(DEVICE, SERVER, CLOUD),
        demand=demand,
        config={"trace": "lte", "second_trace": "metro"},
    )
    return folder


@pytest.mark.usefixtures("quick")
def test_three_tiers_over_the_second_hop_of_the_training_or_another(three: Path, uplinks: Path, tmp_path: Path) -> None:
    bounds = []
    for number, words in enumerate([[], ["--second-trace", str(uplinks / "slow.csv")]]):
        results = tmp_path / f"{number}.json"
        asked = [str(three), "--trace", str(uplinks / "swift.csv"), "--tune-on", str(uplinks), "--json", str(results)]
        assert evaluate.main([*asked, *words]) == 0
        document = json.loads(results.read_text())
        assert document["tiers"] == 3
        assert [row["controller"] for row in document["rows"]] == CONTROLLERS
        bounds.append(document["bounds"]["swift"])
        assert all(row["utility"] <= bounds[-1] + 1e-9 for row in document["rows"])


def test_a_second_hop_needs_three_tiers(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused([str(out), "--trace", "lte", "--second-trace", "metro"], r"--second-trace needs three tiers", capsys)
