"""The command `tidesplit profile latency` on a small CNN, in one round, as on a device without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runtime.deployed import DEMAND, points
from tests.runtime.timing.test_pieces import profile_of_both_precisions
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import Power, Profile
from tidesplit.profiling.points.table import table_for
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.timing.__main__ import main
from tidesplit.runtime.timing.loop_cost import loop_s

QUICK = ("--rounds", "1", "--runs", "1", "--threads", "1")
BLOCKED = (
    "torch", "onnx", "safetensors", "rich", "tyro", "gymnasium", "stable_baselines3", "sb3_contrib", "matplotlib",
    "scipy", "pandas", "tensorboard",
)  # fmt: skip


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cnn: Cnn) -> Profile:
    """The profile of the three points, in a file of the working directory."""
    monkeypatch.chdir(tmp_path)
    made = replace(points(3)[0], cnn={"weights_sha256": cnn.weights_sha256})
    profiles.save(made, Path("three.json"))
    return made


def latency(cnn: Cnn, *words: str, profile: str = "three.json") -> int:
    return main(["--profile", profile, "--device", "mine", "--cnn", str(cnn.folder), *QUICK, *words])


def test_a_machine_is_added(cnn: Cnn, profile: Profile, capsys: pytest.CaptureFixture[str]) -> None:
    assert latency(cnn) == 0
    said = capsys.readouterr()
    assert said.out.startswith("mine: 3 operating points, 1 of 1 rounds, saved in three.json\nthe loop takes ")
    assert "observation, record and request; --bundle adds the policy" in said.out
    assert said.err.endswith("timing: 100 %, 0 s left\n")
    written = profiles.load("three.json")
    assert written.devices.keys() == {"device", "server", "mine"}
    assert written.points == profile.points
    table = written.devices["mine"]
    assert (table.engine, table.threads, table.provenance.kind, table.provenance.n) == ("onnxruntime", 1, "measured", 1)
    assert table.power is None
    assert 0.0 < table.loop_s < 1.0
    columns = table_for(written, "mine", "mine")
    assert (columns.head_s > 0.0).all()
    assert (columns.server_s > 0.0).tolist() == [True, True, False]
    assert table.timings["p0-jpeg-q50"].finish_s == table.timings["device-c0.25"].head_s


def test_watts_of_the_machine_stay(cnn: Cnn, profile: Profile) -> None:
    power = Power(idle_w=2.7, busy_w=5.5, source="a meter")
    profiles.save(profile.with_device("mine", replace(profile.devices["device"], power=power)), Path("three.json"))
    assert latency(cnn) == 0
    table = profiles.load("three.json").devices["mine"]
    assert (table.power, table.provenance.kind) == (power, "measured")


def test_some_points_need_a_file_of_their_own(cnn: Cnn, profile: Profile, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("three.json").read_bytes()
    assert latency(cnn, "--points", "device-c0.25") == 2
    assert capsys.readouterr().err.endswith(
        "error: three.json has 3 operating points, and --points would leave 1 of them: name another file with --file\n"
    )
    assert latency(cnn, "--points", "p1-c0.50-r1.00-b2", "--file", "few/mine.json") == 0
    assert Path("three.json").read_bytes() == before
    written = profiles.load("few/mine.json")
    assert [p.id for p in written.points] == ["p1-c0.50-r1.00-b2", "device-c0.25"]
    assert latency(cnn, "--points", "p1-c0.50-r1.00-b2", "--file", "few/mine.json") == 0, "the same points again"


def test_a_file_that_exists_is_gone_on_with(cnn: Cnn, profile: Profile) -> None:
    assert latency(cnn, "--file", "out.json") == 0
    assert main([*f"--profile three.json --device other --cnn {cnn.folder} --file out.json".split(), *QUICK]) == 0
    assert profiles.load("out.json").devices.keys() == {"device", "server", "mine", "other"}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, "has no model device-c0.25-i8 for p0-jpeg-q50-24px, and lacks models of 3 of 7 points: run tidesplit ex"),
        (
            {"name": "other"},
            "holds cifar_resnet with weights 5a5a5a5a5a5a5a5a, the profile is of other with weights",
        ),
        ({"cnn": {"weights_sha256": "0" * 64}}, "the profile is of cifar_resnet with weights 0000000000000000"),
    ],
)
def test_a_folder_that_does_not_fit(
    changed: dict[str, object], sentence: str, cnn: Cnn, profile: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    both = profile_of_both_precisions()
    profiles.save(replace(both, **changed), Path("both.json"))  # type: ignore[arg-type]
    assert latency(cnn, profile="both.json") == 2
    told = capsys.readouterr().err
    assert told.startswith("tidesplit profile latency: error: ")
    assert sentence in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--cnn", "nowhere"), "nowhere holds no CNN: it has no cnn.json; tidesplit export writes one"),
        (("--bundle", "nowhere"), "nowhere is no bundle: it has no bundle.json; tidesplit train writes one"),
        (("--points", "p9"), "profile cifar_resnet: no operating point 'p9'"),
        (("--profile", "nowhere"), "profile 'nowhere' is neither a file nor bundled"),
    ],
)
def test_a_users_mistake_gets_a_sentence(
    words: Sequence[str], sentence: str, cnn: Cnn, profile: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latency(cnn, *words) == 2
    assert capsys.readouterr().err.startswith(f"tidesplit profile latency: error: {sentence}")


def test_a_stop_before_anything_is_timed(
    cnn: Cnn, profile: Profile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Cnn, "device_session", stopped)
    before = Path("three.json").read_bytes()
    assert latency(cnn) == 130
    assert capsys.readouterr().err == "tidesplit profile latency: stopped in the first round, nothing written\n"
    assert Path("three.json").read_bytes() == before


def base_install(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process without the packages of the extra `train`."""
    script = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED})); from tidesplit.__main__ import main; "
    call = [sys.executable, "-c", script + f"sys.exit(main(['profile', 'latency', *{words}]))"]
    return subprocess.run(call, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def test_the_base_installation_is_enough(cnn: Cnn, profile: Profile, tmp_path: Path) -> None:
    done = base_install("--profile", "three.json", "--device", "my-pi", "--cnn", str(cnn.folder), *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads(Path("three.json").read_text())
    assert written["devices"]["my-pi"]["timings"].keys() == {point.id for point in profile.points}


def test_without_torch_the_export_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = base_install("--profile", "cifar_resnet", "--device", "my-pi", *QUICK, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tidesplit profile latency: error: exporting needs torch and onnx, and ")
    assert done.stderr.endswith("; --cnn names a folder that tidesplit export wrote elsewhere\n")


def test_with_torch_the_export_is_made_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    words = ["--profile", "cifar_resnet", "--device", "mine", "--points", "p1-c0.25-r1.00-b2,p0-jpeg-q50", *QUICK]
    assert main(words) == 0
    (folder,) = (tmp_path / "cache" / "tidesplit").iterdir()
    assert folder.name.startswith("cifar_resnet-")
    manifest = (folder / "cnn.json").stat().st_mtime_ns
    assert main(words) == 0
    assert (folder / "cnn.json").stat().st_mtime_ns == manifest
    assert len(profiles.load("cifar_resnet.json").points) == 3


def test_a_policy_adds_to_the_loop() -> None:
    class Slow:
        name = "slow"

        def predict(self, observation: object) -> list[int]:
            total = 0
            for number in range(300_000):
                total += number
            return [total % 3]

    _, table = points(3)
    assert loop_s(table, DEMAND, None, frames=20) < loop_s(table, DEMAND, Slow(), frames=20)  # type: ignore[arg-type]
