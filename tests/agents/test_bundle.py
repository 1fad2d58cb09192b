"""A bundle: its policy decides as SB3's does, without torch; what was altered is not opened."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO

import tidesplit.agents.bundle
from tests.agents.small import BUMPY, scenario, steps
from tests.profiles import DEVICE, SERVER, synthetic_profile
from tidesplit.agents.bundle import ARRAYS, MANIFEST, POLICY, PROFILE, Bundle, BundleError, OnnxPolicy, load, sha256
from tidesplit.agents.device_net import LARGEST_BYTES, arrays_of
from tidesplit.agents.judging.evaluation import play, simulation_of
from tidesplit.agents.learning.bundle_writer import normaliser, write_bundle
from tidesplit.agents.learning.monitor import Learner
from tidesplit.agents.learning.privileged import COLUMNS
from tidesplit.agents.learning.training import PpoConfig, Recipe, new_model, policy_of
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.fields import POINT_FIELDS, STATE_FIELDS
from tidesplit.envs.world.heat import Cooling
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.physics import USUAL, World
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points import profile as profiles

ROOT = Path(tidesplit.agents.bundle.__file__).parents[1]


@pytest.fixture(scope="module")
def model() -> MaskablePPO:
    """An untrained policy, its normaliser fitted to what it will see."""
    made = new_model(scenario(BUMPY), Recipe(ppo=PpoConfig(lanes=4, rollout=8, batch=32)))
    state, points, _ = met(seed=9)
    policy_of(made).features.fit(torch.from_numpy(state), torch.from_numpy(points))
    return made


def met(seed: int = 0, frames: int = 60) -> Observation:
    """Hundreds of observations of a random controller over several links and demands, masks partly random."""
    demands = [Demand(), Demand(fps=10, deadline_s=0.2), Demand(objective="latency", fps=20, min_accuracy=0.86)]
    asked = scenario(BUMPY, steps("fast", [20.0, 5.0]), demands=demands, episode_s=1.0, table_spread=0.3)
    rng = np.random.default_rng(seed)
    simulation = Simulation(asked, [np.random.default_rng([seed, lane]) for lane in range(8)])
    seen: list[Observation] = []
    for _ in range(frames):
        observation = simulation.observation()
        mask = observation.mask & (rng.random(observation.mask.shape) < 0.6)
        mask[~mask.any(axis=1), -1] = True
        seen.append(observation._replace(mask=mask))
        _, ended = simulation.step(rng.integers(asked.table.size, size=8))
        simulation.reset(np.flatnonzero(ended))
    return Observation(*(np.concatenate(part) for part in zip(*seen, strict=True)))


@pytest.fixture(scope="module")
def written(model: MaskablePPO, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle. Not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder, model)
    return folder


def test_the_world_of_the_training_is_kept(model: MaskablePPO, tmp_path: Path) -> None:
    mine = replace(USUAL, rtt_s=0.03, probe_after_s=np.inf, cooling=Cooling(slowest=2.0))
    write(tmp_path, model, mine)
    assert load(tmp_path).world == mine
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["world"] == {"rtt_s": 0.03, "probe_after_s": np.inf, "cooling": {"slowest": 2.0}}
    for world, told in (({"rtt": 1}, "rtt: no such number"), ([1], "'list' object")):
        (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "world": world}))
        with pytest.raises(BundleError, match=told):
            load(tmp_path)
    del manifest["world"]  # written by an earlier version
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    assert load(tmp_path).world == USUAL


def write(folder: Path, model: MaskablePPO, world: World = USUAL) -> None:
    write_bundle(
        folder,
        policy_of(model),
        profile=synthetic_profile(),
        table=scenario(BUMPY).table,
        machines=(DEVICE, SERVER),
        world=world,
        demand=Demand(fps=20.0),
        config={"trace": "lte"},
    )


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoiled."""
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def bundle(written: Path) -> Bundle:
    return load(written)


def test_it_decides_as_sb3_does(bundle: Bundle, model: MaskablePPO) -> None:
    observation = met()
    assert len(observation.mask) == 480
    rows = np.concatenate([observation.flat(), np.zeros((480, COLUMNS), np.float32)], axis=1)
    theirs, _ = model.predict(rows, action_masks=observation.mask, deterministic=True)
    ours = bundle.policy.predict(observation)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == np.int64
    assert len(np.unique(ours)) >= 3  # or it would prove little


@pytest.mark.parametrize("deadline_s", [0.03, 0.1, 2.0])
def test_its_logits_are_those_of_the_trained_policy(bundle: Bundle, model: MaskablePPO, deadline_s: float) -> None:
    """Also far from what it met: late, unknown, idle, under budgets, and with a deadline that differs."""
    rng, (state, points, _) = np.random.default_rng(0), met(frames=20)
    factors = rng.choice([0.0, 0.3, 1.0, 10.0, -1.0], points.shape).astype(np.float32)
    for raw, changed in ((state.copy(), points * factors), (state.copy(), points)):
        raw[:, STATE_FIELDS.index("deadline_s")] = deadline_s
        raw[:, STATE_FIELDS.index("joule_price")] = rng.choice([0.0, 0.4, 3.0, 60_000.0], len(raw))
        raw[:, STATE_FIELDS.index("byte_price")] = rng.choice([0.0, 1e-6, 1e-4, 2.0], len(raw))
        policy = policy_of(model)
        with torch.no_grad():
            expected = policy.actor(*policy.features(torch.from_numpy(raw), torch.from_numpy(changed))).numpy()
        (found,) = bundle.policy._session.run(None, {"state": raw, "points": changed})
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        mask = np.ones(points.shape[2], dtype=bool)
        alone = [bundle.policy.for_one(points.shape[2])(Observation(s[None], p[None], mask[None]))[0]
                 for s, p in zip(raw, changed, strict=True)]  # fmt: skip
        np.testing.assert_allclose(alone, found, rtol=1e-5, atol=1e-5)


def test_it_plays_as_the_policy_in_training_does(bundle: Bundle, model: MaskablePPO) -> None:
    asked = scenario(BUMPY)
    ours, theirs = (play(entrant, simulation_of(asked, 0))[0] for entrant in (bundle.policy, Learner(policy_of(model))))
    np.testing.assert_array_equal(ours.points, theirs.points)


@pytest.mark.parametrize("rows", [[4], [9, 0], [0, 2, 3, 5, 9], list(range(10)) * 3])
def test_any_number_of_points_will_do(bundle: Bundle, model: MaskablePPO, rows: list[int]) -> None:
    whole = met(seed=1, frames=10)
    observation = Observation(whole.state, whole.points[:, :, rows], np.ones((80, len(rows)), dtype=bool))
    policy = policy_of(model)
    features = policy.features(torch.from_numpy(observation.state), torch.from_numpy(observation.points))
    logits = policy.actor(*features).detach().numpy()
    chosen = bundle.policy.predict(observation)
    np.testing.assert_allclose(logits[np.arange(80), chosen], logits.max(axis=1), atol=1e-5)


def test_one_observation_decides_as_among_many(bundle: Bundle) -> None:
    observation = met(frames=5)
    each = [observation.take(np.array([row])) for row in range(len(observation.mask))]
    for policy in (bundle.policy, OnnxPolicy("PPO", bundle.policy.model)):  # the second as in bundles without arrays
        np.testing.assert_array_equal([policy.predict(one)[0] for one in each], bundle.policy.predict(observation))


def test_all_that_was_written_is_read(bundle: Bundle, model: MaskablePPO, written: Path) -> None:
    assert bundle.table.ids == scenario(BUMPY).table.ids
    assert bundle.demand == Demand(fps=20.0)
    assert bundle.profile == synthetic_profile()
    manifest = bundle.manifest
    assert manifest["config"] == {"trace": "lte"}
    assert manifest["profile"] == {"name": "synthetic", "sha256": synthetic_profile().sha256()}
    assert manifest["normaliser"] == normaliser(policy_of(model))
    assert len(manifest["normaliser"]["state"]["mean"]) == len(STATE_FIELDS)
    assert len(manifest["normaliser"]["points"]["std"]) == len(POINT_FIELDS)
    assert {"python", "numpy", "onnxruntime", "torch"} <= manifest["versions"].keys()
    assert manifest["files"] == {name: sha256(written / name) for name in (POLICY, ARRAYS, PROFILE)}
    assert sorted(path.name for path in written.iterdir()) == sorted([MANIFEST, POLICY, ARRAYS, PROFILE])


def test_it_runs_without_torch_and_its_company(written: Path) -> None:
    program = f"""
import sys
from pathlib import Path
import numpy as np
import tidesplit.agents.bundle, tidesplit.agents.rules.controllers, tidesplit.envs.world.observation
bundle = tidesplit.agents.bundle.load(Path({str(written)!r}))
size = bundle.table.size
rng = np.random.default_rng(0)
state = rng.random((3, len(tidesplit.envs.world.fields.STATE_FIELDS)), dtype=np.float32)
points = rng.random((3, len(tidesplit.envs.world.fields.POINT_FIELDS), size), dtype=np.float32)
observation = tidesplit.envs.world.observation.Observation(state, points, np.ones((3, size), dtype=bool))
assert bundle.policy.predict(observation).shape == (3,)
assert tidesplit.agents.rules.controllers.Lookup(name="").predict(observation).shape == (3,)
heavy = ("torch", "gymnasium", "stable_baselines3", "sb3_contrib", "pandas", "matplotlib", "rich", "scipy", "onnx")
print(sorted(set(heavy) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def changed(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **values}))


def without(folder: Path, key: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest[key]
    (folder / MANIFEST).write_text(json.dumps(manifest))


def flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def listing(folder: Path, files: dict[str, str]) -> None:
    changed(folder, files={**json.loads((folder / MANIFEST).read_text())["files"], **files})


def without_bits(folder: Path) -> None:
    document = json.loads((folder / PROFILE).read_text())
    del document["points"][0]["bits"]
    (folder / PROFILE).write_text(json.dumps(document))
    listing(folder, {PROFILE: sha256(folder / PROFILE)})


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda f: (f / MANIFEST).unlink(), r"is no bundle: it has no bundle\.json"),
    "no JSON": (lambda f: (f / MANIFEST).write_text("{"), r"bundle\.json: not a JSON file"),
    "no text": (lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe\x00"), r"bundle\.json: not a JSON file"),
    "foreign JSON": (lambda f: (f / MANIFEST).write_text('{"hello": 1}'), 'expected "format": "tidesplit-bundle"'),
    "a list": (lambda f: (f / MANIFEST).write_text("[]"), 'expected "format": "tidesplit-bundle"'),
    "a later version": (lambda f: changed(f, version=2), '"version": 1'),
    "no demand": (lambda f: without(f, "demand"), "the key 'demand' is missing"),
    "no files": (lambda f: without(f, "files"), "the key 'files' is missing"),
    "another demand": (lambda f: changed(f, demand={"fps": -1.0}), "-1 frames a second received"),
    "a foreign demand": (lambda f: changed(f, demand={"speed": 1}), "speed"),
    "other columns": (lambda f: changed(f, state_fields=["x"]), "state_fields differ"),
    "an unknown point": (lambda f: changed(f, points=["nowhere"]), "no operating point 'nowhere'"),
    "an unknown device": (lambda f: changed(f, device="toaster"), "no timings of 'toaster'"),
    "altered policy": (lambda f: flipped(f / POLICY), r"policy\.onnx: SHA-256 .* it was altered"),
    "altered profile": (lambda f: flipped(f / PROFILE), r"profile\.json: SHA-256 .* it was altered"),
    "missing policy": (lambda f: (f / POLICY).unlink(), r"'policy\.onnx' of the manifest is missing"),
    "policy not named": (lambda f: changed(f, files={PROFILE: sha256(f / PROFILE)}), r"names no policy\.onnx"),
    "a path that climbs": (lambda f: listing(f, {"../policy.onnx": "0"}), r"'\.\./policy\.onnx' of the manifest"),
    "an absolute path": (lambda f: listing(f, {"/etc/hostname": "0"}), "'/etc/hostname' of the manifest"),
    "a hash that is no text": (lambda f: listing(f, {POLICY: 7}), r"policy\.onnx: SHA-256"),  # type: ignore[dict-item]
    "a broken profile": (without_bits, "bits"),
    "files as a list": (lambda f: changed(f, files=[POLICY, PROFILE]), "files"),
    "points as a number": (lambda f: changed(f, points=7), "bundle"),
    "a policy that is no ONNX": (
        lambda f: ((f / POLICY).write_text("hello"), changed(f, files={n: sha256(f / n) for n in (POLICY, PROFILE)})),
        r"policy\.onnx: ONNX Runtime cannot read it",
    ),
    "arrays that are none": (
        lambda f: ((f / ARRAYS).write_text("hello"), listing(f, {ARRAYS: sha256(f / ARRAYS)})),
        r"policy\.npz: NumPy cannot read it",
    ),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_bundle_is_refused_in_one_sentence(how: str, folder: Path) -> None:
    spoil, sentence = SPOILED[how]
    spoil(folder)
    with pytest.raises(BundleError, match=sentence) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_file_too_large_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidesplit.agents.bundle, "LARGEST_BYTES", 1000)
    with pytest.raises(BundleError, match=r"policy\.onnx: \d+ bytes received, at most 1000 expected"):
        load(folder)


def test_a_bundle_written_again_is_whole(folder: Path, model: MaskablePPO) -> None:
    flipped(folder / POLICY)
    write(folder, model)
    assert profiles.load(folder / PROFILE) == load(folder).profile


def test_arrays_that_would_fill_the_memory_are_refused() -> None:
    packed = BytesIO()
    np.savez_compressed(packed, zeros=np.zeros(LARGEST_BYTES, np.uint8))
    assert len(packed.getvalue()) < LARGEST_BYTES / 100
    with pytest.raises(ValueError, match="bytes of arrays received, at most"):
        arrays_of(packed.getvalue())
