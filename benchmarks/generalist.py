"""Train the policy that ships: one for all demands, budgets, devices and links.

    python benchmarks/generalist.py --trace TRAIN ... --out out/imitated --rollouts 0
    python benchmarks/generalist.py --trace TRAIN ... --out out/first --start out/imitated
    python benchmarks/generalist.py --trace TRAIN ... --out out/dear2 --start out/first --joule-price 2 --seed 1
    python benchmarks/generalist.py --trace TRAIN ... --out out/dear3 --start out/first --joule-price 3 --seed 2
    python benchmarks/generalist.py --trace TRAIN ... --out OUT --start out/dear2 out/dear3 --rollouts 0

Episodes draw a demand, prices of energy and data, a device and servers of their own speed, and a link about one of the
traces. Every TRAIN is drawn equally often; the traces of a folder follow one another. A quarter of the episodes has a
budget of data, with the rare probes that it pays for, a quarter one of energy, a quarter both and a quarter none. A
tenth of the budgets has a price of 0. Devices and CNNs (PROFILE:DEVICE) have equal shares, and the first names the
bundle. The folder is a bundle as `tidesplit train` writes it, without Stable-Baselines3's own file.
There is no PPO: it made this policy worse at every check. Everything is simulated.
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

from tidesplit.agents import bundle as bundles
from tidesplit.agents.judging import contest, ladder
from tidesplit.agents.learning import purpose, training
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.agents.learning.imitation import ImitationConfig
from tidesplit.agents.learning.monitor import Learner
from tidesplit.agents.learning.policy import PointPolicy
from tidesplit.agents.learning.rollouts import RolloutConfig
from tidesplit.envs.budget.prices import PriceDraw, Prices
from tidesplit.envs.simulation.scenario import DEVICE, SERVER, scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.model import generate
from tidesplit.envs.traces.presets import PRESETS
from tidesplit.envs.traces.trace import Trace, concatenate, load_traces
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points import profile as profiles
from tidesplit.train import ticker

PACES = tuple(itertools.product((5.0, 10.0, 15.0, 20.0, 30.0), (75.0, 100.0, 150.0, 250.0)))
"""Frames a second, and deadlines in milliseconds."""
BUDGETS = (Demand(max_gb_month=10.0), Demand(max_watts=5.0), Demand(max_watts=5.0, max_gb_month=10.0), Demand())
"""They say which prices are drawn and which probes are sent. The policy goes by prices, and sees no budget."""
BYTE_PRICE, PRICE_SPREAD = 1.5e-4, 10.0
"""Of prices of a byte the middle, and of all prices the largest factor from it. At 10 GB a month on a Pi 4 a byte
settles at 3e-4. At 4.8 W a joule settles at about 1, and at 2.15 W on a Zero 2 W at 5."""
TABLES = (
    ("efficientnet_lite0", DEVICE), ("efficientnet_lite0", "raspberry-pi-zero-2w"),
    ("efficientnet_lite0", "raspberry-pi-5"), ("cifar_resnet", DEVICE),
)  # fmt: skip
TABLE_SPREAD, TRACE_SPREAD = 0.7, 1.5
GENERATED_S, GENERATED_SEED = 3600.0, 1_000_000


def families(options: argparse.Namespace) -> list[list[Trace]]:
    """The traces of each of --trace, then those of --generated."""
    rng = np.random.default_rng(GENERATED_SEED)
    generated = [generate(PRESETS[name], GENERATED_S, rng) for name in options.generated]
    return [load_traces(spec) for spec in options.trace] + [[trace] for trace in generated]


def scenario(profile: str, device: str, budgets: Demand, of: Sequence[list[Trace]], usual: Prices) -> Scenario:
    """Everything that the episodes of a device and a CNN are drawn from, with prices about the ``usual`` ones."""
    demands = [replace(budgets, fps=fps, deadline_s=ms / 1e3) for fps, ms in PACES]
    traces = [concatenate(traces[0].name, traces) for traces in of]
    asked = scenario_from(trace=traces, profile=profile, device=device, demands=demands)
    draw = PriceDraw(usual, PRICE_SPREAD)
    return replace(asked, table_spread=TABLE_SPREAD, trace_spread=TRACE_SPREAD, price_draw=draw)


def trained(
    options: argparse.Namespace, scenarios: Sequence[Scenario], ticks: training.Progress
) -> tuple[PointPolicy, dict[str, float]]:
    """The policy, and its worth after each phase."""
    recipe = training.Recipe(
        imitation=ImitationConfig(rounds=options.rounds, labels_per_round=options.labels),
        rollouts=RolloutConfig(rounds=options.rollouts, labels_per_round=options.rollout_labels),
        ppo=training.PpoConfig(hidden=options.hidden),
        seed=options.seed,
    )
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    model = training.new_model(max(scenarios, key=lambda one: one.table.size), recipe)
    policy = training.policy_of(model)
    checked_on, tuning = [replace(one, episode_s=12.0) for one in scenarios], ladder.Tuning(lanes=32)

    def worth_of(policy: PointPolicy) -> float:
        return float(np.mean([ladder.mean_utility(Learner(policy), one, tuning) for one in checked_on]))

    keeper = training.Keeper(worth_of)
    if options.start is None:
        training.learn_by_imitation(model, scenarios, recipe, ticks)
    else:
        training.start_from(policy, *options.start)
    worth = {"start": keeper.check(policy)}
    if options.rollouts:
        training.learn_by_rollouts(model, scenarios, recipe, ticks)
        worth["rollouts"] = keeper.check(policy)
    keeper.restore(policy)
    return policy, worth


def main(argv: Sequence[str] | None = None) -> None:
    """Train, write the bundle, print the worth of the policy after each phase."""
    options = arguments().parse_args(argv)
    contest.stop_on_sigterm()
    begun = time.perf_counter()
    of, usual = families(options), Prices.of(options.joule_price, BYTE_PRICE)
    kinds = itertools.product(options.table, BUDGETS)
    scenarios = [scenario(profile, device, budgets, of, usual) for (profile, device), budgets in kinds]
    with Progress() as progress:
        policy, worth = trained(options, scenarios, ticker(progress))
    profile, device = options.table[0]
    paths = {name: " ".join(getattr(options, name)) for name in ("trace", "generated")}
    paths["table"] = " ".join(map(":".join, options.table))
    plain = {key: value for key, value in vars(options).items() if key != "out"} | paths
    plain |= {"start": [str(folder) for folder in options.start or ()], "priced": ["joule", "byte"]}
    stretches = [*itertools.chain.from_iterable(map(purpose.stretches, of))]
    for folder in options.start or ():
        begun_with = bundles.load(folder).manifest["config"]["trained_on"]
        stretches += [one for one in begun_with if one not in stretches]
    write_bundle(
        options.out,
        policy,
        profile=profiles.load(profile),
        table=scenarios[0].table,
        machines=(device, SERVER),
        demand=Demand(),
        first_prices=(options.joule_price, BYTE_PRICE),
        config=plain | {"trained_on": stretches},
    )
    print(
        json.dumps({"seconds": round(time.perf_counter() - begun), "worth": {k: round(v, 4) for k, v in worth.items()}})
    )


def table(text: str) -> tuple[str, str]:
    """PROFILE:DEVICE, in two parts."""
    profile, colon, device = text.rpartition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} received, PROFILE:DEVICE expected")
    return profile, device


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", nargs="+", required=True, help="training traces: files, folders, bundled names")
    parser.add_argument("--generated", nargs="*", default=["lte", "umts"], choices=PRESETS, help="(default: lte umts)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--table",
        nargs="+",
        type=table,
        default=TABLES,
        metavar="PROFILE:DEVICE",
        help="(default: three boards, two CNNs)",
    )
    parser.add_argument("--rounds", type=int, default=6, help="rounds of imitation (default: %(default)s)")
    parser.add_argument("--labels", type=int, default=8000, help="labels of a round (default: %(default)s)")
    parser.add_argument("--rollouts", type=int, default=6, help="rounds of rollouts (default: %(default)s)")
    parser.add_argument(
        "--rollout-labels", type=int, default=4000, help="labels of such a round (default: %(default)s)"
    )
    parser.add_argument(
        "--joule-price", type=float, default=1.0, help="middle of the prices of a joule (default: %(default)g)"
    )
    parser.add_argument("--hidden", type=int, default=48, help="width of the policy's layers (default: %(default)s)")
    parser.add_argument(
        "--start", type=Path, nargs="+", help="bundle whose policy takes the place of imitation; of several their mean"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
