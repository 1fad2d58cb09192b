"""The policy's net for one observation at a time, in NumPy. A decision is so small that a session's run costs more.

The arithmetic is that of `agents.learning.deployed_actor`, up to rounding.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.observation import Observation

Floats32 = NDArray[np.float32]


LARGEST_BYTES = 16 * 2**20  # of the arrays. Ours take 30 KB


def arrays_of(data: bytes) -> Mapping[str, Any]:
    """The arrays of an .npz file.

    Raises:
        ValueError: it is none, or unpacked it would be larger than a policy can be.
    """
    with ZipFile(BytesIO(data)) as packed:
        size = sum(member.file_size for member in packed.infolist())
    if size > LARGEST_BYTES:
        raise ValueError(f"{size} bytes of arrays received, at most {LARGEST_BYTES} expected")
    net: Mapping[str, Any] = np.load(BytesIO(data), allow_pickle=False)
    return net


class DeviceNet:
    """The net for observations of so many points A. ``data``: content of an .npz file of `DeployedActor.arrays`.

    All columns of an observation are one array: those of the state, then the points' fields of A values, then ones. The
    columns that have a logarithmic scale are neighbours. The ones give each point the part of a layer that is common to
    all points: that part is then a column of the weights, which is set for each observation.
    """

    def __init__(self, data: bytes, points: int) -> None:
        net = arrays_of(data)
        scaled, fields = net["state.scaled"], net["points.scaled"]
        self._order, self._fields = np.argsort(scaled, kind="stable"), np.argsort(~fields, kind="stable")
        width, count, hidden = len(scaled), len(fields), len(net["own.bias"])
        logs = slice(int((~scaled).sum()), width + int(fields.sum()) * points)

        def columns(name: str, beyond: float) -> Floats32:
            """A constant of every column. ``beyond`` is that of the ones."""
            parts = (net[f"state.{name}"][self._order], np.repeat(net[f"points.{name}"][self._fields], points))
            return np.concatenate([*parts, np.full(points, beyond)], dtype=np.float32)

        self._mean, self._scale = columns("mean", 0.0), 1.0 / columns("std", 1.0)
        self._of_deadline, self._fixed, self._least = (columns(n, 1.0)[logs] for n in ("of_deadline", "fixed", "least"))
        self._deadline, self._deadline_s = int(net["deadline"]), np.float32(np.nan)
        self._x = np.ones(width + (count + 1) * points, np.float32)
        self._state, self._points = self._x[:width], self._x[width:].reshape(count + 1, points)
        self._z, self._log, self._rate = self._x[logs], np.empty_like(self._least), self._least
        self._of_state, self._of_state_bias = net["of_state.weight"][:, self._order], net["of_state.bias"]
        self._of_point = np.column_stack([net["of_point.weight"][:, self._fields], np.zeros(hidden, np.float32)])
        self._own = np.column_stack([net["own.weight"], np.zeros(hidden, np.float32)])
        self._own_bias, self._others, self._score = net["own.bias"], net["others.weight"], net["score.weight"]
        self._encoded, self._hidden = np.ones((hidden + 1, points), np.float32), np.empty((hidden, points), np.float32)
        clip = float(net["clip"])
        self._zero, self._one, self._low, self._high = (np.array(v, np.float32) for v in (0.0, 1.0, -clip, clip))
        self._lock = threading.Lock()

    def __call__(self, observation: Observation) -> Floats32:
        """Logits ``[1, A]``. Any thread may call."""
        with self._lock:
            observation.state[0].take(self._order, out=self._state, mode="clip")
            observation.points[0].take(self._fields, axis=0, out=self._points[:-1], mode="clip")
            self._standardise(observation.state[0, self._deadline])
            return self._scores()

    def _standardise(self, deadline_s: np.float32) -> None:
        if deadline_s != self._deadline_s:
            self._deadline_s, self._rate = deadline_s, 1.0 / (deadline_s * self._of_deadline + self._fixed)
        x, z, log = self._x, self._z, self._log
        z *= self._rate
        np.maximum(z, self._least, out=z)
        np.abs(z, out=log)
        log += self._one
        np.copysign(np.log(log, out=log), z, out=z)
        x -= self._mean
        x *= self._scale
        np.maximum(np.minimum(x, self._high, out=x), self._low, out=x)

    def _scores(self) -> Floats32:
        encoded, hidden = self._encoded[:-1], self._hidden
        self._of_point[:, -1] = self._of_state @ self._state + self._of_state_bias
        np.maximum(np.dot(self._of_point, self._points, out=encoded), self._zero, out=encoded)
        self._own[:, -1] = self._others @ np.maximum.reduce(encoded, axis=1) + self._own_bias
        np.maximum(np.dot(self._own, self._encoded, out=hidden), self._zero, out=hidden)
        scores: Floats32 = self._score @ hidden
        return scores
