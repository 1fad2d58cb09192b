"""PPO and every rule on an uplink that nothing was trained or tuned on, and a map of where learning pays.

    python benchmarks/compare.py seeds --train ../shared/traces/train/lte_us --test ../shared/traces/test/lte_us
    python benchmarks/compare.py map   --train ../shared/traces/train/lte_us --test ../shared/traces/test/lte_us

`seeds` trains one policy per seed for one demand (--fps, --deadline-ms) and tunes the rules thoroughly on the training
traces. It plays all of them on the whole test traces, with the same courses of events. --tiers 3 adds a second hop.
`tidesplit evaluate OUT/seed-* --ladder` plays the same policies on other traces.

`map` trains one policy for all demands of the grid, tunes the rules for each demand, and plays the first minute of each
test trace. Both print a table and write JSON (--json). Everything is simulated.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tidesplit.agents import bundle
from tidesplit.agents.judging import contest, ladder
from tidesplit.agents.judging.evaluation import Row, captured, interval
from tidesplit.agents.judging.ladder import POLICY, TRUE_BANDWIDTH, Tuning
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.agents.learning.options import TrainingOptions
from tidesplit.benchmarks.learned import trained
from tidesplit.benchmarks.results import write_json
from tidesplit.envs.simulation.scenario import SECOND_TRACE, machines_of, scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.held_out import shortened
from tidesplit.envs.traces.trace import load_traces
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points import profile as profiles

FPS = (5.0, 10.0, 15.0, 20.0, 30.0)
DEADLINES_S = (0.075, 0.100, 0.150, 0.200)
MAP_S = 60.0  # of each trace: the map has twenty demands
NOTHING = 0.005  # of headroom: below it one static point is enough, and a share of it means nothing
STATIC = "best static point"
IN_MAP = ("look-up, tuned", "MPC, tuned", POLICY, TRUE_BANDWIDTH)
KEYS = (
    "utility", "miss_rate", "accuracy", "latency_ms_mean", "latency_ms_p95", "bytes_mean", "gb_per_month", "watts",
    "radio_watts", "hottest_c", "switches_per_min",
)  # fmt: skip


def train_one(options: argparse.Namespace, demands: Sequence[Demand], seed: int, out: Path, steps: int) -> Path:
    """Train a policy on the training traces and write its bundle; runs in a process of its own."""
    scenario = scenario_of(options, options.train, demands)
    write_bundle(
        out,
        trained(scenario, profiles.load(options.profile).name, steps, seed, options.trace_spread),
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


def scenario_of(
    options: argparse.Namespace, traces: str, demands: Sequence[Demand], longest_s: float = np.inf
) -> Scenario:
    """These traces and demands on the bundled machines; of each trace the first ``longest_s`` seconds."""
    return scenario_from(
        trace=[shortened(trace, longest_s) for trace in load_traces(traces)],
        profile=options.profile,
        tiers=options.tiers,
        second_trace=SECOND_TRACE,
        demands=demands,
    )


def means(rows: Collection[Row], names: Collection[str], key: str) -> dict[str, float]:
    """Mean of a column over the traces, by controller."""
    return {name: float(np.mean([getattr(row, key) for row in rows if row.controller == name])) for name in names}


def seeds(options: argparse.Namespace, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Means over the test traces of every controller, one record per seed, and the clairvoyant's mean per seed."""
    demand = Demand(fps=options.fps, deadline_s=options.deadline_ms / 1e3)
    judge_on = scenario_of(options, options.test, [demand], options.seconds)
    tune_on = scenario_of(options, options.train, [demand])
    numbers = range(options.seeds)
    training = [pool.submit(train_one, options, [demand], s, options.out / f"seed-{s}", options.steps) for s in numbers]
    tuning = pool.submit(ladder.tuned_rules, tune_on, Tuning(thorough=True))
    bounding = [contest.submit_bounds(pool, judge_on, s) for s in numbers]
    rules = tuning.result()
    by_seed = [[future.result() for future in of] for of in bounding]
    results = contest.contest(rules, judge_on, by_seed, numbers, pool=pool)
    found: dict[str, list[dict[str, float]]] = {}
    for seed, result in zip(numbers, results, strict=True):
        policy = {POLICY: bundle.load(training[seed].result()).policy}
        (learned,) = contest.contest(policy, judge_on, [by_seed[seed]], [seed])
        columns = {key: means(result.rows + learned.rows, [*rules, POLICY], key) for key in KEYS}
        for name in ladder.in_order({**rules, **policy}):
            found.setdefault(name, []).append({key: of[name] for key, of in columns.items()})
    recipe = {"steps": options.steps, "trace_spread": options.trace_spread, "tiers": options.tiers}
    bounds = [float(np.mean(of)) for of in by_seed]
    return {"demand": asdict(demand), "seeds": options.seeds, "recipe": recipe, "bounds": bounds, "controllers": found}


def seeds_table(found: Mapping[str, Any]) -> Table:
    """One line per controller: means over seeds, the utility with its 95 % interval."""
    rng = np.random.default_rng(0)
    bounds, static = found["bounds"], [row["utility"] for row in found["controllers"][STATIC]]
    demand, tiers = found["demand"], found["recipe"]["tiers"]
    asked = f"{demand['fps']:g} fps, {1e3 * demand['deadline_s']:g} ms, {tiers} tiers"
    table = Table(title=f"{asked}: {found['seeds']} seeds, simulated; mean and 95 % interval")
    for heading in (
        "controller",
        "utility",
        "headroom captured",
        "miss %",
        "accuracy",
        "p95 ms",
        "watts",
        "GB a month",
    ):
        table.add_column(heading, justify="left" if heading == "controller" else "right", no_wrap=True)
    for name, rows in found["controllers"].items():
        utility = np.array([row["utility"] for row in rows])
        low, high = interval(utility, rng)
        shares = [captured(u, s, b) for u, s, b in zip(utility, static, bounds, strict=True)]
        mean = {key: float(np.mean([row[key] for row in rows])) for key in KEYS}
        table.add_row(
            name,
            f"{mean['utility']:.4f} [{low:.4f}, {high:.4f}]",
            f"{100 * np.mean(shares):.0f} %",
            f"{100 * mean['miss_rate']:.2f}",
            f"{mean['accuracy']:.4f}",
            f"{mean['latency_ms_p95']:.1f}",
            f"{mean['watts']:.2f}",
            f"{mean['gb_per_month']:.0f}",
        )
    table.add_row("clairvoyant (upper bound)", f"{np.mean(bounds):.4f}", "100 %", *[""] * 5)
    return table


def grid(options: argparse.Namespace, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Utility and misses of every controller at each frame rate and deadline. One policy serves them all."""
    demands = [Demand(fps=fps, deadline_s=deadline) for fps in FPS for deadline in DEADLINES_S]
    training = pool.submit(train_one, options, demands, 0, options.out / "map", options.map_steps)
    arenas = [scenario_of(options, options.test, [demand], MAP_S) for demand in demands]
    bounding = [contest.submit_bounds(pool, arena, 0) for arena in arenas]
    tune = Tuning(lanes=8, episode_s=8.0)
    tuning = [pool.submit(ladder.tuned_rules, scenario_of(options, options.train, [d]), tune) for d in demands]
    policy = bundle.load(training.result()).policy
    cells = []
    for demand, arena, bounds, rules in zip(demands, arenas, bounding, tuning, strict=True):
        entrants = ladder.in_order({**rules.result(), POLICY: policy})
        (result,) = contest.contest(entrants, arena, [[future.result() for future in bounds]])
        asked = {"fps": demand.fps, "deadline_ms": demand.deadline_s * 1e3}
        columns = {key: means(result.rows, entrants, key) for key in ("utility", "miss_rate")}
        cells.append({**asked, "bound": float(np.mean(list(result.bounds.values()))), **columns})
        print(f"{demand.fps:g} fps {demand.deadline_s * 1e3:g} ms done", file=sys.stderr)
    return {"cells": cells}


def grid_table(found: Mapping[str, Any]) -> Table:
    """One line per demand."""
    table = Table(title="one PPO policy for all demands, rules tuned for each; simulated")
    for heading in ("fps", "deadline ms", "best static", "clairvoyant", "headroom", *IN_MAP):
        table.add_column(heading, justify="right")
    for cell in found["cells"]:
        bound, static = cell["bound"], cell["utility"][STATIC]
        shares = [share(cell["utility"][name], static, bound) for name in IN_MAP]
        utilities = (f"{static:.4f}", f"{bound:.4f}", f"{bound - static:.4f}")
        table.add_row(f"{cell['fps']:g}", f"{cell['deadline_ms']:g}", *utilities, *shares)
    return table


def share(utility: float, static: float, bound: float) -> str:
    """Percent of the headroom that a controller captures; a dash where there is none worth a number."""
    return f"{100 * captured(utility, static, bound):.0f} %" if bound - static >= NOTHING else "-"


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("seeds", "map"))
    parser.add_argument("--train", required=True, help="traces to train and tune on")
    parser.add_argument("--test", required=True, help="traces to judge by")
    parser.add_argument("--profile", default="efficientnet_lite0")
    parser.add_argument("--tiers", type=int, choices=(2, 3), default=2, help="3: a middle server and a second hop")
    parser.add_argument("--fps", type=float, default=Demand().fps, help="seeds: frames a second (default: %(default)g)")
    parser.add_argument(
        "--deadline-ms", type=float, default=1e3 * Demand().deadline_s, help="seeds: deadline (default: %(default)g)"
    )
    parser.add_argument("--seconds", type=float, default=np.inf, help="seeds: longest part of a trace (default: all)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1_000_000, help="PPO steps of a seed (default: %(default)s)")
    parser.add_argument("--map-steps", type=int, default=1_000_000, help="PPO steps of the map's policy")
    parser.add_argument(
        "--trace-spread", type=float, default=TrainingOptions.trace_spread, help="spread of bandwidth in training"
    )
    parser.add_argument("--out", type=Path, default=Path("out/controllers"), help="folder for the bundles")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of the two."""
    options = arguments().parse_args(argv)
    contest.stop_on_sigterm()
    begun = time.perf_counter()
    with contest.workers() as pool:
        found = seeds(options, pool) if options.what == "seeds" else grid(options, pool)
    Console(width=150).print(seeds_table(found) if options.what == "seeds" else grid_table(found))
    print(f"{time.perf_counter() - begun:.0f} s")
    write_json(options.json, found)


if __name__ == "__main__":
    main()
