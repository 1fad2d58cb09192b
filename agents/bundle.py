"""A trained policy in its deployed form. Reading it and deciding by it need only ONNX Runtime and NumPy.

A bundle is a folder. ``bundle.json`` names every other file with its SHA-256, and no file is opened before its hash is
checked. Only ``sb3_policy.zip``, for further training, contains a pickle. It is never opened here.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

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
PROFILE = "profile.json"
MACHINES = ("device", "server", "cloud")  # keys of the manifest, device first; two tiers have no cloud
LARGEST_BYTES = 64 * 2**20
UNWANTED = np.float32(-np.inf)  # logit of a point that is not allowed


class BundleError(ValueError):
    """A bundle that cannot be trusted or used. The message names the file, and what was received and expected."""


@dataclass(frozen=True)
class OnnxPolicy:
    """A controller that chooses the allowed point with the highest logit. ``model``: content of the ONNX file."""

    name: str
    model: bytes
    _alone: dict[int, _OneLane] = field(default_factory=dict, init=False, repr=False, compare=False)  # by points

    def __reduce__(self) -> tuple[type[OnnxPolicy], tuple[str, bytes]]:
        return OnnxPolicy, (self.name, self.model)  # a session cannot be pickled, its model can

    def predict(self, observation: Observation) -> Ints:
        """Row of the chosen point, ``[B]``."""
        lanes, _, points = observation.points.shape
        logits = self.for_one(points)(observation) if lanes == 1 else self._logits(observation)
        chosen: Ints = np.where(observation.mask, logits, UNWANTED).argmax(axis=1)
        return chosen

    def _logits(self, observation: Observation) -> NDArray[np.float32]:
        (logits,) = self._session.run(None, {"state": observation.state, "points": observation.points})
        return logits  # type: ignore[no-any-return]

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return session(self.model)  # one thread: a decision is small

    def for_one(self, points: int) -> _OneLane:
        """The net for one lane with so many points. A device needs no other."""
        if points not in self._alone:
            self._alone[points] = _OneLane(self.model, points)
        return self._alone[points]


class _OneLane:
    """The net for one observation at a time, from any thread.

    With fixed axes and arrays that stay the same, a run takes two thirds of the time, for equal logits.
    """

    def __init__(self, model: bytes, points: int) -> None:
        self._session = session(model, sizes={"B": 1, "A": points})
        self._binding, self._lock = self._session.io_binding(), threading.Lock()
        self._state, self._points = (np.zeros(value.shape, np.float32) for value in self._session.get_inputs())
        self._logits = np.zeros((1, points), np.float32)
        for name, array in (("state", self._state), ("points", self._points)):
            self._binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._binding.bind_output("logits", "cpu", 0, np.float32, self._logits.shape, self._logits.ctypes.data)

    def __call__(self, observation: Observation) -> NDArray[np.float32]:
        """Logits ``[1, A]``."""
        with self._lock:
            self._state[:], self._points[:] = observation.state, observation.points
            self._session.run_with_iobinding(self._binding)
            return self._logits.copy()


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
    try:
        policy = OnnxPolicy("PPO", (folder / POLICY).read_bytes())
        policy.for_one(table.size)
    except Exception as error:  # ONNX Runtime's errors have no public base class
        raise BundleError(f"{folder / POLICY}: ONNX Runtime cannot read it ({' '.join(str(error).split())})") from error
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
