"""The command lines of profiling: help, a user's mistakes, and a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.data.files import PROFILES, WEIGHTS, profile_files
from tidesplit.models.weights import read_metadata
from tidesplit.profiling.__main__ import main
from tidesplit.profiling.cuts import legal_cuts
from tidesplit.profiling.devices import raspberry_pi
from tidesplit.profiling.devices.boards import BOARDS
from tidesplit.profiling.points import profile as profiles

VERBS = ("accuracy", "chain", "report", "switching")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: tidesplit profile {verb} ")


@pytest.mark.parametrize("command", [main, legal_cuts.main, raspberry_pi.main])
def test_help_of_every_command(command: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command(["--help"])
    assert capsys.readouterr().out.startswith("usage: tidesplit ")


def test_a_report_and_its_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--profile", "cifar_resnet", "--plot", str(tmp_path / "plot.png")]) == 0
    assert "whole CNN on the device" in capsys.readouterr().out
    assert (tmp_path / "plot.png").stat().st_size > 1000


def bundled() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in PROFILES.iterdir()}


def test_a_profile_is_begun_as_the_bundled_one_and_written_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second command goes on with the file that the first one wrote. A file that is named is both."""
    monkeypatch.chdir(tmp_path)
    here = Path("cifar_resnet.json")
    assert profile_files("cifar_resnet") == (PROFILES / "cifar_resnet.json", here)
    here.write_text("{}")
    assert profile_files("cifar_resnet") == (here, here)
    assert profile_files("cifar_resnet", Path("mine.json")) == (Path("mine.json"), Path("mine.json"))


def test_measuring_never_writes_into_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before, whole = bundled(), profiles.load("cifar_resnet")
    names = json.loads(read_metadata(WEIGHTS / "cifar_resnet.safetensors")["classes"])
    (tmp_path / "pictures" / names[3]).mkdir(parents=True)
    Image.fromarray(natural_picture(32)).save(tmp_path / "pictures" / names[3] / "0.png")
    words = ["--profile", "cifar_resnet", "--images", "pictures", "--json", "rows.json", "--jobs", "1", "--limit", "1"]
    assert main(["accuracy", *words, "--points", "device-c1.00", "--write-profile"]) == 0
    written = profiles.load("cifar_resnet.json")
    assert [(point.id, point.n) for point in written.points] == [("device-c1.00", 1)]
    assert written.devices.keys() == whole.devices.keys()
    Path("cifar_resnet.json").unlink()
    assert raspberry_pi.main(["--profile", "cifar_resnet"]) == 0
    assert profiles.load("cifar_resnet.json").devices.keys() == whole.devices.keys() | set(BOARDS)
    assert bundled() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["report", "--profile", "nowhere"], "profile 'nowhere' is neither a file nor bundled"),
        (
            ["accuracy", "--profile", "cifar_resnet", "--images", "nowhere", "--json", "x.json", "--points", "p9"],
            "cifar_resnet has no operating point 'p9'",
        ),
    ],
)
def test_a_users_mistake_gets_a_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert f"tidesplit profile: error: {sentence}" in capsys.readouterr().err
