"""The policy that ships: whole, small, and used by a device that is given no bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tidesplit.agents.bundle import MANIFEST, BundleError, load
from tidesplit.data.files import GENERALIST
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.runtime.edge import parser
from tidesplit.runtime.shipped import own_copy


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_device_without_a_bundle_gets_a_copy_of_its_own(cache: Path) -> None:
    assert parser().parse_args(["--server", "localhost:1"]).bundle is None
    folder = own_copy()
    assert folder.is_relative_to(cache)
    assert load(folder).table.ids == load(GENERALIST).table.ids
    (folder / MANIFEST).touch()
    assert own_copy() == folder


def test_a_copy_that_was_interrupted_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(_source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("shutil.copyfile", torn)
        with pytest.raises(BundleError, match="No space left"):
            own_copy()
    assert load(own_copy()).table.ids == load(GENERALIST).table.ids


def test_it_is_small_and_decides_at_another_pace() -> None:
    assert sum(file.stat().st_size for file in GENERALIST.iterdir()) < 1_000_000
    shipped = load(GENERALIST)
    scenario = scenario_from(trace="lte", profile=shipped.profile, fps=10, deadline_ms=150, episode_s=4.0)
    simulation = Simulation(scenario, [np.random.default_rng([0, lane]) for lane in range(16)])
    worth = [simulation.step(shipped.policy.predict(simulation.observation()))[0].utility.mean() for _ in range(40)]
    assert np.mean(worth) > 0.8


def test_a_version_without_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle"):
        own_copy(tmp_path)


def test_a_copy_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BundleError, match="--bundle names another folder"):
        own_copy()


def test_it_was_not_trained_on_what_it_is_judged_by() -> None:
    names = {stretch["name"] for stretch in json.loads((GENERALIST / MANIFEST).read_text())["config"]["trained_on"]}
    assert not [name for name in names if "Verizon" in name or "starlink" in name.lower()]
