"""What a policy is trained for: checked before a training is resumed, and before a policy is judged.

A resumed training needs the same CNN, traces and demand. A policy that is judged on its training traces looks better
than it is. Traces are recognised by their content, wherever their files lie.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tidesplit.data.files import whole
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.physics import USUAL, changes
from tidesplit.profiling.points.profile import Profile

FILE = "training.json"
OPTIONS = {
    "CNN": ("profile", "device", "server", "tiers", "cloud"),
    "trace": ("trace", "second_trace", "holdout"),
    "demand": ("objective", "fps", "deadline_ms", "min_accuracy", "max_watts", "max_gb_month"),
    "world": ("world", "utility"),
    "effort": ("effort",),
}
"""Options behind each part of a purpose, to name the one that differs."""
UNWRITTEN: Mapping[str, Any] = {"world": {"numbers": {}, "utility": None}, "effort": 1.0}  # by earlier versions


class PurposeError(ValueError):
    """A resumed training would go on with something else; the sentence says with what."""


def purpose(
    profile: Profile, machines: Sequence[str], train_on: Scenario, utility: str | None = None, effort: float = 1.0
) -> dict[str, Any]:
    """CNN, traces, demand, world and effort of a training, as JSON values that are equal where the training is.

    ``utility``: name of the user's own, if there is one.
    """
    weights = profile.cnn.get("weights_sha256")
    return {
        "CNN": {"name": profile.name, "weights": weights, "machines": [*machines], "points": [*train_on.table.ids]},
        "trace": [stretches(traces) for traces in train_on.links],
        "demand": [asdict(demand) for demand in train_on.demands],
        "world": {"numbers": changes(train_on.world, USUAL), "utility": utility},
        "effort": effort,
    }


def save(out: Path, of: Mapping[str, Any], options: Mapping[str, Any], start: Mapping[str, Any]) -> None:
    """Write the purpose into a training's folder, with the options that it came from and its start, see `start_of`."""
    with whole(out / FILE) as part:
        document = {**of, "options": dict(options), "start": dict(start)}
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def start_of(out: Path) -> Mapping[str, Any]:
    """What the training in a folder began with: its ``name``, and what that was ``trained_on`` itself.

    Earlier versions wrote nothing, and began from scratch.

    Raises:
        PurposeError: the folder's record makes no sense.
    """
    path = out / FILE
    try:
        written = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        found = written.get("start", {"name": "scratch", "trained_on": []})
        return {"name": str(found["name"]), "trained_on": list(found["trained_on"])}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise PurposeError(f"{path}: it does not say what it started from ({type(error).__name__}: {error})") from error


def check(out: Path, of: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Compare with the purpose in a training's folder. Returns False where an earlier version wrote none.

    Raises:
        PurposeError: the training in the folder has another CNN, other traces, another demand, world or effort.
    """
    path = out / FILE
    if not path.exists():
        return False
    try:
        was = {**UNWRITTEN, **json.loads(path.read_text(encoding="utf-8"))}
        other = next((part for part in OPTIONS if was[part] != of[part]), None)
        before = was["options"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PurposeError(f"{path}: it does not say what was trained ({type(error).__name__}: {error})") from error
    if other is not None:
        raise PurposeError(f"{out} was trained with another {other}: {_difference(other, before, options)}")
    return True


def _difference(part: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in OPTIONS[part] if before.get(name) != now.get(name)]
    if not names:
        return "the content behind the same options has changed since"
    return f"{_told(names, before)} there, {_told(names, now)} received"


def _told(names: Sequence[str], options: Mapping[str, Any]) -> str:
    values = ((name, options.get(name)) for name in names)
    return " ".join(f"--{name.replace('_', '-')} {'(default)' if v is None else v}" for name, v in values)


def stretches(traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """Name, length and fingerprint of each trace."""
    return [
        {"name": t.name, "seconds": t.duration_s, "bins": t.time_s.size, "sha256": _fingerprint(t, t.time_s.size)}
        for t in traces
    ]


def trained_s(trace: Trace, trained_on: Sequence[Mapping[str, Any]]) -> float:
    """How much of a trace, from its start, is one of the stretches that were trained on; seconds."""
    known = (s["seconds"] for s in trained_on if s["bins"] <= trace.time_s.size and _begins_with(trace, s))
    return min(max(known, default=0.0), trace.duration_s)


def _begins_with(trace: Trace, stretch: Mapping[str, Any]) -> bool:
    return bool(_fingerprint(trace, stretch["bins"]) == stretch["sha256"])


def _fingerprint(trace: Trace, bins: int) -> str:
    """SHA-256 of the first bins: starts to the microsecond, and bandwidth to the bit per second."""
    values = np.stack([np.rint(trace.time_s[:bins] * 1e6), np.rint(trace.bandwidth_bps[:bins])])
    return hashlib.sha256(values.tobytes()).hexdigest()
