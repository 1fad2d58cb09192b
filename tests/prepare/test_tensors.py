"""A net whose answer is tensors, as a detector's: measured by fidelity, prepared, served, and written by the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.runtime.servers import ServerThread
from tidesplit.agents.learning import training
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.compression.codec.image_codec import encode_image, seen_by_server
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.prepare.__main__ import main
from tidesplit.prepare.source import picture_net
from tidesplit.prepare.source.picture_net import PictureNet
from tidesplit.prepare.source.preprocessing import PRESETS, PrepareError
from tidesplit.prepare.task import Tensors
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.tiers import table_of
from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.edge import watch
from tidesplit.runtime.export import copy_for_bundle
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.server.serving import ServerOptions
from tidesplit.runtime.timing.work import check_models
from tidesplit.runtime.wire.output_tensors import AnswerForm

PX, KINDS = 32, 3
SHAPES = {"heat": (1, KINDS, 8, 8), "boxes": (1, 4, 8, 8)}
FORM = AnswerForm(SHAPES)
USUAL = ["--px", str(PX), "--steps", "3", "--batch", "8", "--rounds", "1", "--threads", "1"]
POINTS = ("p0-jpeg-q95", "device-c1.00", "p1-c1.00-r1.00-b8")


class _Finder(nn.Module):
    """A fully convolutional detector: scores of each kind and a box, at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(12, 12, 3, 1, 1), nn.ReLU(),
        )  # fmt: skip
        self.heat, self.boxes = nn.Conv2d(12, KINDS, 1), nn.Conv2d(12, 4, 3, 1, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.body(x)
        return {"heat": self.heat(found).sigmoid(), "boxes": 100 * self.boxes(found)}


def finder() -> nn.Module:
    torch.manual_seed(0)
    return _Finder()


class _Given(nn.Module):
    def __init__(self, *outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Any:
        return self.outputs


def whole_numbers() -> nn.Module:
    return _Given(torch.zeros(1, 2, 2), torch.zeros(1, 3, dtype=torch.int64))


class _Pair(_Finder):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        heat = super().forward(x)["heat"]
        return {"left": heat, "right": 2 * heat}


class _Swapped(_Pair):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return dict(reversed(super().forward(x).items()))


def without_batch() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(0, 1), nn.Flatten())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In sub-folders, which are no classes here."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(36):
        (folder / str(i % KINDS)).mkdir(exist_ok=True)
        Image.fromarray(natural_picture(40, seed=i)).save(folder / str(i % KINDS) / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def made(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "finder"
    assert main([f"{__name__}:finder", "--pictures", str(pictures), "--out", str(out), *USUAL, "--cuts", "4"]) == 0
    return out


def expected(x: np.ndarray) -> dict[str, np.ndarray]:
    """What torch answers to a picture `[1, 3, px, px]`."""
    with torch.no_grad():
        found = PictureNet(finder(), PRESETS["imagenet"]).eval().run(torch.from_numpy(x))
    return {name: tensor.numpy() for name, tensor in found.items()}


def assert_alike(found: dict[str, np.ndarray], x: np.ndarray) -> None:
    for name, tensor in expected(x).items():
        assert found[name].shape == SHAPES[name]
        np.testing.assert_allclose(found[name], tensor, rtol=1e-3, atol=1e-3 * np.abs(tensor).max())


def test_the_profile_has_fidelity_and_the_models_the_tensors(made: Path) -> None:
    profile, cnn = profiles.load(made), load_cnn(made / "cnn")
    check_models(cnn, profile)
    assert (profile.cnn["measure"], cnn.form, cnn.classes) == ("fidelity", FORM, ())
    assert profile.point("device-c1.00").accuracy == 1.0
    few, many = (profile.point(f"p1-c1.00-r1.00-b{bits}") for bits in (1, 8))
    assert 0 < few.accuracy < many.accuracy < 1
    assert few.accuracy_ci95[0] < few.accuracy < few.accuracy_ci95[1]
    assert profile.point("device-c1.00-i8").accuracy > 0.95  # heat too, although boxes are a hundred times as large
    card = (made / "card.md").read_text(encoding="utf-8")
    assert "- answers `heat` [1, 3, 8, 8], `boxes` [1, 4, 8, 8], pictures of 32 x 32" in card
    assert "- the figures are fidelity: 1 - |y - y0|^2" in card


@pytest.fixture(scope="module")
def bundle(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy for the profile as it is, with the models of its points."""
    profile, out, machines = profiles.load(made), tmp_path_factory.mktemp("policy") / "bundle", ("this-machine",) * 2
    scenario = scenario_from(trace="lte", profile=profile, device=machines[0], server=machines[1])
    small = training.PpoConfig(lanes=4, rollout=8, batch=32)
    write_bundle(
        out, training.policy_of(training.new_model(scenario, training.Recipe(ppo=small))), profile=profile,
        table=table_of(profile, machines, POINTS), machines=machines, demand=scenario.demands[0],
        config={"trace": "lte.csv"},
    )  # fmt: skip
    copy_for_bundle(out, load_cnn(made / "cnn"))
    return out


def test_server_and_device_answer_with_the_tensors_of_torch(made: Path, bundle: Path, tmp_path: Path) -> None:
    pixels, log, folder = natural_picture(PX, seed=99), tmp_path / "log.jsonl", tmp_path / "answers"
    records: dict[str, Record] = {}
    with ServerThread(load_cnn(made / "cnn"), ServerOptions(port=0)) as server:
        for point in POINTS:
            taken: list[Record] = []
            watch(
                bundle, server.address, taken.append, [pixels], point=point, deadline_ms=20_000.0, json=log,
                tensors=folder,
            )  # fmt: skip
            (records[point],) = taken
    picture = to_input(seen_by_server(encode_image(pixels, "jpeg", 95), PX))
    assert [record.answered_by for record in records.values()] == ["server", "device", "server"]
    assert_alike(records["p0-jpeg-q95"].tensors(), picture)
    assert_alike(records["device-c1.00"].tensors(), to_input(pixels))
    last = records["p1-c1.00-r1.00-b8"]
    assert last.tensors().keys() == SHAPES.keys()
    (line, _, _) = (json.loads(text) for text in log.read_text(encoding="utf-8").splitlines())
    assert (line["class"], line["top5"]) == (None, [])
    values = records["p0-jpeg-q95"].tensors()["heat"]
    assert line["tensors"]["heat"]["shape"] == list(SHAPES["heat"])
    np.testing.assert_allclose(np.reshape(line["tensors"]["heat"]["values"], SHAPES["heat"]), values, rtol=1e-5)
    with np.load(folder / "00000000.npz") as file:  # each run begins with frame 0
        np.testing.assert_array_equal(file["boxes"], last.tensors()["boxes"])


@pytest.mark.parametrize(
    ("names", "task"), [(["scores", "boxes"], "tensor"), (["scores", "logits"], "classes"), (["scores"], "classes")]
)
def test_no_output_is_lost_by_default(names: list[str], task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"scores": torch.zeros(1, 5), "boxes": torch.zeros(1, 4, 5), "logits": torch.zeros(1, 5)}
    net = _Given()
    net.outputs = {name: found[name] for name in names}  # type: ignore[assignment]
    monkeypatch.setattr(picture_net, "load_net", lambda *_: net)
    assert picture_net.load_picture_net("a:net", None, PRESETS["lite"]).task == task


def test_two_outputs_of_one_name_are_refused() -> None:
    with pytest.raises(PrepareError, match="the net gives 2 outputs of 1 names"):
        picture_net.outputs({"a": [torch.zeros(1)], "a0": torch.ones(1)})


def task_of_two(mean: list[float]) -> Tensors:
    return Tensors(AnswerForm({"a": (1, 2), "b": (1, 1)}), np.float32(mean))


@pytest.mark.parametrize(
    ("answer", "fidelity"),
    [
        ([1, 1, 5], 1.0),  # the reference itself
        ([0, 0, 3], 0.0),  # the mean
        ([0.5, 0.5, 4], 0.75),  # half-way: a quarter of the squared deviation is left
        ([0, 0, 5], 0.5),  # one tensor is right
        ([9, 9, 5], 0.5),  # an error above the deviation counts as much as the mean
    ],
)
def test_fidelity_of_known_answers(answer: list[float], fidelity: float) -> None:
    task = Tensors(AnswerForm({"a": (1, 2), "b": (1, 1)}))
    task = task.knowing(lambda: [np.float32([1, 1, 5]), np.float32([-1, -1, 1])])
    assert task.score(np.float32(answer), np.float32([1, 1, 5])) == fidelity


def test_where_all_answers_are_the_same_only_that_one_is_right() -> None:
    task = task_of_two([1, 1, 5])
    assert task.score(np.float32([1, 1, 5]), np.float32([1, 1, 5])) == 1.0
    assert task.score(np.float32([1, 1, 6]), np.float32([1, 1, 5])) == 0.5


def test_the_interval_is_that_of_a_mean() -> None:
    scores = np.array([0.8, 0.9, 1.0, 0.7])
    low, high = task_of_two([0, 0, 0]).interval(scores.sum(), (scores**2).sum(), 4)
    assert high - low == pytest.approx(2 * 1.96 * scores.std() / 2)
    assert (low + high) / 2 == pytest.approx(0.85)


def test_tensors_of_other_units_weigh_the_same() -> None:
    task, made = Tensors(AnswerForm({"a": (1, 4), "b": (1, 4)})), torch.Generator().manual_seed(0)
    targets = torch.randn(64, 8, generator=made) * torch.tensor([1.0] * 4 + [100.0] * 4) + 7.0
    losses = task.losses(targets.mean(0).expand(64, 8), targets)
    assert losses.shape == (64,)
    assert losses.mean().item() == pytest.approx(1.0)  # as large as the deviation
    assert task.losses(targets, targets).abs().max() == 0
    sizes = task.directions(targets, made).square().mean(0)
    assert (sizes[:4].mean() / sizes[4:].mean()).item() == pytest.approx(1e4, rel=0.5)


@pytest.mark.parametrize(
    ("net", "words", "sentence"),
    [
        (
            "finder",
            ["--task", "classes"],
            "an output of shape [1, 3, 8, 8], logits [1, classes] expected; --task tensor",
        ),
        ("finder", ["--classes", __file__], "the net's answer is heat [1, 3, 8, 8] and boxes [1, 4, 8, 8], not of"),
        ("whole_numbers", [], "the net gives output1 of int64, outputs of float32 expected"),
        ("without_batch", ["--task", "tensor"], "output 'output' of shape [4, 169] received, [1, ...] expected"),
        ("finder", ["--server-net", "tests.prepare.small_net:no_logits"], "answers output [1, 3, 32, 32], heat"),
        ("_Pair", ["--server-net", f"{__name__}:_Swapped"], "answers right [1, 3, 8, 8] and left [1, 3, 8, 8], left"),
    ],
)
def test_answers_that_cannot_be_taken(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], net: str, words: list[str], sentence: str
) -> None:
    rest = ["--pictures", str(pictures), "--out", str(tmp_path / "out"), *USUAL]
    assert main([f"{__name__}:{net}", *rest, *words]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
