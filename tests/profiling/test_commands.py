"""The command lines of profiling: help, a user's mistakes, and a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tidesplit.profiling.__main__ import main
from tidesplit.profiling.cuts import legal_cuts
from tidesplit.profiling.devices import raspberry_pi

VERBS = ("accuracy", "chain", "latency", "report", "switching")


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
