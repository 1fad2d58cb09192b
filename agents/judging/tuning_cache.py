"""The results of tunings, kept in the user's cache folder: the same rules on the same scenario are not tuned twice.

A file is named after everything that a tuning depends on: traces, operating points, demands, world, the tuning's own
numbers, and the code. It holds numbers only. One that is damaged is written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tidesplit.agents.judging.evaluation import Entrant
from tidesplit.agents.judging.ladder import EVERY, SPENT, Known, Tuning, tuned_rules
from tidesplit.data.files import ROOT
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace

MOST = 64  # files, some 5 KB each; the oldest go first
CODE = (
    "agents/rules", "agents/judging/budgeted.py", "agents/judging/ladder.py", "envs/budget", "envs/simulation",
    "envs/traces", "envs/world", "profiling/points",
)  # fmt: skip
"""Files and rooms that a tuning runs through."""


def folder() -> Path:
    """The folder of the results."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "tidesplit" / "tuned"


def cached_rules(scenario: Scenario, tuning: Tuning, names: Collection[str] = EVERY) -> dict[str, Entrant]:
    """As `tuned_rules`. What the user's cache holds is taken from there, the rest is tuned and added.

    With a utility of the user's own nothing is kept: code outside the package may change unseen.
    """
    if scenario.world.utility is not None:
        return tuned_rules(scenario, tuning, names)
    file = file_of(scenario, tuning)
    known = read(file, scenario.table.size)
    before = set(known)
    rules = tuned_rules(scenario, tuning, names, known)
    if known.keys() == before:
        with contextlib.suppress(OSError):
            file.touch()  # used: it goes last
    else:
        meanwhile = read(file, scenario.table.size)  # another process may have tuned other rules
        write(file, {**meanwhile, **known})
    return rules


def file_of(scenario: Scenario, tuning: Tuning) -> Path:
    """The file with the results of this tuning, if there are any."""
    return folder() / f"{key_of(scenario, tuning)}.json"


def key_of(scenario: Scenario, tuning: Tuning) -> str:
    """Hash of everything that the result of a tuning depends on. Spreads and lengths are the tuning's own."""
    digest = hashlib.sha256(code_hash().encode())
    alike = replace(scenario.unvaried, episode_s=None)
    for part in _content((alike, tuning)):
        digest.update(part)
    return digest.hexdigest()[:32]


def _content(value: Any) -> Iterator[bytes]:
    """A value of dataclasses, tuples, mappings, arrays and plain values as bytes, each with its type and length."""
    if isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes() if value.dtype != object else repr(value.tolist()).encode()
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        for field in fields(value):
            if not (isinstance(value, Trace) and field.name == "name"):
                yield field.name.encode()
                yield from _content(getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield from _content(tuple(value.items()))
    elif isinstance(value, tuple | list):
        yield f"{len(value)} of {type(value).__name__}".encode()
        for item in value:
            yield from _content(item)
    else:
        yield f"{type(value).__name__} {value!r}".encode()


@cache
def code_hash() -> str:
    """Hash of the sources that a tuning runs through, and of NumPy's version."""
    digest = hashlib.sha256(np.__version__.encode())
    for part in CODE:
        path = ROOT / part
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def read(file: Path, points: int) -> Known:
    """Results in a file, those that make sense. Empty where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or not all(map(_sound, found.values())):
        return {}
    means = found.get(SPENT, [[0.0] * points] * 3)
    sizes = [len(row) if isinstance(row, list) else 0 for row in means]
    return found if sizes == [points] * 3 else {}


def _sound(result: Any) -> bool:
    values = list(result.values()) if isinstance(result, dict) else result
    if isinstance(values, list) and values and all(isinstance(row, list) for row in values):
        values = [value for row in values for value in row]
    return isinstance(values, list) and all(isinstance(v, int | float) and not math.isnan(v) for v in values)


def write(file: Path, known: Known) -> None:
    """Write a file, and delete the oldest beyond `MOST`. A folder that cannot be written is no error."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".part", delete=False, encoding="utf-8") as part:
            part.write(json.dumps(dict(known)))  # of a name of its own: another process may write the same
        os.replace(part.name, file)
        oldest = sorted(file.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in oldest[MOST:]:
            path.unlink(missing_ok=True)
