"""The whole of train.py: one short training from the command line, what it leaves behind, and what users get wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.profiles import synthetic_profile
from tidesplit import train
from tidesplit.agents import bundle
from tidesplit.agents.judging import budgeted, ladder
from tidesplit.agents.learning import purpose, training
from tidesplit.agents.learning.monitor import Learner
from tidesplit.agents.learning.training import PpoConfig
from tidesplit.agents.rules.family import Spent
from tidesplit.compression.codec.knobs import sender
from tidesplit.data.files import GENERALIST
from tidesplit.envs.budget.prices import Prices
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.envs.world.physics import USUAL
from tidesplit.envs.world.vocabulary import byte_rate_of
from tidesplit.profiling.points import profile as profiles

ROOT = Path(train.__file__).parent
COLUMNS = [
    "controller", "trace", "utility", "latency_ms_mean", "latency_ms_p50", "latency_ms_p95", "latency_ms_p99",
    "miss_rate", "drop_rate", "accuracy", "bytes_mean", "gb_per_month", "joules", "watts", "radio_watts", "hottest_c",
    "switches_per_min", "decision_us", "regret_pct",
]  # fmt: skip
FEW = ("jpeg50", "cut1-w50-b4", "cut2-w50-r50-b2", "device-w50", "device-w25")
# Five frames a second make the rules' tuning short. The steps make nine rollouts, and the policy is checked after the
# eighth.
OPTIONS = ("--fps", "5", "--deadline-ms", "150", "--holdout-s", "5", "--seed", "3")
STEPS, MORE_STEPS = 17_500, 22_500
QUICKER = """
import sys
from functools import partial
from tidesplit import train
from tidesplit.agents.judging import ladder
from tidesplit.agents.learning import training
ladder.Tuning.__init__.__kwdefaults__.update(lanes=4, episode_s=4.0)
few = dict(
    imitation=training.ImitationConfig(labels_per_round=800),
    copying=training.ImitationConfig(rounds=2, labels_per_round=800),
    rollouts=training.RolloutConfig(rounds=1, labels_per_round=200),
)
training.Recipe = partial(training.Recipe, **few)
training.PpoConfig.__init__.__kwdefaults__.update(lanes=64, critic_steps=12_500)
sys.exit(train.main())
"""


class Trained(NamedTuple):
    """A folder that train.py has written, and what it printed."""

    out: Path
    profile: Path
    printed: str


def small_profile(path: Path) -> Path:
    whole = synthetic_profile()
    profiles.save(replace(whole, points=tuple(whole.point(name) for name in FEW)), path)
    return path


def command(*words: str | Path, program: Sequence[str] = (str(ROOT / "train.py"),)) -> subprocess.CompletedProcess[str]:
    """Run train.py as a user would, or another program with the same options."""
    call = [sys.executable, *program, *map(str, words)]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False, timeout=550)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One training, end to end. Imitation has a fifth of the usual labels, and the rules are tuned on less."""
    folder = tmp_path_factory.mktemp("trained")
    profile, out = small_profile(folder / "small.json"), folder / "out"
    words = ["--trace", "lte.csv", "--profile", profile, "--start", "scratch", "--steps", str(STEPS), "--out", out]
    done = command(*words, *OPTIONS, program=("-c", QUICKER))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "The training starts from scratch." in done.stdout
    return Trained(out, profile, done.stdout)


def logged(out: Path) -> EventAccumulator:
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_it_leaves_what_it_promises(trained: Trained) -> None:
    promised = {
        "bundle.json", "policy.onnx", "policy.npz", "profile.json", "results.json", "decisions.png",
        "sb3_policy.zip", "checkpoint.safetensors", "training.json", "tensorboard",
    }  # fmt: skip
    assert {path.name for path in trained.out.iterdir()} == promised
    assert (trained.out / "decisions.png").read_bytes().startswith(b"\x89PNG")


def test_it_prints_a_table_with_every_controller(trained: Trained) -> None:
    assert "simulated" in trained.printed
    assert "clairvoyant" in trained.printed
    for name in (*ladder.RULES, ladder.POLICY):
        assert name in trained.printed
    assert ladder.TRUE_BANDWIDTH not in trained.printed


def test_it_names_the_command_for_the_best_static_point(trained: Trained) -> None:
    (point,) = re.findall(rf"tidesplit edge --bundle {trained.out} --point (\S+)$", trained.printed, re.M)
    assert point in bundle.load(trained.out).table.ids


def test_results_hold_a_row_a_controller(trained: Trained) -> None:
    document: dict[str, Any] = json.loads((trained.out / "results.json").read_text())
    rows = document["rows"]
    assert [list(row) for row in rows] == [COLUMNS] * len(rows)
    names = ladder.in_order(dict.fromkeys([*train.COMPARED, ladder.POLICY]))
    assert [row["controller"] for row in rows] == [n for _ in range(train.COURSES) for n in names if n != ladder.VIDEO]
    assert {row["trace"] for row in rows} == {"lte"}
    assert document["bounds"].keys() == {"lte"}
    for row in rows:
        numbers = [value for value in row.values() if not isinstance(value, str)]
        assert np.isfinite(numbers).all()
        of = [other["utility"] for other in rows if other["controller"] == row["controller"]]
        assert 0.0 <= sum(of) / train.COURSES <= document["bounds"]["lte"] + 1e-9
        assert row["latency_ms_p50"] <= row["latency_ms_p95"] <= row["latency_ms_p99"] <= 150.0
        assert row["regret_pct"] >= 0.0
    assert document["config"]["fps"] == 5.0


def test_the_bundle_loads_and_tells_how_it_came_about(trained: Trained) -> None:
    loaded = bundle.load(trained.out)
    assert loaded.demand.fps == 5.0
    assert loaded.world == USUAL, "another budget has other probes"
    assert loaded.manifest["config"]["trace"] == "lte.csv"
    assert loaded.manifest["config"]["seed"] == 3
    assert {sender(point) for point in loaded.table.ids} == set(FEW)  # some of them race


def test_tensorboard_holds_what_users_look_for(trained: Trained) -> None:
    events = logged(trained.out)
    scalars = set(events.Tags()["scalars"])
    wanted = {
        "imitation/expected_regret", "rollouts/expected_regret",
        "frames/utility", "frames/latency_ms_mean", "frames/latency_ms_p95", "frames/miss_rate", "frames/drop_rate",
        "frames/accuracy", "frames/bytes_mean", "frames/joules", "frames/watts", "frames/heat_c_max",
        "partition_share/0", "partition_share/1", "partition_share/3",
        "check/utility", "check/miss_rate", "check/regret_to_clairvoyant", "check/watts", "check/gb_per_month",
        "train/loss", "train/value_loss", "train/entropy_loss", "train/approx_kl", "train/explained_variance",
        "rollout/ep_rew_mean", "time/fps",
        "heldout/utility", "heldout/miss_rate", "heldout/watts", "heldout/gb_per_month",
    }  # fmt: skip
    assert wanted - scalars == set()
    shares = [events.Scalars(tag) for tag in scalars if tag.startswith("partition_share/")]
    assert sum(of[0].value for of in shares) == pytest.approx(1.0, abs=1e-5)
    assert 0.0 <= events.Scalars("check/regret_to_clairvoyant")[-1].value <= 1.0


def test_tensorboard_holds_the_figure_and_the_hyperparameters(trained: Trained) -> None:
    events = logged(trained.out)
    (figure, *_) = events.Images("check/decisions")
    assert figure.encoded_image_string.startswith(b"\x89PNG")
    assert min(figure.width, figure.height) > 300
    assert "hparams" in events.summary_metadata["_hparams_/experiment"].plugin_data.plugin_name


def test_steps_only_go_up(trained: Trained) -> None:
    events = logged(trained.out)
    for tag in ("frames/utility", "train/loss", "check/utility"):
        at = [event.step for event in events.Scalars(tag)]
        assert at == sorted(set(at)), tag


def test_resume_goes_on(trained: Trained, tmp_path: Path) -> None:
    """On a copy, so that other tests see the first training's files."""
    out = copied(trained, tmp_path / "out")
    options = ("--profile", trained.profile, "--out", out, *OPTIONS)
    done = command("--trace", "lte.csv", "--resume", "--steps", str(MORE_STEPS), *options, program=("-c", QUICKER))
    assert done.returncode == 0, done.stderr
    assert "imitation" not in done.stdout
    before = max(event.step for event in logged(trained.out).Scalars("frames/utility"))
    at = [event.step for event in logged(out).Scalars("frames/utility")]
    assert min(at) > before
    assert bundle.load(out).manifest["config"]["steps"] == MORE_STEPS
    kept = [load_file(folder / train.CHECKPOINT)["worth"] for folder in (trained.out, out)]
    assert kept[1] >= kept[0]  # of the best policy so far


def test_resume_says_that_nothing_is_left(trained: Trained, tmp_path: Path) -> None:
    out = copied(trained, tmp_path / "out")
    words = ["--trace", "lte.csv", "--profile", trained.profile, "--steps", str(STEPS), "--out", out, *OPTIONS]
    done = command(*words, "--resume", program=("-c", QUICKER))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "this training had ended. --steps above 20480 goes on with it." in said  # PPO ends on a whole rollout
    assert "The training started from scratch." in said
    assert bundle.load(out).manifest["config"]["trained_on"] == trained_on(trained.out)


def trained_on(out: Path) -> list[dict[str, Any]]:
    """The stretches of time that this training was given, by its own record."""
    (uplink,) = json.loads((out / "training.json").read_text())["trace"]
    return list(uplink)


@pytest.mark.parametrize("record", ["no JSON", '{"start": "x"}', '{"start": {"name": "x"}}', "[]"])
def test_a_record_that_does_not_say_its_start_is_refused(record: str, tmp_path: Path) -> None:
    assert purpose.start_of(tmp_path) == {"name": "scratch", "trained_on": []}  # as of earlier versions
    (tmp_path / purpose.FILE).write_text(record)
    with pytest.raises(purpose.PurposeError, match="it does not say what it started from"):
        purpose.start_of(tmp_path)


def test_the_usual_training_starts_from_the_policy_that_ships(trained: Trained, tmp_path: Path) -> None:
    """Its stretches count as trained on too, so that `evaluate` warns of them."""
    profiles.save(replace(profiles.load(trained.profile), name="efficientnet_lite0"), tmp_path / "known.json")
    words = ["--trace", "lte.csv", "--profile", tmp_path / "known.json", "--steps", "0", "--out", tmp_path / "out"]
    done = command(*words, *OPTIONS, program=("-c", QUICKER))
    assert done.returncode == 0, done.stderr
    assert "The training starts from the policy that ships." in done.stdout
    assert "imitation/expected_regret" not in logged(tmp_path / "out").Tags()["scalars"]
    config, shipped = (bundle.load(folder).manifest["config"] for folder in (tmp_path / "out", GENERALIST))
    assert config["start"] == "the policy that ships"
    assert config["trained_on"] == trained_on(tmp_path / "out") + shipped["trained_on"]
    assert config["priced"] == ["byte"]


def copied(trained: Trained, out: Path) -> Path:
    """The files of the training in another folder, without the log."""
    out.mkdir()
    for file in trained.out.iterdir():
        if file.is_file():
            (out / file.name).write_bytes(file.read_bytes())
    return out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--fps", "10"], "with another demand: --fps 5.0 there, --fps 10.0 received"),
        (["--deadline-ms", "99"], "with another demand: --deadline-ms 150.0 there, --deadline-ms 99.0 received"),
        (["--objective", "latency"], "with another demand: --objective accuracy there, --objective latency received"),
        (["--min-accuracy", "0.1"], "with another demand: --min-accuracy 0.0 there, --min-accuracy 0.1 received"),
        (["--max-gb-month", "3"], "with another demand: --max-gb-month .* there, --max-gb-month 3.0 received"),
        (["--trace", "metro"], "with another trace: --trace lte.csv there, --trace metro received"),
        (["--holdout", "0"], "with another trace: --holdout 0.2 there, --holdout 0.0 received"),
        (["--world", "granted"], "with another world: --world as-traced there, --world granted received"),
        (["--effort", "4"], "with another effort: --effort 1.0 there, --effort 4.0 received"),
        (
            ["--profile", "efficientnet_lite0"],
            r"with another CNN: --profile .*small.json there, --profile efficientnet",
        ),
    ],
)
def test_resume_refuses_another_training(
    words: list[str], sentence: str, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(trained, tmp_path / "out")
    usual = ["--trace", "lte.csv", "--profile", str(trained.profile), "--out", str(out), "--resume", *OPTIONS]
    refused([*usual, *words], f"{out} was trained {sentence}", tmp_path, capsys)


def test_resume_tells_a_changed_file_by_its_content(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the options are the same. A copy of the file elsewhere is the same trace."""
    out = copied(trained, tmp_path / "out")
    record = json.loads((out / "training.json").read_text())
    record["options"]["trace"] = str(tmp_path / "lte.csv")
    (out / "training.json").write_text(json.dumps(record))
    (tmp_path / "lte.csv").write_text((ROOT / "data" / "traces" / "lte.csv").read_text() + "1200,1\n")
    words = ["--trace", str(tmp_path / "lte.csv"), "--profile", str(trained.profile), "--out", str(out), "--resume"]
    refused(
        [*words, *OPTIONS], "another trace: the content behind the same options has changed since", tmp_path, capsys
    )


@pytest.mark.parametrize("name", ["bundle.json", "checkpoint.safetensors"])
def test_what_was_trained_is_never_written_over(
    name: str, usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("")
    refused(usual, r"holds a (trained policy|checkpoint) already; --resume goes on with it", tmp_path, capsys)


@pytest.mark.parametrize(
    ("checkpoint", "sentence"),
    [
        (True, "--out {} --resume goes on from the last checkpoint"),
        (False, "stopped before the first checkpoint; {} holds"),
    ],
)
def test_a_stop_promises_no_checkpoint_that_is_not_there(checkpoint: bool, sentence: str, tmp_path: Path) -> None:
    if checkpoint:
        (tmp_path / train.CHECKPOINT).write_text("")
    with pytest.raises(KeyboardInterrupt, match=re.escape(sentence.format(tmp_path))), train.resumable(tmp_path):
        raise KeyboardInterrupt


def test_a_stop_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt("stopped; go on")

    assert train.reported("tidesplit train", stop) == 130
    assert capsys.readouterr().err == "tidesplit train: stopped; go on\n"


def test_the_lines_in_the_docs_go_on_training(trained: Trained) -> None:
    """With the last learning rate, on the environment that the policy was trained in."""
    page = (ROOT / "docs" / "use.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    (lines,) = (block for block in blocks if "sb3_policy.zip" in block)
    for written, here in (("out/lte", str(trained.out)), ("fps=30", "fps=5"), ("deadline_ms=100", "deadline_ms=150")):
        assert written in lines
        lines = lines.replace(written, here)
    names: dict[str, Any] = {}
    exec(lines, names)  # the reader's own three lines
    model = names["model"]
    assert model.learning_rate == pytest.approx(0.05 * PpoConfig.rate)
    assert model.num_timesteps >= 10_000
    assert bundle.load(trained.out).table.ids == names["envs"].scenario.table.ids


HEADER = "time_s,bandwidth_mbps\n"
BAD_TRACES = {
    "negative bandwidth": (HEADER + "0,1\n1,-2\n", r"line 3: got bandwidth_mbps -2, expected 0 or more"),
    "NaN": (HEADER + "0,1\n1,nan\n", r"line 3: got bandwidth_mbps nan, expected a finite number"),
    "infinity": (HEADER + "0,inf\n", r"line 2: got bandwidth_mbps inf"),
    "time runs backwards": (HEADER + "0,1\n2,1\n1,1\n", r"line 4: time goes from 2 s to 1 s"),
    "empty": ("", "holds no data"),
    "header alone": (HEADER, r"line 1: got a header and no rows"),
    "wrong header": ("seconds,mbit\n0,1\n", r"line 1: got the header 'seconds,mbit'"),
    "a word": (HEADER + "0,fast\n", r"line 2: got bandwidth_mbps 'fast', expected a number"),
}


@pytest.fixture
def usual(tmp_path: Path) -> list[str]:
    """Options that would be fine."""
    profile = small_profile(tmp_path / "small.json")
    return ["--trace", "lte.csv", "--profile", str(profile), "--out", str(tmp_path / "out")]


@pytest.mark.parametrize("what", BAD_TRACES)
def test_a_bad_trace_is_told_in_one_sentence(
    what: str, usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, sentence = BAD_TRACES[what]
    (tmp_path / "uplink.csv").write_text(text)
    refused([*usual, "--trace", str(tmp_path / "uplink.csv")], f"uplink.csv.*{sentence}", tmp_path, capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--trace", "nowhere"], r"trace 'nowhere': no such file .* \(there is: .*lte.*\)"),
        (["--profile", "nowhere"], r"profile 'nowhere' is neither a file nor bundled"),
        (["--device", "toaster"], r"no timings of 'toaster'; it has raspberry-pi-4"),
        (["--server", "toaster"], r"no timings of 'toaster'"),
        (["--world", "nowhere"], r"world 'nowhere': No such file or directory; a JSON file, or one of as-traced"),
        (["--utility", "numpy:sign.at"], r"'numpy:sign.at' received, module:name expected"),
        (["--utility", "no_such:worth"], r"no_such:worth: there is no module no_such in "),
        (["--controller", "no_such:rule"], r"no_such:rule: there is no module no_such in "),
        (["--controller", "builtins:dict"], r"builtins:dict, called with the scenario .* failed: TypeError"),
        (["--fps", "-1"], r"-1 frames a second received, 0\.1 to 1000 expected"),
        (["--fps", "nan"], r"nan frames a second received"),
        (["--deadline-ms", "0"], r"a deadline of 0 ms received, 1 to 60000 ms expected"),
        (["--min-accuracy", "1.5"], r"an accuracy of at least 1\.5 received, 0 to 1 expected"),
        (["--min-accuracy", "0.99"], r"no operating point reaches it; the best is"),
        (["--holdout", "1"], r"--holdout from 0 to below 1"),
        (["--holdout", "nan"], r"--holdout from 0 to below 1"),
        (["--holdout-s", "-1"], r"--holdout-s of more than 0 expected, -1\.0 received"),
        (["--seed", "-1"], r"--seed of at least 0 expected, -1 received"),
        (["--steps", "-5"], r"--steps of at least 0"),
        (["--effort", "0"], r"--effort from 0.1 to 10 expected, 0.0 received"),
        (["--table-spread", "-1"], r"--table-spread"),
        (["--resume"], r"holds no checkpoint\.safetensors to go on from"),
        (["--out", "/proc/nowhere"], r"--out /proc/nowhere: "),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    words: list[str], sentence: str, usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused([*usual, *words], sentence, tmp_path, capsys)


def refused(words: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one line that begins with the program's name, and nothing was written."""
    before = contents(folder)
    assert train.main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("tidesplit train: error: ")
    assert told.count("\n") == 1
    assert re.search(sentence, told), told
    assert contents(folder) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", [["--steps", "many"], ["--objective", "speed"], ["--colour", "red"]])
def test_unknown_options_and_values_are_refused(
    words: list[str], usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        train.main([*usual, *words])
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_a_finished_bundle_is_never_written_over(trained: Trained) -> None:
    before = contents(trained.out)
    done = command("--trace", "lte.csv", "--profile", trained.profile, "--out", trained.out)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"tidesplit train: error: {trained.out} holds a trained policy already; "
        "--resume goes on with it, another --out keeps it\n"
    )
    assert contents(trained.out) == before


@pytest.mark.parametrize(
    ("words", "start"),
    [
        ([], GENERALIST),
        (["--start", "scratch"], None),
        (["--start", "out/other"], Path("out/other")),
        (["--objective", "latency"], None),
        (["--objective", "latency", "--start", "generalist"], GENERALIST),
        (["--tiers", "3"], None),
    ],
)
def test_it_starts_from_the_policy_that_ships_where_that_has_seen_the_like(
    words: list[str], start: Path | None
) -> None:
    config = train.parse(["--trace", "lte.csv", *words])
    of = load_traces("lte"), load_traces("metro") if "3" in words else []
    train_on = train.scenario(config, profiles.load(config.world.profile), *of)
    assert train.start_of(config.training, train_on, "efficientnet_lite0") == start
    foreign = train.start_of(config.training, train_on, "my_own_net")
    assert foreign == (start if config.training.start else None)
    own = replace(train_on, world=replace(train_on.world, utility=lambda accuracy, latency_s, deadline_s: accuracy))
    assert train.start_of(config.training, own, "efficientnet_lite0") == foreign


def test_every_option_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--help"])
    told = capsys.readouterr().out
    for option in ("--trace", "--objective", "--min-accuracy", "--deadline-ms", "--fps", "--seed", "--resume", "--out"):
        assert option in told


@pytest.mark.parametrize(
    ("words", "machines"),
    [
        ([], ("raspberry-pi-4", "x86-2core")),
        (["--tiers", "3"], ("raspberry-pi-4", "i5-2500", "x86-2core")),
        (["--tiers", "3", "--server", "a", "--cloud", "b"], ("raspberry-pi-4", "a", "b")),
    ],
)
def test_machines_of_two_tiers_and_of_three(words: list[str], machines: tuple[str, ...]) -> None:
    assert train.parse(words).world.machines == machines


# words, GB a month of two points, of which the second is better -> the budget in place of the usual 10 GB
BUDGETS: dict[str, tuple[list[str], list[float], float | None]] = {
    "points meet the usual one": ([], [9.0, 60.0], None),
    "none does": ([], [20.0, 60.0], 40.0),
    "the best needs the least": ([], [60.0, 20.04], 20.1),
    "the user's own": (["--max-gb-month", "3"], [20.0, 60.0], None),
    "no budget": (["--max-gb-month", "inf"], [20.0, 60.0], None),
    "one of energy": (["--max-watts", "3"], [20.0, 60.0], None),
}


@pytest.mark.parametrize("case", BUDGETS.values(), ids=BUDGETS)
def test_a_usual_budget_that_no_point_meets_is_replaced(
    case: tuple[list[str], list[float], float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, gb, expected = case
    config = train.parse(words)
    made = train.scenario(config, synthetic_profile(), [Trace("flat", np.zeros(1), 10.0, np.array([2e6]))], [])
    means = Spent(np.array([0.5, 0.9]), np.zeros(2), np.array([byte_rate_of(one) / 30.0 for one in gb]))
    monkeypatch.setattr(ladder, "point_means", lambda *_: means)
    assert train.within_reach(config.demand, made) == expected


@pytest.mark.parametrize(
    ("words", "watts", "gb"),
    [
        ([], None, 10.0),
        (["--max-watts", "4.8"], 4.8, None),
        (["--max-watts", "inf"], None, None),
        (["--max-gb-month", "inf"], None, None),
        (["--max-watts", "4.8", "--max-gb-month", "30"], 4.8, 30.0),
    ],
)
def test_budgets_of_the_options(words: list[str], watts: float | None, gb: float | None) -> None:
    demand = train.parse(words).demand.demand
    assert (demand.max_watts, demand.max_gb_month) == (watts, gb)


def test_a_scenario_of_three_tiers(tmp_path: Path) -> None:
    config = train.parse(["--tiers", "3", "--trace-spread", "0.5"])
    links = [Trace(name, np.zeros(1), 10.0, np.array([2e6])) for name in ("first", "second")]
    made = train.scenario(config, synthetic_profile(), links[:1], links[1:])
    assert [[trace.name for trace in traces] for traces in made.links] == [["first"], ["second"]]
    assert made.trace_spread == 0.5
    assert train.check_episodes(made).further == made.further


@pytest.mark.parametrize(("budget", "quantile"), [({"max_watts": 4.5}, 0.5), ({"max_gb_month": 5.0}, 1.0)])
def test_a_policy_begins_thrifty_only_with_data(budget: dict[str, float], quantile: float) -> None:
    asked = scenario_from(trace="lte", fps=5, profile="cifar_resnet", **budget)  # type: ignore[arg-type]
    ppo, prices = PpoConfig(lanes=4, rollout=8, batch=32), Prices.of(1.0, 1e-4)
    model = training.new_model(asked, training.Recipe(ppo=ppo), GENERALIST)
    found = train.entrant(model, asked, prices)
    settled = budgeted.settled(
        Learner(training.policy_of(model)), asked, prices, ladder.SETTLING_LANES, train.PRICING.seed, quantile
    )
    assert isinstance(found, budgeted.Budgeted)
    assert found.prices == settled.prices
