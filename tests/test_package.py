"""The package as a whole: its command, its name next to the standard library, its wheel, its rooms."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import tidesplit
from tidesplit.__main__ import COMMANDS, main

ROOT = Path(tidesplit.__file__).parent
NOT_SHIPPED = {"tests", "benchmarks", "examples", "docs", "deploy", ".ci"}
LARGEST_ROOM = 14
TRAIN_EXTRA = (
    "torch",
    "onnx",
    "safetensors",
    "rich",
    "tyro",
    "gymnasium",
    "stable_baselines3",
    "sb3_contrib",
    "matplotlib",
    "scipy",
)
"""Public classes and files that share a name, and what each of the two is."""


def run(*words: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A new Python, with ``path`` in front of its module path."""
    env = dict(os.environ)
    if path is not None:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), env.get("PYTHONPATH", "")]))
    call = [sys.executable, *words]
    return subprocess.run(call, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=120)


def tracked() -> list[Path]:
    """Files of the repository, relative to its root; new ones too, but none that git ignores."""
    call = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("needs a checkout of the repository: git lists its files")
    return [Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def shipped() -> set[Path]:
    """Files of the repository that belong into the package: all in rooms, and the modules of the root."""
    files = [path for path in tracked() if path.parts[0] not in NOT_SHIPPED]
    return {path for path in files if len(path.parts) > 1 or path.suffix == ".py" or path.name == "py.typed"}


def modules() -> list[Path]:
    return [path for path in shipped() if path.suffix == ".py"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([*name.split(), "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: tidesplit {name} ")


def test_the_command_from_another_folder(tmp_path: Path) -> None:
    done = run("-m", "tidesplit", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: tidesplit ")
    assert [name for name in COMMANDS if f"\n  {name} " not in done.stdout] == []


def test_version_and_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tidesplit {tidesplit.__version__}\n"
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: tidesplit ")
    assert main(["fly"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("tidesplit: error: no command 'fly'; there are train, evaluate, ")
    assert told.count("\n") == 1


def test_without_an_extra_a_command_names_it(tmp_path: Path) -> None:
    """The base install has no torch; its absence is simulated."""
    missing = f"import sys; sys.modules.update(dict.fromkeys({TRAIN_EXTRA})); from tidesplit.__main__ import main; "
    done = run("-c", missing + "sys.exit(main(['train']))", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tidesplit train: error: torch is missing: pip install 'tidesplit[train]'\n"
    for words in (["edge"], ["profile"], ["profile", "latency"]):
        done = run("-c", missing + f"sys.exit(main([*{words}, '--help']))", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    accuracy = ["profile", "accuracy", "--profile", "cifar_resnet", "--images", "pictures", "--json", "rows.json"]
    done = run("-c", missing + f"sys.exit(main({accuracy}))", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tidesplit profile: error: torch is missing: pip install 'tidesplit[train]'\n"


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_without_an_extra_a_file_at_the_root_names_it(name: str, tmp_path: Path) -> None:
    missing = f"import sys, runpy; sys.modules.update(dict.fromkeys({TRAIN_EXTRA})); "
    done = run("-c", missing + f"runpy.run_path({str(ROOT / f'{name}.py')!r}, run_name='__main__')", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"tidesplit {name}: error: \w+ is missing: pip install 'tidesplit\[train\]'\n", done.stderr)


@pytest.mark.parametrize("name", ["compression", "profiling"])
def test_a_standard_package_of_a_rooms_name_wins(name: str, tmp_path: Path) -> None:
    """`gzip` imports `compression` since Python 3.14, `cProfile` `profiling` since 3.15. Ours must not shadow them."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    paths = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.path.append({str(tmp_path)!r}); "
    done = run("-c", paths + f"import {name}; print({name}.__file__)", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).is_relative_to(ROOT)
    assert Path(done.stdout.strip()).parts[-2:] == (name, "__init__.py")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the repository, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    for path in tracked():
        (folder / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / "source" / path)
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", ".", "./source")
    done = run(*build, cwd=folder)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_has_one_name(wheel: Path) -> None:
    info = f"tidesplit-{tidesplit.__version__}.dist-info"
    assert {path.name for path in wheel.iterdir()} == {"tidesplit", info}
    assert "tidesplit = tidesplit.__main__:main" in (wheel / info / "entry_points.txt").read_text()
    assert {path.name for path in (wheel / info / "licenses").iterdir()} == {"LICENSE", "NOTICE"}


def test_the_wheel_has_every_file_of_the_rooms_and_no_other(wheel: Path) -> None:
    """A room that `packages` in pyproject.toml forgets, or data that `package-data` forgets, is missing here."""
    packed = {path.relative_to(wheel / "tidesplit") for path in (wheel / "tidesplit").rglob("*") if path.is_file()}
    assert packed == shipped()


def test_the_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    script = (
        "import tidesplit.envs.traces.trace as t, tidesplit.profiling.points.profile as p; "
        "print(t.__file__, t.load_traces('lte')[0].name, p.load('efficientnet_lite0').name)"
    )
    done = run("-c", script, cwd=tmp_path, path=wheel)
    assert (done.returncode, done.stderr) == (0, "")
    file, *names = done.stdout.split()
    assert Path(file).is_relative_to(wheel)
    assert names == ["lte", "efficientnet_lite0"]


def test_the_device_process_imports_the_kernel_and_no_other_room(tmp_path: Path) -> None:
    """`pyproject.toml` names the kernel. The program itself and the export, idle on the device, come on top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (kernel,) = (contract for contract in contracts if contract.get("id") == "kernel")
    done = run("-c", "import sys, tidesplit.runtime.edge; print(*sys.modules)", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    loaded = done.stdout.split()
    exporting = {f"tidesplit.runtime.{name}" for name in ("chains", "export", "ncnn_files")}
    assert set(loaded) & set(kernel["forbidden_modules"]) == exporting
    known = (*kernel["source_modules"], *exporting, "tidesplit.runtime.edge")
    packages = {".".join(name.split(".")[:depth]) for name in known for depth in range(1, name.count(".") + 1)}
    ours = [name for name in loaded if name.partition(".")[0] == "tidesplit" and name not in packages]
    assert [name for name in ours if not any(f"{name}.".startswith(f"{room}.") for room in known)] == []


def test_onnx_runtime_reports_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the variable when it is imported. benchmarks/faults.py listens for its reports."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    code = "import os, tidesplit; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run("-c", code, cwd=tmp_path).stdout == "1\n"


def test_rooms_are_small() -> None:
    sizes = Counter(path.parent for path in modules())
    assert {str(room): size for room, size in sizes.items() if size > LARGEST_ROOM} == {}


def public_classes() -> Iterator[str]:
    for path in modules():
        for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name


def test_a_name_means_one_thing() -> None:
    files = (path.name for path in modules() if path.name not in ("__init__.py", "__main__.py"))
    twice = {name for name, count in Counter([*public_classes(), *files]).items() if count > 1}
    assert twice == set()
