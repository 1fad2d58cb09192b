"""Frames a second of the environments, each step with its observation, and of PPO's training on them.

    python benchmarks/env_throughput.py [--json FILE]
    git worktree add ../before/tidesplit COMMIT && python benchmarks/env_throughput.py --before ../before

Rows: the batched environment on one process, then on --processes at once; Stable-Baselines3's DummyVecEnv over the
single environment; PPO as a whole (collecting, deciding, learning, one step a frame) in one process with that many
threads, and the same while only the critic learns; labels of imitation's teacher, and passes over labels. Points are
drawn at random beforehand. Episodes begin again as they end, and that time counts.

With --before, another process measures an older copy of the package in the same way, before this one and after it. A
second table has the ratio of the two medians, by processor time.

Frames a second are of wall-clock time and need an idle machine. The second figure, of processor time summed over the
processes, serves a machine that is not idle.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from tidesplit.agents.judging.seer import teacher_regret
from tidesplit.agents.learning import imitation, training
from tidesplit.benchmarks.results import write_json
from tidesplit.envs.adapters.sb3 import SplitInferenceVecEnv
from tidesplit.envs.adapters.split_inference import SplitInference
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Scenario, Simulation
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


def training_speed(args: argparse.Namespace, frozen: bool) -> Speed:
    """PPO as in train.py, after rollouts: frames that are collected and learned from. ``frozen``: by the critic."""
    torch.set_num_threads(args.processes)
    scenario = scenario_from(trace=args.trace, profile=args.profile, tiers=args.tiers)
    recipe = training.Recipe()
    model = training.new_model(scenario, recipe)
    training.policy_of(model).freeze_actor(frozen)
    frames = recipe.ppo.lanes * recipe.ppo.rollout
    model.learn(frames)
    rounds = []
    for _ in range(args.rounds):
        watch = Stopwatch()
        model.learn(2 * frames, reset_num_timesteps=False)
        rounds.append(watch.rate(2 * frames))
    what = "PPO, critic only" if frozen else "PPO training"
    return Speed.of(what, [rounds], recipe.ppo.lanes, scenario.table.size)


def imitation_speeds(args: argparse.Namespace) -> list[Speed]:
    """Imitation from scratch, on one thread: states that the teacher labels, and labels that are fitted to once."""
    torch.set_num_threads(1)
    scenario = training.stretches(scenario_from(trace=args.trace, profile=args.profile, tiers=args.tiers))
    recipe = training.Recipe()
    policy = training.policy_of(training.new_model(scenario, recipe))
    rng, lanes = np.random.default_rng(0), np.arange(64)
    simulation = Simulation(scenario, [np.random.default_rng([0, lane]) for lane in range(len(lanes))])
    config = replace(recipe.imitation, labels_per_round=10 * len(lanes))
    labels = imitation.collect(None, simulation, config, rng)
    policy.fit_normaliser(labels.flat)
    adam = torch.optim.Adam(policy.actor.parameters(), lr=config.rate)
    older = getattr(imitation, "_fit", None)  # of a copy from before rollouts, see --before
    fit = partial(older, config=config) if older else partial(imitation.fit, batch=config.batch)
    labelled, fitted = [], []
    for _ in range(args.rounds):
        watch = Stopwatch()
        for _ in range(10):
            teacher_regret(simulation, lanes)
        labelled.append(watch.rate(10 * len(lanes)))
        watch = Stopwatch()
        fit(policy, labels, adam, epochs=10, weight=config.last_entropy, rng=rng)
        fitted.append(watch.rate(10 * len(labels.flat)))
    points = scenario.table.size
    return [Speed.of(what, [of], len(lanes), points) for what, of in (("labels", labelled), ("fitting", fitted))]


def rounds_before(args: argparse.Namespace) -> dict[str, list[Round]]:
    """Rounds of an older copy of the package by row, measured by this program in another process."""
    named = {name: value for name, value in vars(args).items() if name not in ("before", "json")}
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "rows.json"
        options = [word for name, value in named.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, __file__, *options, "--json", str(found)]
        older = {**os.environ, "PYTHONPATH": str(args.before.resolve())}
        subprocess.run(command, env=older, check=True, stdout=subprocess.DEVNULL)
        rows = json.loads(found.read_text(encoding="utf-8"))["rows"]
    return {_key(row["what"], row["processes"]): row["rounds"] for row in rows}


def _key(what: str, processes: int) -> str:
    return f"{what}, {processes} processes" if processes > 1 else what


def ratios(rows: Sequence[Speed], *before: dict[str, list[Round]]) -> dict[str, dict[str, float]]:
    """Frames a second of processor time by row: of the older copy's rounds, of ours, and how many times as many."""
    found = {}
    for row in rows:
        key = _key(row.what, row.processes)
        older = statistics.median(cpu for rounds in before for _, cpu in rounds[key])
        found[key] = {"before": older, "after": row.frames_per_cpu_s, "ratio": row.frames_per_cpu_s / older}
    return found


def speeds(args: argparse.Namespace) -> list[Speed]:
    """Every row."""
    return [
        measure(batched, "batched", args, args.lanes, 1),
        measure(batched, "batched", args, args.lanes, args.processes),
        measure(dummy, "DummyVecEnv of single", args, 8, 1),
        *(training_speed(args, frozen) for frozen in (False, True)),
        *imitation_speeds(args),
    ]


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
    parser.add_argument("--before", type=Path, help="folder of an older copy of the package tidesplit, to compare with")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    args = parser.parse_args(argv)
    earlier = [rounds_before(args)] if args.before else []
    rows = speeds(args)
    compared = ratios(rows, *earlier, rounds_before(args)) if args.before else {}
    print(HEADING, *(row.line() for row in rows), sep="\n")
    for name, of in compared.items():
        print(f"{name:<24} {of['before']:>10,.0f} before {of['after']:>10,.0f} after  {of['ratio']:.2f} times as many")
    facts = {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}
    write_json(args.json, {**facts, "rows": [asdict(row) for row in rows], "compared": compared})


if __name__ == "__main__":
    main()
