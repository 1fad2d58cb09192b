"""Memory of processes over time, and its growth."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from tidesplit.benchmarks.processes import cpu_s, memory_mib
from tidesplit.envs.world.vocabulary import Floats

BLOCK_S = 300.0  # memory hardly depends on what it was so long ago
# 97.5th percentiles of Student's t, by degrees of freedom from 1 on.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)


class Sample(NamedTuple):
    """Memory of a process, ``at_s`` after the start. ``life``: how often it had been restarted, ``age_s``: since."""

    at_s: float
    life: int
    age_s: float
    mib: float


class Slope(NamedTuple):
    """Growth in MiB an hour with its 95 % interval, from ``n`` blocks. NaN where there are too few."""

    mib_an_hour: float
    low: float
    high: float
    n: int


def slope(samples: Sequence[Sample], warm_up_s: float) -> Slope:
    """Least squares within lives, through the means of blocks of ``BLOCK_S``, without the first ``warm_up_s`` of each.

    Memory keeps its level for minutes, so neighbouring samples say the same. Blocks are nearly independent. What is
    left of their correlation, and that of a line through few blocks, reduces the number that counts in the interval.
    """
    lives: dict[int, dict[int, list[Sample]]] = {}
    for sample in samples:
        if sample.age_s >= warm_up_s:
            blocks = lives.setdefault(sample.life, {})
            blocks.setdefault(int((sample.age_s - warm_up_s) // BLOCK_S), []).append(sample)
    means = [_means(blocks.values()) for blocks in lives.values()]
    x, y = np.concatenate([np.zeros((0, 2)), *(life - life.mean(axis=0) for life in means)]).T
    n, free = len(x), len(x) - len(means) - 1
    if free < 1:
        return Slope(np.nan, np.nan, np.nan, n)
    spread = float(x @ x)
    growth = float(x @ y) / spread
    rest = y - growth * x
    alike = float(np.clip(rest[1:] @ rest[:-1] / max(float(rest @ rest), 1e-12) + 1 / n, 0.0, 0.9))
    independent = max(n * (1 - alike) / (1 + alike) - (n - free), 1.0)
    student = float(np.interp(independent, np.arange(1, len(STUDENT) + 1), STUDENT))
    error = student * float(np.sqrt(rest @ rest / independent / spread))
    return Slope(3600 * growth, 3600 * (growth - error), 3600 * (growth + error), n)


def _means(blocks: Collection[Sequence[Sample]]) -> Floats:
    """Mean moment and memory of each block, without one at the end that has less than half of its samples."""
    least = max(map(len, blocks)) / 2
    return np.array([np.mean([(s.at_s, s.mib) for s in block], axis=0) for block in blocks if len(block) >= least])


class Watch:
    """Takes samples of processes by name. `restarted` begins a new life of one of them."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids, self._begun_s = dict(pids), time.perf_counter()
        self._lives = dict.fromkeys(pids, (0, 0.0))
        self.samples: dict[str, list[Sample]] = {name: [] for name in pids}
        self._cpu_s: dict[tuple[str, int], float] = {}  # by name and life

    def now_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._begun_s

    def restarted(self, name: str, pid: int) -> None:
        """The process is another one now."""
        self._pids[name], self._lives[name] = pid, (self._lives[name][0] + 1, self.now_s())

    def look(self) -> None:
        """Take a sample of every process that still runs."""
        now_s = self.now_s()
        for name, pid in self._pids.items():
            try:
                mib, self._cpu_s[name, self._lives[name][0]] = memory_mib(pid), cpu_s(pid)
            except (OSError, StopIteration):  # it has ended; while nobody has waited for it, it has no memory
                continue
            life, born_s = self._lives[name]
            self.samples[name].append(Sample(now_s, life, now_s - born_s, mib))

    def newest(self) -> str:
        """Memory of every process at the last look."""
        return ", ".join(f"{name} {rows[-1].mib:.1f}" for name, rows in self.samples.items() if rows)

    def cores(self) -> float:
        """Processor cores that all processes together took, in the mean."""
        return sum(self._cpu_s.values()) / self.now_s()

    def minutes(self) -> dict[str, list[float]]:
        """Memory by the minute, the mean of each."""
        return {name: _by_minute(rows) for name, rows in self.samples.items()}


def _by_minute(samples: Sequence[Sample]) -> list[float]:
    minutes: dict[int, list[float]] = {}
    for sample in samples:
        minutes.setdefault(int(sample.at_s // 60), []).append(sample.mib)
    return [round(float(np.mean(values)), 1) for values in minutes.values()]
