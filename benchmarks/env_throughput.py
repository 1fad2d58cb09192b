"""How many frames a second the environments simulate, each step with its observation, and how fast PPO trains on them.

    python benchmarks/env_throughput.py [--json FILE]

Rows: the batched environment on one process and on one process for each of ``--processes`` cores, beside
Stable-Baselines3's DummyVecEnv over the single environment. Points are chosen at random beforehand; episodes begin
again as they end, which is part of the time. The last row is PPO whole: collecting, deciding, learning, one step a
frame, in one process with as many threads. Frames a second are of wall-clock time and want an idle machine; frames a
second of processor time, summed over the processes, stand beside them for a machine that is not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, installed or not

from stable_baselines3.common.vec_env import DummyVecEnv

from tidesplit.agents.learning import training
from tidesplit.envs.adapters.sb3 import SplitInferenceVecEnv
from tidesplit.envs.adapters.split_inference import SplitInference
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import TraceError
from tidesplit.profiling.points.profile import ProfileError

EPISODE_S = 60.0
PRESENT = 64  # rows of points drawn beforehand and played in turn


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration: medians of ``rounds`` (frames a second of all processes together, by wall clock and CPU)."""

    what: str
    processes: int
    lanes: int
    points: int
    frames_per_s: float
    frames_per_cpu_s: float
    rounds: list[tuple[float, float]]


def frames_per_s(env: Any, seconds: float, rounds: int) -> list[tuple[float, float]]:
    """Frames of a VecEnv by second of wall-clock and of CPU time, ``rounds`` rounds of about ``seconds`` each."""
    rng = np.random.default_rng(0)
    points = rng.integers(env.action_space.n, size=(PRESENT, env.num_envs))
    env.seed(0)
    env.reset()
    _play(env, points, seconds / 4)
    measured = []
    for _ in range(rounds):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        frames = _play(env, points, seconds) * env.num_envs
        measured.append((frames / (time.perf_counter() - begin), frames / (time.process_time() - begin_cpu)))
    return measured


def _play(env: Any, points: np.ndarray, seconds: float) -> int:
    end, steps = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        env.step(points[steps % PRESENT])
        steps += 1
    return steps


def batched(scenario: Scenario, lanes: int) -> SplitInferenceVecEnv:
    return SplitInferenceVecEnv(lanes, scenario=scenario)


def dummy(scenario: Scenario, lanes: int) -> DummyVecEnv:
    return DummyVecEnv([lambda: SplitInference(scenario=scenario)] * lanes)


def measure(make: Callable[..., Any], what: str, args: argparse.Namespace, lanes: int, processes: int) -> Row:
    """Run one configuration in ``processes`` processes at the same time and add up their frames."""
    try:
        scenario = scenario_from(trace=args.trace, profile=args.profile, tiers=args.tiers, episode_s=EPISODE_S)
    except (TraceError, ProfileError) as error:
        sys.exit(f"env_throughput: {error}")
    work = (make, scenario, lanes, args.seconds, args.rounds)
    if processes == 1:
        each = [_one(work)]
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            each = pool.map(_one, [work] * processes, chunksize=1)
    rounds = [
        (sum(wall), sum(cpu)) for wall, cpu in (zip(*together, strict=True) for together in zip(*each, strict=True))
    ]
    return Row(
        what=what,
        processes=processes,
        lanes=lanes,
        points=scenario.table.size,
        frames_per_s=statistics.median(wall for wall, _ in rounds),
        frames_per_cpu_s=statistics.median(cpu for _, cpu in rounds),
        rounds=rounds,
    )


def _one(work: tuple[Callable[..., Any], Scenario, int, float, int]) -> list[tuple[float, float]]:
    make, scenario, lanes, seconds, rounds = work
    return frames_per_s(make(scenario, lanes), seconds, rounds)


def training_speed(args: argparse.Namespace) -> Row:
    """PPO as train.py runs it, after imitation: frames collected and learned from, a second."""
    torch.set_num_threads(args.processes)
    scenario = scenario_from(trace=args.trace, profile=args.profile, tiers=args.tiers)
    recipe = training.Recipe()
    model = training.new_model(scenario, recipe)
    frames = recipe.ppo.lanes * recipe.ppo.rollout
    model.learn(frames)
    rounds = []
    for _ in range(args.rounds):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        model.learn(2 * frames, reset_num_timesteps=False)
        rounds.append((2 * frames / (time.perf_counter() - begin), 2 * frames / (time.process_time() - begin_cpu)))
    return Row(
        what="PPO training",
        processes=1,
        lanes=recipe.ppo.lanes,
        points=scenario.table.size,
        frames_per_s=statistics.median(wall for wall, _ in rounds),
        frames_per_cpu_s=statistics.median(cpu for _, cpu in rounds),
        rounds=rounds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", default="lte", help="a trace file, folder, or bundled name (default: lte)")
    parser.add_argument("--profile", default="efficientnet_lite0", help="a profile file or bundled name")
    parser.add_argument("--tiers", type=int, choices=(2, 3), default=2, help="with an edge server between (default: 2)")
    parser.add_argument("--lanes", type=int, default=1024, help="lanes of the batched environment (default: 1024)")
    parser.add_argument("--processes", type=int, default=2, help="processes of the second row (default: 2)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round (default: 5)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each row; the median is told (default: 5)")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    args = parser.parse_args()
    rows = [
        measure(batched, "batched", args, args.lanes, 1),
        measure(batched, "batched", args, args.lanes, args.processes),
        measure(dummy, "DummyVecEnv of single", args, 8, 1),
        training_speed(args),
    ]
    print(f"{'environment':<22} {'processes':>9} {'lanes':>6} {'points':>6} {'frames/s':>10} {'by CPU':>10}   spread")
    for row in rows:
        walls = [wall for wall, _ in row.rounds]
        sizes = f"{row.processes:>9} {row.lanes:>6} {row.points:>6}"
        speeds = f"{row.frames_per_s:>10,.0f} {row.frames_per_cpu_s:>10,.0f}   {min(walls):,.0f} to {max(walls):,.0f}"
        print(f"{row.what:<22} {sizes} {speeds}")
    if args.json:
        facts = {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}
        args.json.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
