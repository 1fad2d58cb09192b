"""PPO beside every rule on an uplink that nothing was trained or tuned on, and the map of where learning pays.

    python benchmarks/controllers.py seeds --train ../shared/traces/train/lte_us --test ../shared/traces/test/lte_us
    python benchmarks/controllers.py map   --train ../shared/traces/train/lte_us --test ../shared/traces/test/lte_us

`seeds` trains one policy a seed for one demand (the default one, or --fps and --deadline-ms), tunes the rules fully
on the training traces, and plays all on the whole test traces with the same courses of events; with --tiers 3 there is
a cloud behind a second link. `evaluate.py OUT/seed-* --ladder` plays the same policies on other traces. `map` trains
one policy for all demands of the grid, tunes the rules anew for each demand, and plays the first minute of each test
trace. Both print a table and write JSON (--json). Everything is simulated.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, installed or not

from tidesplit.agents import bundle
from tidesplit.agents.judging import contest, ladder
from tidesplit.agents.judging.evaluation import Entrant, captured, interval
from tidesplit.agents.judging.ladder import KNOWS_BANDWIDTH, POLICY, Blind, Tuning
from tidesplit.agents.learning import training
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.envs.simulation.scenario import SECOND_TRACE, machines_of, scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import load_traces
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points import profile as profiles

FPS = (5.0, 10.0, 15.0, 20.0, 30.0)
DEADLINES_S = (0.075, 0.100, 0.150, 0.200)
MAP_S = 60.0  # of each trace: twenty demands are many
NOTHING = 0.005  # of headroom: the best static point is all that one needs, and shares of it mean nothing
RULES = ("look-up, tuned", "MPC, tuned")


def train_one(options: argparse.Namespace, demands: Sequence[Demand], seed: int, out: Path, steps: int) -> Path:
    """Train a policy on the training traces and write its bundle; runs in a process of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    scenario = replace(scenario_of(options, options.train, demands), trace_spread=options.trace_spread)
    recipe = training.Recipe(ppo=training.PpoConfig(steps=steps), seed=seed)
    model = training.new_model(scenario, recipe)
    training.learn_by_imitation(model, scenario, recipe, lambda *_: None)
    training.learn_by_ppo(model, recipe, None, lambda *_: None)
    write_bundle(
        out,
        training.policy_of(model),
        profile=profiles.load(options.profile),
        table=scenario.table,
        machines=machines_of(options.tiers),
        demand=demands[0],
        config={
            "trace": options.train,
            "second_trace": SECOND_TRACE,
            "seed": seed,
            "steps": steps,
            "trace_spread": options.trace_spread,
        },
    )
    return out


def scenario_of(options: argparse.Namespace, traces: str, demands: Sequence[Demand]) -> Scenario:
    """The bundled devices, these traces, these demands."""
    return scenario_from(
        trace=traces,
        profile=options.profile,
        tiers=options.tiers,
        second_trace=SECOND_TRACE,
        demands=demands,
    )


def seeds(options: argparse.Namespace, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Utility and misses of every controller on the test traces: mean and 95 % interval over seeds."""
    demand = Demand(fps=options.fps, deadline_s=options.deadline_ms / 1e3)
    judge_on, tune_on = (scenario_of(options, t, [demand]) for t in (options.test, options.train))
    judge_on = shortened(judge_on, options.seconds)
    numbers = range(options.seeds)
    training_runs = [
        pool.submit(train_one, options, [demand], s, options.out / f"seed-{s}", options.steps) for s in numbers
    ]
    tuning = pool.submit(ladder.tuned_rules, tune_on, Tuning(thorough=True))
    bounding = [contest.submit_bounds(pool, judge_on, s) for s in numbers]
    rules = tuning.result()
    by_seed = [[future.result() for future in of] for of in bounding]
    results = contest.contest(rules, judge_on, by_seed, numbers, pool=pool)
    found: dict[str, list[dict[str, float]]] = {}
    for seed, result in zip(numbers, results, strict=True):
        policy = bundle.load(training_runs[seed].result()).policy
        (learned,) = contest.contest({POLICY: Blind(policy)}, judge_on, [by_seed[seed]], [seed])
        rows_of = result.rows + learned.rows
        for name in ladder.in_order({**rules, POLICY: Blind(policy)}):
            rows = [r for r in rows_of if r.controller == name]
            found.setdefault(name, []).append({k: float(np.mean([getattr(r, k) for r in rows])) for k in KEYS})
    bounds = [float(np.mean(of)) for of in by_seed]
    recipe = {"steps": options.steps, "trace_spread": options.trace_spread, "tiers": options.tiers}
    return {"demand": asdict(demand), "seeds": options.seeds, "recipe": recipe, "bounds": bounds, "controllers": found}


KEYS = ("utility", "miss_rate", "accuracy", "latency_ms_mean", "latency_ms_p95", "bytes_mean", "switches_per_min")


def seeds_table(found: dict[str, Any]) -> Table:
    """One line a controller."""
    rng = np.random.default_rng(0)
    bounds = np.array(found["bounds"])
    static = np.array([row["utility"] for row in found["controllers"]["best static point"]])
    demand, tiers = found["demand"], found["recipe"]["tiers"]
    asked = f"{demand['fps']:g} fps, {1e3 * demand['deadline_s']:g} ms, {tiers} tiers"
    table = Table(title=f"{asked}: {found['seeds']} seeds, simulated; mean and 95 % interval")
    for heading in ("controller", "utility", "headroom captured", "miss %", "accuracy", "mean ms", "p95 ms", "bytes"):
        table.add_column(heading, justify="left" if heading == "controller" else "right", no_wrap=True)
    for name, rows in found["controllers"].items():
        utility = np.array([row["utility"] for row in rows])
        low, high = interval(utility, rng)
        shares = [captured(u, s, b) for u, s, b in zip(utility, static, bounds, strict=True)]
        miss = 100 * np.array([row["miss_rate"] for row in rows])
        table.add_row(
            name,
            f"{utility.mean():.4f} [{low:.4f}, {high:.4f}]",
            f"{100 * np.mean(shares):.0f} %",
            f"{miss.mean():.2f}",
            *(f"{np.mean([row[k] for row in rows]):.{d}f}" for k, d in zip(KEYS[2:6], (4, 1, 1, 0), strict=True)),
        )
    table.add_row("clairvoyant (upper bound)", f"{bounds.mean():.4f}", "100 %", *[""] * 5)
    return table


def grid(options: argparse.Namespace, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Headroom and share captured for each frame rate and deadline; one policy serves them all."""
    demands = [Demand(fps=fps, deadline_s=deadline) for fps in FPS for deadline in DEADLINES_S]
    policy_at = pool.submit(train_one, options, demands, 0, options.out / "map", options.map_steps)
    cells = [
        (scenario_of(options, options.train, [d]), shortened(scenario_of(options, options.test, [d]), MAP_S))
        for d in demands
    ]
    bounding = [contest.submit_bounds(pool, judge_on, 0) for _, judge_on in cells]
    tuning = [pool.submit(ladder.tuned_rules, tune_on, Tuning(lanes=8, episode_s=8.0)) for tune_on, _ in cells]
    policy = bundle.load(policy_at.result()).policy
    rows = []
    for demand, (_, judge_on), bounds, rules in zip(demands, cells, bounding, tuning, strict=True):
        entrants: dict[str, Entrant] = ladder.in_order({**rules.result(), POLICY: Blind(policy)})
        (result,) = contest.contest(entrants, judge_on, [[f.result() for f in bounds]])
        utility = {n: float(np.mean([r.utility for r in result.rows if r.controller == n])) for n in entrants}
        miss = {n: float(np.mean([r.miss_rate for r in result.rows if r.controller == n])) for n in entrants}
        bound = float(np.mean(list(result.bounds.values())))
        rows.append(
            {
                "fps": demand.fps,
                "deadline_ms": demand.deadline_s * 1e3,
                "bound": bound,
                "utility": utility,
                "miss_rate": miss,
            }
        )
        print(f"{demand.fps:g} fps {demand.deadline_s * 1e3:g} ms done", file=sys.stderr)
    return {"cells": rows}


def shortened(scenario: Scenario, longest_s: float) -> Scenario:
    """The first seconds of every trace."""
    traces = [t.slice(0.0, min(t.duration_s, longest_s)) for t in scenario.traces]
    return replace(scenario, traces=tuple(traces))


def grid_table(found: dict[str, Any]) -> Table:
    """One line a demand."""
    table = Table(title="one PPO policy for all demands, rules tuned for each; simulated")
    headings = ("fps", "deadline ms", "best static", "clairvoyant", "headroom", *RULES, POLICY, KNOWS_BANDWIDTH)
    for heading in headings:
        table.add_column(heading, justify="right")
    for cell in found["cells"]:
        utility, bound = cell["utility"], cell["bound"]
        static = utility["best static point"]
        worth = bound - static >= NOTHING
        shares = [
            f"{100 * captured(utility[n], static, bound):.0f} %" if worth else "-"
            for n in (*RULES, POLICY, KNOWS_BANDWIDTH)
        ]
        table.add_row(
            f"{cell['fps']:g}",
            f"{cell['deadline_ms']:g}",
            f"{static:.4f}",
            f"{bound:.4f}",
            f"{bound - static:.4f}",
            *shares,
        )
    return table


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("seeds", "map"))
    parser.add_argument("--train", required=True, help="traces to train and tune on")
    parser.add_argument("--test", required=True, help="traces to judge by")
    parser.add_argument("--profile", default="efficientnet_lite0")
    parser.add_argument("--tiers", type=int, choices=(2, 3), default=2, help="3: edge server and cloud")
    parser.add_argument("--fps", type=float, default=Demand().fps, help="seeds: frames a second (default: %(default)g)")
    parser.add_argument(
        "--deadline-ms", type=float, default=1e3 * Demand().deadline_s, help="seeds: deadline (default: %(default)g)"
    )
    parser.add_argument("--seconds", type=float, default=np.inf, help="seeds: play so much of each trace (all)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1_000_000, help="PPO steps a seed (default: %(default)s)")
    parser.add_argument("--map-steps", type=int, default=1_000_000, help="PPO steps of the map's policy")
    parser.add_argument("--trace-spread", type=float, default=1.5, help="vary the uplink's bandwidth in training")
    parser.add_argument("--out", type=Path, default=Path("out/controllers"), help="folder for the bundles")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    contest.stop_on_sigterm()
    begun = time.perf_counter()
    for trace in (options.train, options.test):
        load_traces(trace)
    with contest.workers() as pool:
        found = seeds(options, pool) if options.what == "seeds" else grid(options, pool)
    Console(width=150).print(seeds_table(found) if options.what == "seeds" else grid_table(found))
    print(f"{time.perf_counter() - begun:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
