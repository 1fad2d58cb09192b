"""Writes a trained policy as a bundle: the ONNX file, the profile, and the manifest with every file's hash."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tidesplit.agents.bundle import ARRAYS, FORMAT, MACHINES, MANIFEST, POLICY, PROFILE, VERSION, sha256
from tidesplit.agents.learning.deployed_actor import DeployedActor
from tidesplit.agents.learning.policy import PointPolicy
from tidesplit.data.files import whole
from tidesplit.envs.world.physics import USUAL, World, changes
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import Profile
from tidesplit.profiling.points.table import PointTable

OPSET = 17
PACKAGES = ("numpy", "onnxruntime", "torch", "stable-baselines3", "sb3-contrib", "gymnasium")


def write_onnx(policy: PointPolicy, path: Path) -> None:
    """Write the actor as ONNX.

    Its inputs are ``state`` ``[B, S]`` and ``points`` ``[B, F, A]`` in SI units, its output is ``logits`` ``[B, A]``.
    """
    axes = {"state": {0: "B"}, "points": {0: "B", 2: "A"}, "logits": {0: "B", 1: "A"}}
    example = (torch.ones(2, len(policy.fields.state)), torch.ones(2, len(policy.fields.points), 3))
    with warnings.catch_warnings():
        # The exporter that replaces this one needs another package, and is no better for so small a net.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            DeployedActor(policy).eval(),
            example,
            str(path),
            input_names=["state", "points"],
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def write_bundle(
    folder: Path,
    policy: PointPolicy,
    *,
    profile: Profile,
    table: PointTable,
    machines: Sequence[str],
    demand: Demand,
    config: Mapping[str, Any],
    also: Sequence[str] = (),
    world: World = USUAL,
    first_prices: tuple[float, float] | None = None,
) -> None:
    """Write ``policy.onnx``, ``policy.npz``, ``profile.json`` and ``bundle.json``.

    ``machines``: labels of the two or three machines in the profile, device first. ``config``: options of the training,
    as JSON values. ``also``: other files of the bundle that are in the folder already. ``world``: that of the training.
    ``first_prices``: of a joule and of a byte, at which the policy begins under its budgets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_onnx(policy, folder / POLICY)
    np.savez(folder / ARRAYS, **DeployedActor(policy).arrays())
    profiles.save(profile, folder / PROFILE)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "config": dict(config),
        "demand": asdict(demand),
        "world": changes(world, USUAL),
        **({} if first_prices is None else {"first_prices": first_prices}),
        **dict(zip(MACHINES, machines, strict=False)),
        "points": list(table.ids),
        "state_fields": list(policy.fields.state),
        "point_fields": list(policy.fields.points),
        "normaliser": normaliser(policy),
        "profile": {"name": profile.name, "sha256": profile.sha256()},
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in PACKAGES}},
        "git_commit": git_commit(),
        "files": {name: sha256(folder / name) for name in (POLICY, ARRAYS, PROFILE, *also)},
    }
    with whole(folder / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def normaliser(policy: PointPolicy) -> dict[str, dict[str, list[float]]]:
    """Mean and standard deviation of each scaled column, for the manifest. The ONNX file contains them too."""
    groups = {"state": policy.features.state, "points": policy.features.points}
    return {name: {"mean": group.mean.tolist(), "std": group.std.tolist()} for name, group in groups.items()}


def git_commit() -> str:
    """Commit of this code, with a + where tracked files were changed since. Empty outside a checkout."""
    words = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(words, cwd=Path(__file__).resolve().parent, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
