"""Frames a second of the environments, each step with its observation, and of PPO's training on them.

    python benchmarks/env_throughput.py [--json FILE]

Rows: the batched environment on one process, then on --processes at once; Stable-Baselines3's DummyVecEnv over the
single environment; PPO as a whole (collecting, deciding, learning, one step a frame) in one process with that many
threads. Points are drawn at random beforehand. Episodes begin again as they end, and that time counts.

Frames a second are of wall-clock time and need an idle machine. The second figure, of processor time summed over the
processes, serves a machine that is not idle.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from tidesplit.agents.learning import training
from tidesplit.benchmarks.results import write_json
from tidesplit.envs.adapters.sb3 import SplitInferenceVecEnv
from tidesplit.envs.adapters.split_inference import SplitInference
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import TraceError
from tidesplit.profiling.points.profile import ProfileError

Round = tuple[float, float]
"""Frames a second by wall clock, and by processor time."""

EPISODE_S = 60.0
DRAWN = 64  # rows of points drawn beforehand and played in turn


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One configuration. Frames a second of all processes together, by wall clock and by processor time."""

    what: str
    processes: int
    lanes: int
    points: int
    frames_per_s: float
    frames_per_cpu_s: float
    rounds: list[Round]

    @classmethod
    def of(cls, what: str, each: Sequence[Sequence[Round]], lanes: int, points: int) -> Speed:
        """Rounds of each process, added up, with their medians."""
        rounds = [(sum(r[0] for r in at_once), sum(r[1] for r in at_once)) for at_once in zip(*each, strict=True)]
        return cls(
            what=what,
            processes=len(each),
            lanes=lanes,
            points=points,
            frames_per_s=statistics.median(wall for wall, _ in rounds),
            frames_per_cpu_s=statistics.median(cpu for _, cpu in rounds),
            rounds=rounds,
        )

    def line(self) -> str:
        """A row of the printed table."""
        walls = [wall for wall, _ in self.rounds]
        sizes = f"{self.processes:>9} {self.lanes:>6} {self.points:>6}"
        speeds = f"{self.frames_per_s:>10,.0f} {self.frames_per_cpu_s:>10,.0f}   {min(walls):,.0f} to {max(walls):,.0f}"
        return f"{self.what:<22} {sizes} {speeds}"


HEADING = f"{'environment':<22} {'processes':>9} {'lanes':>6} {'points':>6} {'frames/s':>10} {'by CPU':>10}   spread"


class Stopwatch:
    """Wall-clock and processor time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def rate(self, frames: int) -> Round:
        """Frames a second since then."""
        return frames / (time.perf_counter() - self._wall), frames / (time.process_time() - self._cpu)


def frames_per_s(env: Any, seconds: float, rounds: int) -> list[Round]:
    """Speed of a VecEnv in each of ``rounds`` rounds of about ``seconds``."""
    rng = np.random.default_rng(0)
    points = rng.integers(env.action_space.n, size=(DRAWN, env.num_envs))
    env.seed(0)
    env.reset()
    _play(env, points, seconds / 4)
    measured = []
    for _ in range(rounds):
        watch = Stopwatch()
        measured.append(watch.rate(_play(env, points, seconds) * env.num_envs))
    return measured


def _play(env: Any, points: np.ndarray, seconds: float) -> int:
    """Number of steps made."""
    end, steps = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        env.step(points[steps % DRAWN])
        steps += 1
    return steps


def batched(scenario: Scenario, lanes: int) -> SplitInferenceVecEnv:
    """The batched environment."""
    return SplitInferenceVecEnv(lanes, scenario=scenario)


def dummy(scenario: Scenario, lanes: int) -> DummyVecEnv:
    """Stable-Baselines3's batch of single environments."""
    return DummyVecEnv([lambda: SplitInference(scenario=scenario)] * lanes)


def measure(make: Callable[..., Any], what: str, args: argparse.Namespace, lanes: int, processes: int) -> Speed:
    """Run one configuration in several processes at the same time and add up their frames."""
    try:
        scenario = scenario_from(trace=args.trace, profile=args.profile, tiers=args.tiers, episode_s=EPISODE_S)
    except (TraceError, ProfileError) as error:
        sys.exit(f"env_throughput: {error}")
    work = (make, scenario, lanes, args.seconds, args.rounds)
    if processes == 1:
        each = [_one(*work)]
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            each = pool.starmap(_one, [work] * processes, chunksize=1)
    return Speed.of(what, each, lanes, scenario.table.size)


def _one(make: Callable[..., Any], scenario: Scenario, lanes: int, seconds: float, rounds: int) -> list[Round]:
    return frames_per_s(make(scenario, lanes), seconds, rounds)


def training_speed(args: argparse.Namespace) -> Speed:
    """PPO as in train.py, after imitation: frames that are collected and learned from."""
    torch.set_num_threads(args.processes)
    scenario = scenario_from(trace=args.trace, profile=args.profile, tiers=args.tiers)
    recipe = training.Recipe()
    model = training.new_model(scenario, recipe)
    frames = recipe.ppo.lanes * recipe.ppo.rollout
    model.learn(frames)
    rounds = []
    for _ in range(args.rounds):
        watch = Stopwatch()
        model.learn(2 * frames, reset_num_timesteps=False)
        rounds.append(watch.rate(2 * frames))
    return Speed.of("PPO training", [rounds], recipe.ppo.lanes, scenario.table.size)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", default="lte", help="a trace file, folder, or bundled name (default: lte)")
    parser.add_argument("--profile", default="efficientnet_lite0", help="a profile file or bundled name")
    parser.add_argument("--tiers", type=int, choices=(2, 3), default=2, help="3: with a middle server (default: 2)")
    parser.add_argument("--lanes", type=int, default=1024, help="lanes of the batched environment (default: 1024)")
    parser.add_argument("--processes", type=int, default=2, help="processes of the second row (default: 2)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round (default: 5)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of each row; their median is printed (default: 5)"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    args = parser.parse_args(argv)
    rows = [
        measure(batched, "batched", args, args.lanes, 1),
        measure(batched, "batched", args, args.lanes, args.processes),
        measure(dummy, "DummyVecEnv of single", args, 8, 1),
        training_speed(args),
    ]
    print(HEADING, *(row.line() for row in rows), sep="\n")
    facts = {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}
    write_json(args.json, {**facts, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
