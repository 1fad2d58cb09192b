"""A bundle takes the models of its points from a prepared folder of the same weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.deployed import points, small_cnn
from tidesplit.agents.learning import training
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.profiling.points import profile as profiles
from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.export import main


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like one of `tidesplit prepare`: a CNN that is not bundled, and its profile."""
    folder = tmp_path_factory.mktemp("prepared")
    cnn = small_cnn(folder / "cnn")
    profile = replace(points(cnn.partitions)[0], name=cnn.name, cnn={"weights_sha256": cnn.weights_sha256})
    profiles.save(profile, folder / "profile.json")
    return folder


def bundle(prepared: Path, out: Path) -> Path:
    profile = profiles.load(prepared)
    machine = next(iter(profile.devices))
    scenario = scenario_from(trace="lte", profile=profile, device=machine, server=machine)
    small = training.PpoConfig(lanes=4, rollout=8, batch=32)
    write_bundle(
        out, training.policy_of(training.new_model(scenario, training.Recipe(ppo=small))), profile=profile,
        table=scenario.table, machines=(machine, machine), demand=scenario.demands[0], config={"trace": "lte.csv"},
    )  # fmt: skip
    return out


def test_models_are_copied(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = bundle(prepared, tmp_path / "bundle")
    assert main(["--bundle", str(out), "--cnn", str(prepared / "cnn")]) == 0
    assert " models of cifar_resnet, weights 5a5a" in capsys.readouterr().out
    whole, copied = load_cnn(prepared / "cnn"), load_cnn(out / "cnn")
    assert set(copied.files) < set(whole.files)
    assert "tail-p1" not in copied.models
    picture = np.zeros((1, 3, 32, 32), dtype=np.float32)
    for name in copied.models:
        if not name.startswith("finish"):
            for ours, theirs in zip(copied.session(name).run(None, {"x": picture}),
                                    whole.session(name).run(None, {"x": picture}), strict=True):  # fmt: skip
                np.testing.assert_array_equal(ours, theirs)


def test_other_weights_are_refused(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = bundle(prepared, tmp_path / "bundle")
    other = small_cnn(tmp_path / "other").folder
    manifest = json.loads((other / "cnn.json").read_text(encoding="utf-8"))
    (other / "cnn.json").write_text(json.dumps({**manifest, "weights_sha256": "6b" * 32}), encoding="utf-8")
    assert main(["--bundle", str(out), "--cnn", str(other)]) == 2
    assert "has weights 6b6b6b6b6b6b6b6b, the policy was trained for 5a5a5a5a5a5a5a5a" in capsys.readouterr().err
    assert main(["--bundle", str(out)]) == 2
    assert "the policy was trained for 5a5a5a5a5a5a5a5a: give tidesplit export --bundle" in capsys.readouterr().err
    assert not (out / "cnn").exists()
