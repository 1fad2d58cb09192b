"""Timing of functions: warm-up, interleaved repeats, median and spread, facts of the machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

WARN_SPREAD = 0.10  # share of the median: a larger interquartile range means that the machine was not quiet


@dataclass(frozen=True)
class Measurement:
    """Raw times of one function in seconds, `runs` of them in each round.

    The fastest run of a round stands for the round, because other work on the machine only ever adds time.
    """

    times_s: tuple[float, ...]
    runs: int = 1

    @property
    def rounds_s(self) -> tuple[float, ...]:
        """Fastest run of each round."""
        return tuple(min(self.times_s[i : i + self.runs]) for i in range(0, len(self.times_s), self.runs))

    @property
    def median_s(self) -> float:
        """Median over the rounds."""
        return float(np.median(self.rounds_s))

    @property
    def quiet_s(self) -> float:
        """Lower quartile over the rounds, which estimates the time on a machine that does nothing else."""
        return float(np.percentile(self.rounds_s, 25))

    @property
    def spread(self) -> float:
        """Interquartile range of the rounds as a share of their median."""
        low, high = np.percentile(self.rounds_s, (25, 75))
        return float((high - low) / max(self.median_s, 1e-12))

    @property
    def noisy(self) -> bool:
        """True where the spread shows that something else ran at the same time."""
        return self.spread > WARN_SPREAD


def time_interleaved(
    work: Mapping[str, Callable[[], object]], rounds: int, runs: int, warm: int = 3,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Measurement]:  # fmt: skip
    """Time all functions in turn, so that a disturbance hits all alike.

    Args:
        work: functions by name.
        rounds: how often each function has its turn.
        runs: timed runs in a turn.
        warm: runs before these that are not timed.
        tick: called after every turn.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, function in work.items():
            for _ in range(warm):
                function()
            for _ in range(runs):
                start = time.perf_counter()
                function()
                times[name].append(time.perf_counter() - start)
            tick()
    return {name: Measurement(tuple(values), runs) for name, values in times.items()}


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def machine_facts(threads: int) -> dict[str, Any]:
    """Facts that a reader needs to judge a timing: processor, threads, versions."""
    return {
        "cpu": _cpu_name(), "machine": platform.machine(), "cores": os.cpu_count() or 0, "threads": threads,
        "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(),
        "onnxruntime": ort.__version__,
    }  # fmt: skip
