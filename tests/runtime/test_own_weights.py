"""Weights of a user's own for a bundled net, from their file to the answers of a server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime.deployed import CLASSES, points
from tests.runtime.servers import ServerThread
from tidesplit.agents.learning import training
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.net.system import SplitNet
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.models.weights import save_weights, sha256_of
from tidesplit.runtime import export
from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.edge import watch
from tidesplit.runtime.server.serving import ServerOptions


def own_weights(path: Path, seed: int) -> Path:
    """A file as `tidesplit train-cnn` writes it."""
    torch.manual_seed(seed)
    save_weights(path, SplitNet(CifarResNet(len(CLASSES))), {"classes": json.dumps(CLASSES)})
    return path


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_weights(tmp_path_factory.mktemp("own") / "mine.safetensors", 1)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_weights(tmp_path_factory.mktemp("other") / "other.safetensors", 2)


@pytest.fixture
def bundle(own: Path, tmp_path: Path) -> Path:
    """A policy for the profile of these weights. It has no models yet."""
    profile = replace(points(3)[0], cnn={"weights_sha256": sha256_of(own)})
    scenario = scenario_from(trace="lte", profile=profile, device="device", server="server")
    small = training.PpoConfig(lanes=4, rollout=8, batch=32)
    write_bundle(
        tmp_path / "bundle", training.policy_of(training.new_model(scenario, training.Recipe(ppo=small))),
        profile=profile, table=scenario.table, machines=("device", "server"), demand=scenario.demands[0],
        config={"trace": "lte.csv"},
    )  # fmt: skip
    return tmp_path / "bundle"


def exported(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The error line of `tidesplit export`, empty where it worked."""
    status = export.main([str(word) for word in words])
    text = capsys.readouterr().err.strip().splitlines()
    return "" if status == 0 else text[-1]


def test_only_the_weights_of_the_policy_are_taken(
    bundle: Path, own: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, remedy = sha256_of(own)[:16], "by --weights FILE or --cnn FOLDER"
    for words in ((), ("--weights", other)):
        line = exported(capsys, "--bundle", bundle, *words)
        assert f"the policy was trained for {mine}" in line
        assert line.endswith(remedy)
    assert exported(capsys, "--bundle", bundle, "--weights", own) == ""
    assert load_cnn(bundle / "cnn").weights_sha256 == sha256_of(own)


def test_models_of_other_weights_are_named_and_replaced(
    bundle: Path, own: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody has to delete a folder, and none is deleted for nothing."""
    export.main(["--profile", "cifar_resnet", "--weights", str(other), "--out", str(bundle / "cnn")])
    with pytest.raises(ValueError, match=f"cnn holds other weights, {sha256_of(other)[:16]}; .* give tidesplit export"):
        watch(bundle, "localhost:1", print, [])
    assert exported(capsys, "--bundle", bundle, "--weights", own) == ""
    assert load_cnn(bundle / "cnn").weights_sha256 == sha256_of(own)


def test_a_server_of_the_same_weights_answers_and_one_of_others_says_so(
    bundle: Path, own: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(capsys, "--bundle", bundle, "--weights", own)
    found = dict[str, list[Any]]()
    for weights in (own, other):
        exported(capsys, "--profile", "cifar_resnet", "--weights", weights, "--out", tmp_path / weights.stem)
        records = found.setdefault(weights.stem, [])
        with ServerThread(load_cnn(tmp_path / weights.stem), ServerOptions()) as server:
            pictures = [natural_picture(32, seed) for seed in range(4)]
            options = {"fps": 10, "deadline_ms": 2000, "point": "p0-jpeg-q50"}
            watch(bundle, server.address, records.append, pictures, **options)
    assert [record.answered_by for record in found["mine"]] == ["server"] * 4
    assert {record.answered_by for record in found["other"]} == {"device"}
    error = found["other"][-1].error
    assert f"weights '{sha256_of(own)[:16]}' received, this server has {sha256_of(other)[:16]}" in error
    assert "start tidesplit server with --cnn FOLDER" in error


def junk(path: Path) -> None:
    path.write_bytes(b"no weights")


def of_others(path: Path) -> None:
    save_weights(path, SplitNet(CifarResNet(2)), {"classes": json.dumps(CLASSES)})


def without_classes(path: Path) -> None:
    save_weights(path, torch.nn.Linear(2, 2), {})


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: None, "there is no weights file "),
        (junk, "is no file of safetensors: "),
        (without_classes, "names no classes: weights of tidesplit train-cnn expected"),
        (of_others, "does not fit the network: size mismatch for net.classifier.weight"),
    ],
)
def test_a_file_that_holds_no_such_weights(
    write: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "file")
    words = ("--profile", "cifar_resnet", "--weights", tmp_path / "file", "--out", tmp_path / "out")
    assert sentence in exported(capsys, *words)
    assert not (tmp_path / "out").exists()
