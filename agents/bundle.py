"""A trained policy in its deployed form. Reading it and deciding by it need only ONNX Runtime and NumPy.

A bundle is a folder. ``bundle.json`` names every other file with its SHA-256, and no file is opened before its hash is
checked. Only ``sb3_policy.zip``, for further training, contains a pickle. It is never opened here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tidesplit.agents.device_net import DeviceNet
from tidesplit.compression.session import session
from tidesplit.envs.budget.prices import USUAL_PRICES
from tidesplit.envs.world.fields import fields_of
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.physics import USUAL, World, WorldError, changed
from tidesplit.envs.world.vocabulary import Demand, DemandError, Ints
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import Profile
from tidesplit.profiling.points.table import PointTable
from tidesplit.profiling.points.tiers import table_of

FORMAT = "tidesplit-bundle"
VERSION = 1
MANIFEST = "bundle.json"
POLICY = "policy.onnx"
ARRAYS = "policy.npz"
PROFILE = "profile.json"
MACHINES = ("device", "server", "cloud")  # keys of the manifest, device first; two tiers have no cloud
LARGEST_BYTES = 64 * 2**20
UNWANTED = np.float32(-np.inf)  # logit of a point that is not allowed


class BundleError(ValueError):
    """A bundle that cannot be trusted or used. The message names the file, and what was received and expected."""


@dataclass(frozen=True)
class OnnxPolicy:
    """A controller that chooses the allowed point with the highest logit.

    Args:
        name: in tables.
        model: content of the ONNX file.
        arrays: content of the file for `DeviceNet`, which is the same net. Empty in bundles of before it.
    """

    name: str
    model: bytes
    arrays: bytes = b""
    _alone: dict[int, Callable[[Observation], NDArray[np.float32]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )  # by number of points

    def __reduce__(self) -> tuple[type[OnnxPolicy], tuple[str, bytes, bytes]]:
        return OnnxPolicy, (self.name, self.model, self.arrays)  # a session cannot be pickled, its model can

    def predict(self, observation: Observation) -> Ints:
        """Row of the chosen point, ``[B]``."""
        lanes, _, points = observation.points.shape
        logits = self.for_one(points)(observation) if lanes == 1 else _logits(self._session, observation)
        chosen: Ints = np.where(observation.mask, logits, UNWANTED).argmax(axis=1)
        return chosen

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return session(self.model)  # one thread: a decision is small

    def for_one(self, points: int) -> Callable[[Observation], NDArray[np.float32]]:
        """The net for one lane with so many points, from observation to logits. A device needs no other."""
        if points not in self._alone:
            if self.arrays:
                self._alone[points] = DeviceNet(self.arrays, points)
            else:  # with fixed axes a run takes three quarters of the time
                self._alone[points] = partial(_logits, session(self.model, sizes={"B": 1, "A": points}))
        return self._alone[points]


def _logits(opened: onnxruntime.InferenceSession, observation: Observation) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = opened.run(None, {"state": observation.state, "points": observation.points})[0]
    return logits


@dataclass(frozen=True)
class Bundle:
    """Content of a bundle. Profile, table, demand and world are those that the policy was trained for."""

    policy: OnnxPolicy
    manifest: Mapping[str, Any]
    profile: Profile
    table: PointTable
    demand: Demand
    world: World = USUAL
    first_prices: tuple[float, float] = USUAL_PRICES  # of a joule and of a byte, at which it begins under budgets


def load(folder: Path) -> Bundle:
    """Read a bundle.

    Raises:
        BundleError: a file is missing, altered or not what it should be. The message is one line.
    """
    manifest = read_manifest(folder)
    verify(folder, manifest)
    fields = fields_of(len(machines_of(manifest)) - 1)
    for key, expected in (("state_fields", fields.state), ("point_fields", fields.points)):
        if tuple(manifest[key]) != expected:
            raise BundleError(f"{folder / MANIFEST}: {key} differ from this version's; train the policy again")
    try:
        profile = profiles.load(folder / PROFILE)
        table = table_of(profile, machines_of(manifest), manifest["points"])
        demand = Demand(**manifest["demand"])
        world = changed(USUAL, manifest.get("world", {}))
        joule, byte = first_prices(manifest)
    except (profiles.ProfileError, DemandError, WorldError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{folder}: {error}") from error
    policy = _policy(folder, manifest, table.size)
    return Bundle(policy, manifest, profile, table, demand, world, (joule, byte))


def first_prices(manifest: Mapping[str, Any]) -> Iterator[float]:
    """Prices of a joule and of a byte to begin with. A price that training had no use for is the usual one.

    Raises:
        ValueError: a price below 0 or not finite.
    """
    for price, usual in zip(map(float, manifest.get("first_prices", USUAL_PRICES)), USUAL_PRICES, strict=True):
        if not 0.0 <= price < np.inf:
            raise ValueError(f"first_prices: {price} received, finite prices of 0 or more expected")
        yield price or usual


def _policy(folder: Path, manifest: Mapping[str, Any], points: int) -> OnnxPolicy:
    """The policy, its net for a device opened."""
    given = (folder / name for name in (POLICY, ARRAYS) if name in manifest["files"])
    policy = OnnxPolicy("PPO", *(path.read_bytes() for path in given))
    try:
        policy.for_one(points)
    except Exception as error:  # ONNX Runtime's errors have no public base class
        file, reader = (folder / ARRAYS, "NumPy") if policy.arrays else (folder / POLICY, "ONNX Runtime")
        raise BundleError(f"{file}: {reader} cannot read it ({' '.join(str(error).split())})") from error
    return policy


def machines_of(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Machines that the policy was trained for, device first."""
    return tuple(manifest[name] for name in MACHINES if name in manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle, with all keys that are needed. Raises BundleError otherwise."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}; tidesplit train writes one")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise BundleError(f'{path}: expected "format": "{FORMAT}" and "version": {VERSION}')
    needed = {"files", "state_fields", "point_fields", "points", "device", "server", "demand", "config"}
    if missing := sorted(needed - manifest.keys()):
        raise BundleError(f"{path}: the key {missing[0]!r} is missing")
    if not isinstance(manifest["files"], dict):
        raise BundleError(f"{path}: an object of file names and hashes expected under 'files'")
    return manifest


def verify(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare every file's SHA-256 with the manifest's. Raises BundleError at the first difference."""
    for needed in (POLICY, PROFILE):
        if needed not in manifest["files"]:
            raise BundleError(f"{folder / MANIFEST}: it names no {needed}")
    for name, expected in manifest["files"].items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise BundleError(f"{folder}: the file {name!r} of the manifest is missing")
        if path.stat().st_size > LARGEST_BYTES:
            raise BundleError(f"{path}: {path.stat().st_size} bytes received, at most {LARGEST_BYTES} expected")
        found = sha256(path)
        if found != expected:
            raise BundleError(
                f"{path}: SHA-256 {found[:12]}... received, {str(expected)[:12]}... expected; it was altered"
            )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
