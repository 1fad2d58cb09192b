"""`tidesplit prepare` on a small net of plain torch, from its pictures to a folder that the runtime takes."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.prepare.small_net import CLASSES, small_net
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.compression.codec.pixels import load_square, natural_picture, to_input
from tidesplit.prepare.__main__ import main
from tidesplit.prepare.result.filmed import why_not
from tidesplit.prepare.result.judged import Judge, judge
from tidesplit.prepare.source.folder_pictures import read_folder
from tidesplit.prepare.source.picture_net import PictureNet
from tidesplit.prepare.source.preprocessing import PRESETS
from tidesplit.prepare.task import Classes
from tidesplit.profiling.__main__ import main as profile_main
from tidesplit.profiling.devices.raspberry_pi import main as estimate_main
from tidesplit.profiling.points import profile as profiles
from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.server.tails import Item, Tails
from tidesplit.runtime.timing.work import check_models

NET = "tests.prepare.small_net"
PX = 32


def draw(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(natural_picture(40, seed=100 * seed + i)).save(folder / f"{i}.png")


def prepare(pictures: Path, out: Path, *words: str) -> int:
    usual = ["--px", str(PX), "--steps", "3", "--batch", "8", "--rounds", "1", "--threads", "1"]
    return main([f"{NET}:small_net", "--pictures", str(pictures), "--out", str(out), *usual, *words])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(CLASSES):
        draw(folder / f"kind{i}", 12, i)
    return folder


@pytest.fixture(scope="module")
def made(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "my_cnn"
    assert prepare(pictures, out) == 0
    return out


def test_the_models_answer_as_the_net_does(made: Path, pictures: Path) -> None:
    cnn = load_cnn(made / "cnn")
    net = PictureNet(small_net(), PRESETS["imagenet"]).eval()
    pixels = load_square(next(pictures.rglob("*.png")), PX)
    picture = to_input(pixels)
    with torch.no_grad():
        expected = net(torch.from_numpy(picture)).numpy()
    for model in ("device-c1.00", "tail-p0"):
        np.testing.assert_allclose(cnn.session(model).run(None, {"x": picture})[0], expected, atol=1e-4)
    feature, y, score = cnn.session("head-p1-c1.00").run(None, {"x": picture})
    finished = cnn.session("finish-p1-c1.00").run(None, {"x": feature})[0]
    np.testing.assert_allclose(finished, expected, atol=1e-4)
    payload = cnn.codec.encode(y[0], score[0, 0], Knobs(1, 1.0, 1.0, 2))
    values, knobs = cnn.codec.decode(payload)
    assert knobs == Knobs(1, 1.0, 1.0, 2)
    assert cnn.session("tail-p1").run(None, {"x": values[None]})[0].shape == (1, CLASSES)
    int8 = cnn.session("device-c1.00-i8").run(None, {"x": picture})[0]
    np.testing.assert_allclose(int8, expected, atol=0.1)


def test_the_profile_belongs_to_the_models(made: Path) -> None:
    profile, cnn = profiles.load(made / "profile.json"), load_cnn(made / "cnn")
    check_models(cnn, profile)
    assert (profile.name, profile.cnn["measure"], cnn.classes) == ("my_cnn", "top-1", ("kind0", "kind1", "kind2"))
    assert {"this-machine", "raspberry-pi-4"} <= set(profile.devices)
    assert profile.devices["raspberry-pi-4"].provenance.kind == "estimated"
    point = profile.point("p1-c1.00-r1.00-b2")
    assert point.fallback == "device-c1.00"
    assert 0 < point.bytes_mean < profile.point("p1-c1.00-r1.00-b8").bytes_mean
    assert 0 < point.head_macs < profile.point("device-c1.00").head_macs
    card = (made / "card.md").read_text(encoding="utf-8")
    assert "| `p1-c1.00-r1.00-b2` | `net.4` | 51% |" in card
    assert "- trained of 3 steps in at most 4 minutes a cut: 3 at cut 6\n" in card


def test_the_profile_stands_by_itself(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its report and its estimates need no CNN of this package."""
    copied = tmp_path / "profile.json"
    copied.write_bytes((made / "profile.json").read_bytes())
    assert profile_main(["report", "--profile", str(made)]) == 0
    assert "my_cnn" in capsys.readouterr().out
    assert estimate_main(["--profile", str(copied), "--from", "this-machine", "--table", "raspberry-pi-5"]) == 0
    assert profiles.load(copied).devices["raspberry-pi-5"] == profiles.load(made).devices["raspberry-pi-5"]


def test_points_are_judged_by_the_models_of_device_and_server(made: Path, pictures: Path) -> None:
    cnn, read = load_cnn(made / "cnn"), read_folder(pictures, CLASSES)
    folder, task = read.to_judge(PX), Classes(cnn.form, read.labels)
    files = {name: cnn.read(name) for name in cnn.files}
    stills = [point for point in profiles.load(made).points if point.stream is None]
    settings = {point.id: asdict(point) for point in stills}
    judge_of = Judge(files, cnn.models, cnn.codec, settings, task)
    counts = judge(judge_of, folder, task)
    assert judge(judge_of, folder, task, threads=3) == counts
    for point in stills:
        assert (point.n, point.accuracy) == (counts[point.id].n, counts[point.id].right / point.n)
    picture, found = np.asarray(folder.images[0]), judge_of.answers(np.asarray(folder.images[0]))
    _, y, score = cnn.session("head-p1-c1.00-i8").run(None, {"x": to_input(picture)})
    payload = cnn.codec.encode(y[0], score[0, 0], Knobs(1, 1.0, 1.0, 4))
    tail, server = cnn.session("tail-p1"), Tails(cnn)
    (answer,) = server.run("tail-p1", [Item(1, payload)])
    assert found["p1-c1.00-r1.00-b4-i8"] == (int(answer.argmax()), len(payload))
    assert tail.get_inputs()[0].shape[0] == "frames"
    assert server.limit("tail-p1") > 1
    assert found["device-c1.00-i8"][0] == cnn.session("device-c1.00-i8").run(None, {"x": to_input(picture)})[0].argmax()


def test_video_is_measured_on_a_moving_camera_over_the_pictures(made: Path) -> None:
    profile = profiles.load(made)
    videos = [point for point in profile.points if point.codec == "h264"]
    assert [point.bits for point in videos] == [26, 30, 34, 38]
    assert profile.stream_provenance is not None
    assert profile.stream_provenance.kind == "measured"
    for point in videos:
        assert point.stream is not None
        assert point.bytes_mean == point.stream.by_age[0] < point.stream.key
        assert point.accuracy <= profile.point("p0-jpeg-q95").accuracy
        assert point.n == 16 * 4, "four frames of a clip of each picture"
        assert profile.devices["raspberry-pi-4"].timings[point.id].encode_s > 0.0
    sizes = [point.bytes_mean for point in videos]
    assert sizes == sorted(sizes, reverse=True)
    card = (made / "card.md").read_text(encoding="utf-8")
    assert "Video. Its top-1 is that of `p0-jpeg-q95` less what video loses on 64 frames of a moving camera." in card
    assert card.count("| `p0-h264-q") == 4


def test_without_video(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(pictures, tmp_path / "odd", "--px", "33", "--no-int8") == 0
    assert "no video: H.264 takes even sides only, and the net's is 33" in capsys.readouterr().err
    profile = profiles.load(tmp_path / "odd")
    assert all(point.stream is None for point in profile.points)
    assert "Video" not in (tmp_path / "odd" / "card.md").read_text(encoding="utf-8")
    assert prepare(pictures, tmp_path / "odd", "--px", "33", "--no-int8", "--no-video") == 0
    assert "no video" not in capsys.readouterr().err


def test_without_pyav_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert why_not(PX) == "video offload needs PyAV: pip install 'tidesplit[video]'"


def test_finished_steps_are_kept(made: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (made / "profile.json").read_bytes()
    assert prepare(pictures, made) == 0
    told = capsys.readouterr().err
    assert told.count("done before") == told.count("\n") == 7
    assert (made / "profile.json").read_bytes() == before


def test_points_that_are_judged_again_are_in_the_profile(made: Path, pictures: Path, tmp_path: Path) -> None:
    again, names = tmp_path / made.name, tmp_path / "names.txt"
    shutil.copytree(made, again)
    names.write_text("no\nsuch\nfolders\n", encoding="utf-8")
    assert prepare(pictures, again, "--classes", str(names)) == 0
    profile = profiles.load(again)
    assert (profile.cnn["measure"], profile.point("device-c1.00").accuracy) == ("agreement", 1.0)


def test_without_labels_agreement_is_measured(
    made: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del made
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted(pictures.rglob("*.png"))):
        (flat / f"{i}.png").write_bytes(path.read_bytes())
    words = ["--no-int8", "--preprocess", "lite", "--crop", "0.8", "--steps", "1000000", "--minutes", "0.01"]
    assert prepare(flat, tmp_path / "other", *words) == 0
    assert " of 1000000 steps, ended by --minutes 0.01" in capsys.readouterr().err
    profile = profiles.load(tmp_path / "other" / "profile.json")
    assert (profile.cnn["measure"], profile.point("device-c1.00").accuracy) == ("agreement", 1.0)
    assert "agreement" in profile.accuracy_provenance.spread
    manifest = json.loads((tmp_path / "other" / "cnn" / "cnn.json").read_text(encoding="utf-8"))
    assert (manifest["preprocess"]["mean"], manifest["classes"][1]) == ([0.5, 0.5, 0.5], "class 1")
    assert load_cnn(tmp_path / "other" / "cnn").crop == 0.8  # the device does as the preparation did


def test_cuts_are_listed(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(pictures, tmp_path / "none", "--list") == 0
    assert "chosen: 6 (51%)" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def told(capsys: pytest.CaptureFixture[str], words: list[str], out: Path) -> str:
    """The one sentence of a refused command, which leaves nothing behind."""
    assert main([*words, "--out", str(out)]) == 2
    found = capsys.readouterr().err
    assert found.startswith("tidesplit prepare: error: ")
    assert found.count("\n") == 1
    assert not out.exists()
    return found.removeprefix("tidesplit prepare: error: ").rstrip()


def test_bad_nets(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest, out = ["--pictures", str(pictures), "--px", "32"], tmp_path / "out"
    assert told(capsys, ["nowhere", *rest], out).startswith("'nowhere' received, module:factory expected")
    assert "No module named 'not_there'" in told(capsys, ["not_there:net", *rest], out)
    assert told(capsys, [f"{NET}:no_net", *rest], out).endswith("int received, a torch.nn.Module expected")
    assert f"{NET}:dynamic_net: torch.export cannot follow this net (" in told(
        capsys, [f"{NET}:dynamic_net", *rest], out
    )
    assert "no legal cut" in told(capsys, [f"{NET}:one_layer", *rest], out)
    assert "logits [1, classes] expected" in told(capsys, [f"{NET}:no_logits", *rest, "--task", "classes"], out)
    assert "takes pictures of 16" not in told(capsys, [f"{NET}:wide_net", *rest], out)


def test_bad_weights(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest, out = [f"{NET}:small_net", "--pictures", str(pictures), "--px", "32", "--weights"], tmp_path / "out"
    state, path = small_net().state_dict(), tmp_path / "weights.pt"
    assert "no such file" in told(capsys, [*rest, str(path)], out)
    torch.save({"state_dict": {**state, "11.weight": torch.zeros(7, 12)}}, path)
    assert "11.weight has shape (7, 12), and the net's has (3, 12)" in told(capsys, [*rest, str(path)], out)
    torch.save({name: value for name, value in state.items() if name != "0.weight"}, path)
    assert "1 of its weights are missing ['0.weight']" in told(capsys, [*rest, str(path)], out)
    torch.save(small_net(), path)
    assert "it holds more than weights" in told(capsys, [*rest, str(path)], out)
    path.write_bytes(b"no weights")
    assert "weights.pt: " in told(capsys, [*rest, str(path)], out)


def test_bad_pictures_and_settings(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, out, few = [f"{NET}:small_net", "--px", "32"], tmp_path / "out", tmp_path / "few"
    draw(few, 20, 7)
    assert "no such folder" in told(capsys, [*net, "--pictures", str(tmp_path / "none")], out)
    assert "4 pictures to fit to and 16 to judge by, at least 16" in told(capsys, [*net, "--pictures", str(few)], out)
    (few / "names.txt").write_text("one\ntwo\n", encoding="utf-8")
    wrong = ["--pictures", str(pictures), "--classes", str(few / "names.txt")]
    assert "2 class names received, 3 expected" in told(capsys, [*net, *wrong], out)
    assert "--cuts 1,99 received" in told(capsys, [*net, "--pictures", str(pictures), "--cuts", "1,99"], out)
    (few / "own.json").write_text('{"sise": 32}', encoding="utf-8")
    own = ["--pictures", str(pictures), "--preprocess", str(few / "own.json")]
    assert "an object with some of the fields colours, crop, layout, mean, size, std" in told(capsys, [*net, *own], out)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--steps", "0", "from 1 to"),
        ("--threads", "0", "from 1 to"),
        ("--minutes", "-1", "from 0.01"),
        ("--cuts", "a", "3,9"),
    ],
)
def test_numbers_out_of_range(option: str, value: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([f"{NET}:small_net", "--pictures", "photos", "--out", "made", option, value])
    assert f"{option}: {value!r} received, " in (said := capsys.readouterr().err)
    assert expected in said
