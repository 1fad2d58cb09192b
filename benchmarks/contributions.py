"""What each phase of training adds at equal budgets: imitation, rollouts and PPO, beside the rules.

    python benchmarks/contributions.py --trace lte.csv --seeds 0 1 --json benchmarks/contributions.json

Policies are trained at the demand of train.py on the trace's first part, the last part is judged over ten minutes. They
begin with the policy that ships, or with imitation. PPO follows once without and once with rollouts before it. Every
controller begins with the prices to which it settled on the training part. The second table is of starts: utility less
cost of the first ten seconds, at fixed prices, begun at random moments.

Everything is simulated, and watts are estimated.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tidesplit.agents.judging import budgeted, contest, ladder, tuning_cache
from tidesplit.agents.judging.budgeted import MIXTURE, THRESHOLD
from tidesplit.agents.judging.evaluation import Entrant
from tidesplit.agents.learning import training
from tidesplit.agents.learning.monitor import Learner
from tidesplit.agents.learning.options import DemandOptions, TrainingOptions
from tidesplit.agents.learning.policy import PointPolicy
from tidesplit.benchmarks.budgets import TUNING, parted, rows_of, table_of
from tidesplit.benchmarks.results import write_json
from tidesplit.data.files import GENERALIST
from tidesplit.envs.budget.prices import PriceDraw, Prices
from tidesplit.envs.simulation.scenario import DEVICE, scenario_from
from tidesplit.envs.simulation.simulation import Scenario

RULES = ("best static point", MIXTURE, THRESHOLD)
START_S, STARTS = 10.0, 96
SHIPPED, IMITATION = "the policy that ships", "imitation"


def policies(begin: str, train_on: Scenario, recipe: training.Recipe) -> dict[str, PointPolicy]:
    """The policy after each phase of a training that begins so, and with PPO before and after rollouts."""
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    model = training.new_model(train_on, recipe, GENERALIST if begin == SHIPPED else None)
    learned: dict[str, PointPolicy] = {}
    for name in (begin, f"{begin} + rollouts"):
        if name != SHIPPED:
            learn_by = training.learn_by_imitation if name == IMITATION else training.learn_by_rollouts
            learn_by(model, [train_on], recipe, lambda *_: None)
        further = training.new_model(train_on, recipe)
        for copy in (further, kept := training.new_model(train_on, recipe)):
            copy.policy.load_state_dict(model.policy.state_dict())
        training.learn_by_ppo(further, recipe, None, lambda *_: None)
        learned |= {name: training.policy_of(kept), f"{name} + PPO": training.policy_of(further)}
    return learned


def learned_rows(
    begin: str, tuned_in: Scenario, judged: Scenario, seed: int, steps: int, courses: int
) -> list[dict[str, Any]]:
    """Rows of the policies of one training seed. Runs in a process of its own."""
    prices = ladder.mixture_prices(tuned_in, TUNING)
    train_on = replace(tuned_in, trace_spread=TrainingOptions.trace_spread, price_draw=PriceDraw(prices))
    recipe = training.Recipe(ppo=training.PpoConfig(steps=steps, hidden=training.hidden_of(GENERALIST)), seed=seed)
    rows = []
    for name, policy in policies(begin, train_on, recipe).items():
        entrant = budgeted.settled(Learner(policy), tuned_in, prices, ladder.SETTLING_LANES, TUNING.seed)
        rows.append({**facts_of(name, entrant, judged, prices, courses), "seed": seed})
    return rows


def rule_rows(tuned_in: Scenario, judged: Scenario, courses: int) -> list[dict[str, Any]]:
    """Rows of the rules. Runs in a process of its own."""
    rules = tuning_cache.cached_rules(tuned_in, TUNING, RULES)
    prices = ladder.mixture_prices(tuned_in, TUNING)
    return [facts_of(name, rule, judged, prices, courses) for name, rule in rules.items()]


def facts_of(name: str, entrant: Entrant, judged: Scenario, prices: Prices, courses: int) -> dict[str, Any]:
    """The row of one controller: its means over the courses, and its worth in the first seconds."""
    links, motion = judged.traces[0].name, judged.world.motion
    facts = {"family": links, "motion": motion, "demand": asdict(judged.demands[0]), "controller": name}
    starts = budgeted.at_prices(replace(judged, episode_s=START_S), prices)
    return {
        **facts,
        **rows_of(entrant, judged, courses)[0],
        "starts": ladder.mean_utility(entrant, starts, ladder.Tuning(lanes=STARTS)),
    }


def starts_of(rows: Sequence[dict[str, Any]]) -> Table:
    """A line for each controller: the mean over training seeds of its worth in the first seconds."""
    table = Table("controller", "utility less cost", title=f"First {START_S:g} seconds, {STARTS} starts; simulated")
    for name in dict.fromkeys(row["controller"] for row in rows):
        table.add_row(name, f"{np.mean([row['starts'] for row in rows if row['controller'] == name]):.4f}")
    return table


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", default="lte.csv", help="a file, a folder, or a bundled name (default: %(default)s)")
    parser.add_argument("--watts", type=float, help="budget of energy in place of the usual one of data")
    parser.add_argument("--device", default=DEVICE, help="machine of the profile (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the trainings (default: 0 1)")
    parser.add_argument("--steps", type=int, default=training.PpoConfig.steps, help="frames of PPO")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each course (default: %(default)g)")
    parser.add_argument("--courses", type=int, default=4, help="courses of events (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train, play, print the table, write JSON."""
    options = arguments().parse_args(argv)
    contest.stop_on_sigterm()
    begun = time.perf_counter()
    seen, families = parted([options.trace], [(options.trace, options.trace)])
    demand = DemandOptions(max_watts=options.watts).demand
    tuned_in = scenario_from(trace=seen, device=options.device, demands=[demand])
    judged = replace(tuned_in, traces=tuple(families.values()), episode_s=60.0 * options.minutes)
    with contest.workers() as pool:
        ruled = pool.submit(rule_rows, tuned_in, judged, options.courses)
        tasks = [
            pool.submit(learned_rows, begin, tuned_in, judged, seed, options.steps, options.courses)
            for seed, begin in itertools.product(options.seeds, (SHIPPED, IMITATION))
        ]
        rows = [*ruled.result(), *itertools.chain.from_iterable(task.result() for task in tasks)]
    recipe = {key: getattr(options, key) for key in ("trace", "seeds", "steps", "minutes", "courses")}
    write_json(options.json, {"kind": "simulated", **recipe, "rows": rows})
    Console(width=150).print(table_of(rows), starts_of(rows))
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
