"""Accuracy at equal budgets over ten minutes, of policies and rules, on uplinks that nobody was trained or tuned on.

    python benchmarks/budgets.py --bundle OUT [OUT ...] --tune-on TRAIN --family NAME=TRACES [...] --json FILE
    python benchmarks/budgets.py --bundle OUT --tune-on TRAIN --family NAME=TRACES --watts 4.4 4.8 5.4 inf

The bundles differ in their training seed. Where a family is also trained on, its last part is judged, as tidesplit
train keeps it back. The traces of a family are put one after the other, and each course of events
begins at another moment of them. Every controller begins with the prices to which it settled on the training traces.
--watts and --gb-month play other budgets than those of the training, --motion other cameras than the profile's.
--other plays one more policy, at the demand and among the operating points of the first bundle. --rules names the
rules; the MPC and foresight take most of the time.
Under a budget of energy policies and the threshold rule play a second time, with radios that never rest.
Everything is simulated, and watts are estimated.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tidesplit.agents import bundle as bundles
from tidesplit.agents.judging import budgeted, contest, ladder, tuning_cache
from tidesplit.agents.judging.budgeted import FORESIGHT, MIXTURE, THRESHOLD
from tidesplit.agents.judging.evaluation import Entrant, controller_of, interval
from tidesplit.agents.judging.ladder import POLICY, TRUE_BANDWIDTH, Tuning
from tidesplit.agents.learning.options import TrainingOptions
from tidesplit.benchmarks.headroom import family
from tidesplit.benchmarks.results import write_json
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.held_out import held_out
from tidesplit.envs.traces.trace import Trace, concatenate, load_traces
from tidesplit.envs.world.vocabulary import MISS, gb_per_month

RULES = ("best static point", MIXTURE, THRESHOLD, "look-up, tuned", "MPC, tuned", TRUE_BANDWIDTH, FORESIGHT)
OTHER = "policy that was not trained for this"
AWAKE = "{}, radio never rests"
"""Policies and the threshold rule once more under a budget of energy, to show what the rests save and cost."""
TUNING = Tuning()
HOLDOUT, HOLDOUT_S = TrainingOptions.holdout, TrainingOptions.holdout_s


def rows_of(entrant: Entrant, judged: Scenario, courses: int) -> list[dict[str, Any]]:
    """Of each trace the means over some courses of events, and those of each course. Runs in a process of its own."""
    lanes = [(trace, course) for trace in range(len(judged.traces)) for course in range(courses)]
    rngs = [np.random.default_rng([course, 17]) for _, course in lanes]
    simulation = Simulation(judged, rngs, trace_of=np.array([trace for trace, _ in lanes]))
    controller = controller_of(entrant, simulation)
    frames, demand = int(simulation.frames.max()), judged.demands[0]
    total = np.zeros((4, len(lanes)))
    for _ in range(frames):
        outcome, _ = simulation.step(controller.predict(simulation.observation()))
        joules = outcome.device_j + outcome.radio_j
        total += np.stack([outcome.utility, joules, outcome.hops[0].sent_bytes, outcome.answered_by == MISS])
    return [
        {
            "utility": float(utility.mean()),
            "by_course": utility.tolist(),
            "watts": (joules * demand.fps).tolist(),
            "gb_per_month": [gb_per_month(float(b), demand.period_s) for b in sent],
            "miss_rate": float(missed.mean()),
        }
        for utility, joules, sent, missed in (total / frames).reshape(4, -1, courses).transpose(1, 0, 2)
    ]


def entrants_of(
    options: argparse.Namespace, tuned_in: Scenario, trained: Sequence[bundles.Bundle]
) -> dict[str, Entrant]:
    """Rules and policies, each beginning with its own prices. Runs in a process of its own."""
    demand = tuned_in.demands[0]
    found: dict[str, Entrant] = dict(tuning_cache.cached_rules(tuned_in, TUNING, options.rules))
    policies = {f"{POLICY} {seed}" if len(trained) > 1 else POLICY: one.policy for seed, one in enumerate(trained)}
    if options.other:
        policies[OTHER] = bundles.load(options.other).policy
    if not demand.budgeted:
        return found | policies
    prices = ladder.mixture_prices(tuned_in, TUNING)
    for name, policy in policies.items():
        found[name] = budgeted.settled(policy, tuned_in, prices, ladder.SETTLING_LANES, TUNING.seed)
    may = {name: one for name, one in found.items() if isinstance(one, budgeted.Budgeted) and one.rests}
    both = [name for name in (THRESHOLD, *policies) if name in may]
    return found | {AWAKE.format(name): replace(may[name], rests=False) for name in both}


def parted(tune_on: Sequence[str], families: Sequence[tuple[str, str]]) -> tuple[list[Trace], dict[str, Trace]]:
    """Traces to tune on, and one to judge by for each family, without time that was trained on."""
    judged = {spec: load_traces(spec) for _, spec in families}
    seen: list[Trace] = []
    for spec in tune_on:
        first, last = held_out(load_traces(spec), HOLDOUT, HOLDOUT_S) if spec in judged else (load_traces(spec), [])
        judged |= {spec: last} if last else {}
        seen += first
    return seen, {name: concatenate(name, judged[spec]) for name, spec in families}


def told(watts: float | None, gb: float | None) -> str:
    """A demand's budgets in words."""
    budgets = [f"{most:g} {unit}" for most, unit in ((watts, "W"), (gb, "GB")) if most is not None]
    return ", ".join(budgets) or "none"


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each family, budget and controller; the policies of several seeds as one, with an interval."""
    table = Table(title="Accuracy at equal budgets; simulated")
    for heading in ("links", "motion", "budget", "controller", "utility", "95 %", "watts", "GB", "miss %"):
        table.add_column(heading)
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        name = re.sub(rf"^{POLICY} \d+", POLICY, row["controller"])
        budget = row["demand"]["max_watts"], row["demand"]["max_gb_month"]
        groups.setdefault((row["family"], row["motion"], budget, name), []).append(row)
    rng = np.random.default_rng(0)
    for (links, motion, budget, name), of in groups.items():
        utilities = np.concatenate([row["by_course"] for row in of])
        low, high = interval(utilities, rng)
        watts, gb = (np.concatenate([row[key] for row in of]) for key in ("watts", "gb_per_month"))
        table.add_row(
            links, f"{motion:g}", told(*budget),
            f"{name} ({len(of)} seeds)" if len(of) > 1 else name,
            f"{utilities.mean():.4f}", f"{low:.3f} to {high:.3f}", f"{watts.mean():.2f} ({watts.max():.2f})",
            f"{gb.mean():.1f}", f"{100 * np.mean([row['miss_rate'] for row in of]):.1f}",
        )  # fmt: skip
    return table


def finite(budget: float | None) -> float | None:
    """A budget of infinity is none."""
    return None if budget == np.inf else budget


def played(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each family, budget and controller."""
    trained = [bundles.load(out) for out in options.bundle]
    tune_on, families = parted(options.tune_on, options.family)
    rows: list[dict[str, Any]] = []
    with contest.workers() as pool:
        tasks = []
        own = trained[0].demand
        for watts, gb in product(options.watts or [own.max_watts], options.gb_month or [own.max_gb_month]):
            demand = replace(own, max_watts=finite(watts), max_gb_month=finite(gb))
            world = replace(trained[0].world, probe_after_s=options.probe_after_s).under(demand)
            tuned_in = Scenario(traces=tuple(tune_on), demands=(demand,), table=trained[0].table, world=world)
            tasks.append((demand, tuned_in, pool.submit(entrants_of, options, tuned_in, trained)))
        for demand, tuned_in, future in tasks:
            waiting = []
            for name, entrant in future.result().items():
                for motion in options.motion:
                    world = replace(tuned_in.world, motion=motion)
                    traces = tuple(families.values())
                    judged = replace(tuned_in, traces=traces, world=world, episode_s=60.0 * options.minutes)
                    facts = {"motion": motion, "demand": asdict(demand), "controller": name}
                    waiting.append((facts, pool.submit(rows_of, entrant, judged, options.courses)))
            for facts, made in waiting:
                rows += [{"family": links, **facts, **row} for links, row in zip(families, made.result(), strict=True)]
                budget = told(demand.max_watts, demand.max_gb_month)
                print(f"{facts['motion']:g} x, {budget}, {facts['controller']}: played", file=sys.stderr)
    return rows


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, nargs="+", required=True, help="folders that tidesplit train wrote")
    parser.add_argument("--tune-on", nargs="+", required=True, help="training traces: files, folders, bundled names")
    parser.add_argument("--family", nargs="+", type=family, required=True, help="test traces, each NAME=TRACES")
    parser.add_argument("--other", type=Path, help="folder of a policy that was trained for something else")
    parser.add_argument("--watts", nargs="+", type=float, help="budgets; inf: none (default: that of the training)")
    parser.add_argument(
        "--gb-month", nargs="+", type=float, help="budgets of data; inf: none (default: that of the training)"
    )
    parser.add_argument(
        "--motion",
        nargs="+",
        type=float,
        default=[1.0],
        help="of the scene: bytes of streams (default: the profile's, 1)",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of each course (default: %(default)g)")
    parser.add_argument("--courses", type=int, default=4, help="courses of events (default: %(default)s)")
    parser.add_argument("--rules", nargs="*", choices=RULES, default=list(RULES), metavar="RULE", help="(default: all)")
    parser.add_argument("--probe-after-s", type=float, default=0.5, help="silence before a probe, without a budget")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Play everything, print the table, write JSON."""
    options = arguments().parse_args(argv)
    contest.stop_on_sigterm()
    begun = time.perf_counter()
    rows = played(options)
    recipe = {key: getattr(options, key) for key in ("minutes", "courses", "tune_on", "family")}
    played_by = {"bundle": [str(out) for out in options.bundle], "other": options.other and str(options.other)}
    write_json(options.json, {"kind": "simulated", **played_by, **recipe, "rows": rows})
    Console(width=150).print(table_of(rows))
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
