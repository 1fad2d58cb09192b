"""Train the policy that ships: one for all demands, budgets, devices and links.

    python benchmarks/generalist.py --trace TRAIN [TRAIN ...] --out data/policies/generalist

Episodes draw a demand, prices of energy and data, a device and servers of their own speed, and a link about one of the
traces. A tenth of them has free energy, a tenth free data. The folder is a bundle as `tidesplit train` writes it,
without Stable-Baselines3's own file. Everything is simulated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from tidesplit.agents.judging import contest, ladder
from tidesplit.agents.learning import purpose, training
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.agents.learning.imitation import ImitationConfig
from tidesplit.agents.learning.monitor import Learner
from tidesplit.agents.learning.policy import PointPolicy
from tidesplit.envs.budget.prices import PriceDraw, Prices
from tidesplit.envs.simulation.scenario import DEVICE, SERVER, scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import load_traces
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points import profile as profiles
from tidesplit.train import ticker

PACES = tuple(itertools.product((5.0, 10.0, 15.0, 20.0, 30.0), (75.0, 100.0, 150.0, 250.0)))
"""Frames a second, and deadlines in milliseconds."""
SOME_W, SOME_GB = 5.0, 30.0  # the demands have both budgets, so that both prices are drawn
PRICES = PriceDraw(Prices.of(1.5, 3e-5), spread=10.0)
TABLE_SPREAD, TRACE_SPREAD = 0.7, 1.5
CHECKS = 4


def scenario(options: argparse.Namespace) -> Scenario:
    """Everything that episodes are drawn from."""
    demands = [Demand(fps=fps, deadline_s=ms / 1e3, max_watts=SOME_W, max_gb_month=SOME_GB) for fps, ms in PACES]
    traces = [trace for spec in options.trace for trace in load_traces(spec)]
    asked = scenario_from(trace=traces, profile=options.profile, device=options.device, demands=demands)
    return replace(asked, table_spread=TABLE_SPREAD, trace_spread=TRACE_SPREAD, price_draw=PRICES)


def trained(
    options: argparse.Namespace, train_on: Scenario, ticks: training.Progress
) -> tuple[PointPolicy, list[float]]:
    """The policy, and what it was worth at each check."""
    recipe = training.Recipe(
        imitation=ImitationConfig(rounds=options.rounds, labels_per_round=options.labels),
        ppo=training.PpoConfig(steps=options.steps, gamma=0.99),
        seed=options.seed,
    )
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    model = training.new_model(train_on, recipe)
    policy = training.policy_of(model)
    training.learn_by_imitation(model, train_on, recipe, ticks)
    checked_on, tuning = replace(train_on, episode_s=12.0), ladder.Tuning(lanes=128)
    keeper = training.Keeper(lambda policy: ladder.mean_utility(Learner(policy), checked_on, tuning))
    keeper.check(policy)
    for part in range(1, CHECKS + 1):
        until = replace(recipe, ppo=replace(recipe.ppo, steps=options.steps * part // CHECKS))
        training.learn_by_ppo(model, until, None, ticks)
        keeper.check(policy)
    keeper.restore(policy)
    return policy, keeper.checks


def main(argv: Sequence[str] | None = None) -> None:
    """Train, write the bundle, print what the policy was worth after imitation and in the course of PPO."""
    options = arguments().parse_args(argv)
    contest.stop_on_sigterm()
    begun = time.perf_counter()
    train_on = scenario(options)
    with Progress() as progress:
        policy, checks = trained(options, train_on, ticker(progress))
    profile = profiles.load(options.profile)
    serves = purpose.purpose(profile, (options.device, SERVER), train_on)
    plain = {key: value for key, value in vars(options).items() if key != "out"} | {"trace": " ".join(options.trace)}
    write_bundle(
        options.out,
        policy,
        profile=profile,
        table=train_on.table,
        machines=(options.device, SERVER),
        demand=Demand(),
        first_prices=(float(PRICES.usual.joule[0]), float(PRICES.usual.byte[0])),
        config=plain | {"trained_on": [stretch for link in serves["trace"] for stretch in link]},
    )
    print(json.dumps({"seconds": round(time.perf_counter() - begun), "worth": np.round(checks, 4).tolist()}))


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", nargs="+", required=True, help="training traces: files, folders, bundled names")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--profile", default="efficientnet_lite0")
    parser.add_argument("--device", default=DEVICE, help="machine about which devices are drawn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=8, help="rounds of imitation (default: %(default)s)")
    parser.add_argument("--labels", type=int, default=6000, help="labels of a round (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=800_000, help="frames of PPO (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
