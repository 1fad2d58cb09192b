"""Train a policy for a profile, a demand and an uplink: tidesplit train --trace lte.csv

It writes into OUT: policy.onnx and bundle.json (for the device), profile.json, results.json (the table printed at the
end), decisions.png, sb3_policy.zip (for more training with Stable-Baselines3), checkpoint.safetensors and training.json
(for --resume), and a TensorBoard log: tensorboard --logdir OUT/tensorboard.

The table at the end compares the policy with every rule that a device can run, under budgets also with one who sees
five frames ahead, on time that no training saw: the last part of every trace, or some whole traces where there are
many. The rules were tuned on the training part. All of it is simulated.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: the command says which extra is missing
    import sys

    from tidesplit import __main__ as program

    sys.exit(program.main(["train", *sys.argv[1:]]))

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress, TaskID
from sb3_contrib import MaskablePPO
from stable_baselines3.common.logger import HParam, Logger, TensorBoardOutputFormat

from tidesplit.agents import bundle
from tidesplit.agents.judging import budgeted, contest, figures, ladder, tuning_cache
from tidesplit.agents.judging.evaluation import Entrant, mean_row
from tidesplit.agents.judging.ladder import POLICY
from tidesplit.agents.judging.own_controllers import ControllerError, OwnController, own_controllers
from tidesplit.agents.learning import purpose, training
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.agents.learning.monitor import CHECK_SEED, Learner, Monitor
from tidesplit.agents.learning.options import USUAL_GB, Config, DemandOptions, TrainingOptions
from tidesplit.agents.rules.controllers import Static
from tidesplit.agents.rules.family import Family
from tidesplit.data.files import GENERALIST
from tidesplit.data.named import NamedError
from tidesplit.envs.budget.prices import PriceDraw, Prices
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.simulation.worlds import with_utility, world_of
from tidesplit.envs.traces.held_out import held_out, shortened
from tidesplit.envs.traces.summary import doubts, summed_up
from tidesplit.envs.traces.trace import Trace, TraceError, load_traces
from tidesplit.envs.world.physics import WorldError
from tidesplit.envs.world.vocabulary import DemandError, gb_per_month
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import Profile, ProfileError
from tidesplit.profiling.points.table import PointTable
from tidesplit.profiling.points.tiers import estimated
from tidesplit.runtime.cnn import MANIFEST as CNN_MANIFEST
from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.export import SUBFOLDER, copy_for_bundle

CHECKPOINT = "checkpoint.safetensors"
FINISHED = {bundle.MANIFEST: "a trained policy", CHECKPOINT: "a checkpoint"}  # never written over
PRICING = ladder.Tuning(lanes=8)  # for the prices of the training, and for those at which the policy begins
CHECKING = ladder.Tuning(lanes=32)  # episodes on which the best policy of a training is chosen
COMPARED = tuple(name for name in ladder.EVERY if name != ladder.TRUE_BANDWIDTH)
"""Rules in the table. Tuning an MPC that no device can run would take an eighth of the time; `evaluate` has it."""
SIMPLE = ("best static point", budgeted.MIXTURE, budgeted.THRESHOLD)
"""Rules that are soon tuned. A policy that is well behind them on the check episodes learns the best of them."""
OTHERS = tuple(name for name in COMPARED if name not in SIMPLE)
COURSES = 4  # of events in the table: on one course a minute says little
CHECK_S = 12.0  # of each trace that the training is watched on
Found = TypeVar("Found")
THRIFTY = 1.0
"""Quantile of the settled prices at which the policy begins under a budget of data: the dearest, rather too thrifty
than over it. With it twelve minutes of `lte.csv` that were trained on kept within 2 %. With 0.9 one sent 5 % too much.
Under a budget of energy alone it begins at the median, as rules do: the dearest left a tenth of the watts unspent."""


class UsageError(ValueError):
    """Options that do not fit together, in one sentence."""


MISTAKES = (
    TraceError, ProfileError, DemandError, UsageError, bundle.BundleError, purpose.PurposeError,
    NamedError, ControllerError, WorldError, ladder.BudgetError,
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run. Returns 0 when done, 2 for a user's mistake, 130 when stopped."""
    config = parse(argv)
    return reported("tidesplit train", lambda: run(config, Console()))


def parse(argv: list[str] | None) -> Config:
    """Make the configuration from the command line."""
    plainly = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(Config, prog="tidesplit train", description=__doc__, args=argv, config=plainly)


def reported(program: str, work: Callable[[], None]) -> int:
    """Do the work. Returns the exit status; a mistake and a stop are one sentence on stderr."""
    contest.stop_on_sigterm()
    try:
        work()
    except MISTAKES as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"{program}: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130
    return 0


def run(config: Config, console: Console) -> None:
    """Train, compare, write the bundle."""
    begun = time.perf_counter()
    check(config.training)
    world, kept = config.world, (config.training.holdout, config.training.holdout_s)
    probe_after_s = world_of(world.world).probe_after_s  # without a budget
    profile = profiles.load(world.profile) if world.video else profiles.load(world.profile).without_video()
    profile = profile.without_pictures() if world.privacy else profile
    first, second = load_traces(world.trace), load_traces(world.second_trace) if world.tiers == 3 else []
    (seen, unseen), (further, kept_back) = held_out(first, *kept), held_out(second, *kept)
    train_on = scenario(config, profile, seen, further)
    if (gb := within_reach(config.demand, train_on)) is not None:
        config = replace(config, demand=replace(config.demand, max_gb_month=gb))
        train_on = scenario(config, profile, seen, further)
        console.print(
            f"Every point needs more than the usual {USUAL_GB:g} GB a month here: the budget is {gb:g} GB. "
            "--max-gb-month chooses another.",
            style="yellow",
        )
    judge_on = scenario(config, profile, unseen or [shortened(t, kept[1]) for t in seen], kept_back or further)
    own = own_controllers(config.output.controller, train_on, (*ladder.EVERY, POLICY))
    out, effort = folder(config), config.training.effort
    serves = purpose.purpose(profile, world.machines, train_on, config.demand.utility, effort)
    start = None if config.output.resume else start_of(config.training, train_on, profile.name)
    began = remember(config, serves, start, out, console)
    tell_traces(console, first, second)
    console.print(
        f"{len(train_on.table.ids)} operating points of {profile.name} on {', '.join(world.machines)}, "
        f"{len(seen)} trace{'s' * (len(seen) > 1)}; everything below is [bold]simulated[/bold]. Writing {out}"
    )
    verb = "started" if config.output.resume else "starts"
    console.print(f"The training {verb} from {began['name']}.", markup=False, highlight=False)
    if any(known_s(trace, began, seen) > 0.0 for trace in first):
        console.print(
            "That policy was trained on some of the time in the table. With --start scratch nothing is.", style="yellow"
        )
    if guessed := estimated(profile, train_on.table.ids):
        console.print(
            f"The accuracy of {len(guessed)} points with two cuts is estimated: tidesplit profile chain measures them.",
            style="yellow",
        )
    if not unseen:
        console.print("The trace is too short to keep a part back: the table is of training time.", style="yellow")
    torch.set_num_threads(1)  # the other core tunes and plays the rules meanwhile
    torch.manual_seed(config.training.seed)
    with (
        ThreadPoolExecutor(1) as waiting,
        resumable(out),
        contest.workers(2) as pool,
        Progress(console=console) as bars,
    ):
        ticks = ticker(bars)
        watched = check_episodes(train_on)
        checking = contest.submit_bounds(pool, watched, CHECK_SEED)
        seeds = range(config.training.seed, config.training.seed + COURSES)
        simple = pool.submit(tuning_cache.cached_rules, train_on, ladder.Tuning(), SIMPLE)
        others = pool.submit(tuning_cache.cached_rules, train_on, ladder.Tuning(), OTHERS)
        playing = waiting.submit(rules_played, [simple, others], own, judge_on, seeds, pool, ticks)
        bounding = [contest.submit_bounds(pool, judge_on, seed) for seed in seeds]
        logger = Logger(str(out), [TensorBoardOutputFormat(str(out / "tensorboard"))])
        prices = first_prices(train_on)
        model = learn(config, train_on, start, prices, watched, checking, simple, out, logger, ticks, console)
        policy = entrant(model, train_on, prices)
        save_policy(config, model, profile, train_on, serves, began, policy, probe_after_s, out)
        results = compare(policy, judge_on, playing, bounding, seeds, ticks)
    finish(config, results, judge_on, out, logger, console)
    console.print(f"{time.perf_counter() - begun:.0f} s in all. tensorboard --logdir {out / 'tensorboard'}")


def tell_traces(console: Console, *links: Sequence[Trace]) -> None:
    """Print a line about each trace of each hop, and a warning where its numbers look like other units."""
    for name, traces in zip(("uplink", "second hop"), links, strict=False):
        for line in summed_up(traces, name):
            console.print(line, markup=False)
        for doubt in doubts(traces):
            console.print(f"Warning: {doubt}.", style="yellow", markup=False)


def check(options: TrainingOptions) -> None:
    """Refuse numbers that make no sense. A demand checks its own."""
    for name, value, makes_sense, expected in (
        ("--holdout", options.holdout, 0.0 <= options.holdout < 1.0, "from 0 to below 1"),
        ("--holdout-s", options.holdout_s, options.holdout_s > 0.0, "of more than 0"),
        ("--effort", options.effort, 0.1 <= options.effort <= 10.0, "from 0.1 to 10"),
        ("--steps", options.steps, options.steps >= 0, "of at least 0"),
        ("--seed", options.seed, options.seed >= 0, "of at least 0"),
        ("--table-spread", options.table_spread, 0.0 <= options.table_spread <= 1.0, "from 0 to 1"),
        ("--trace-spread", options.trace_spread, 0.0 <= options.trace_spread <= 2.0, "from 0 to 2"),
    ):
        if not makes_sense:
            raise UsageError(f"{name} {expected} expected, {value} received")


def scenario(config: Config, profile: Profile, traces: list[Trace], further: list[Trace]) -> Scenario:
    """Traces, profile and demand of the options in one value."""
    world = config.world
    built = scenario_from(
        trace=traces,
        profile=profile,
        device=world.device,
        server=world.server,
        tiers=world.tiers,
        cloud=world.cloud,
        second_trace=further,
        demands=[config.demand.demand],
        world=with_utility(world_of(world.world), config.demand.utility),
    )
    return replace(built, table_spread=config.training.table_spread, trace_spread=config.training.trace_spread)


def check_episodes(train_on: Scenario) -> Scenario:
    """Short stretches of up to four training traces, on which the training is watched."""
    stretches = []
    for number, trace in enumerate(train_on.traces[:4]):
        begin = 0.0 if trace.duration_s <= CHECK_S else (0.37 * (number + 1) % 1.0) * (trace.duration_s - CHECK_S)
        stretches.append(trace.slice(begin, min(begin + CHECK_S, trace.duration_s)))
    return contest.whole_traces(replace(train_on, traces=tuple(stretches)))


def folder(config: Config) -> Path:
    """Make the folder to write. A finished bundle is never written over."""
    out, resume = config.output.out, config.output.resume
    if out is None:
        if resume:
            raise UsageError("--resume needs --out, the folder to go on in")
        base = Path("out") / (Path(config.world.trace).stem or "trace")
        numbered = (base.with_name(f"{base.name}-{n}") if n > 1 else base for n in range(1, 10_000))
        out = next(path for path in numbered if not path.exists())
    elif resume and not (out / CHECKPOINT).is_file():
        raise UsageError(f"--resume: {out} holds no {CHECKPOINT} to go on from")
    elif not resume and (held := [name for name in FINISHED if (out / name).exists()]):
        raise UsageError(f"{out} holds {FINISHED[held[0]]} already; --resume goes on with it, another --out keeps it")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}") from error
    return out


def remember(
    config: Config, serves: Mapping[str, Any], start: Path | None, out: Path, console: Console
) -> Mapping[str, Any]:
    """Write down what is trained. Refuse to resume a training of something else. Returns what it began with."""
    if not config.output.resume:
        trained_on = [] if start is None else bundle.load(start).manifest["config"].get("trained_on", [])
        name = "scratch" if start is None else "the policy that ships" if start == GENERALIST else str(start)
        purpose.save(out, serves, config.plain(), {"name": name, "trained_on": trained_on})
    elif not purpose.check(out, serves, config.plain()):
        console.print(
            f"{out} has no {purpose.FILE}: CNN, trace and demand of the checkpoint are not checked.", style="yellow"
        )
    return purpose.start_of(out)


def known_s(trace: Trace, began: Mapping[str, Any], seen: Sequence[Trace]) -> float:
    """How much longer a part of a trace the start was trained on than this training is, seconds."""
    own_s = max((one.duration_s for one in seen if one.name == trace.name), default=0.0)
    return max(purpose.trained_s(trace, began["trained_on"]) - own_s, 0.0)


def first_prices(train_on: Scenario) -> Prices | None:
    """Prices about which those of the training are drawn. None without a budget."""
    return ladder.mixture_prices(train_on, PRICING) if train_on.demands[0].budgeted else None


def within_reach(options: DemandOptions, train_on: Scenario) -> float | None:
    """A budget of GB a month in place of the usual one, if nobody chose one and no point can meet it. Else None.

    It is half of the way from the least data to that of the point that is best without a budget.
    """
    demand = train_on.demands[0]
    if options.max_gb_month is not None or demand.max_gb_month is None:
        return None
    means = ladder.point_means(train_on, PRICING)
    least, best = (
        gb_per_month(float(sent), demand.period_s)
        for sent in (means.sent_bytes.min(), means.sent_bytes[means.utility.argmax()])
    )
    return None if least <= demand.max_gb_month else math.ceil(5.0 * (least + best)) / 10


def entrant(model: MaskablePPO, train_on: Scenario, prices: Prices | None) -> Entrant:
    """The policy; under budgets with the prices to which it settles on the training traces."""
    learner = Learner(training.policy_of(model))
    if prices is None:
        return learner
    quantile = 0.5 if train_on.demands[0].max_gb_month is None else THRIFTY
    return budgeted.settled(
        learner, contest.without_spreads(train_on), prices, ladder.SETTLING_LANES, PRICING.seed, quantile
    )


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Give a stop inside the block its sentence: how to go on where there is a checkpoint."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if (out / CHECKPOINT).is_file():
            raise KeyboardInterrupt(f"stopped; --out {out} --resume goes on from the last checkpoint") from stop
        raise KeyboardInterrupt(f"stopped before the first checkpoint; {out} holds nothing to resume") from stop


def start_of(options: TrainingOptions, train_on: Scenario, cnn: str) -> Path | None:
    """The bundle that the training for a CNN of this name starts from. None: from scratch."""
    start = options.start
    if start is None:
        return training.usual_start(train_on, cnn)
    return None if start == "scratch" else GENERALIST if start == "generalist" else Path(start)


def learn(
    config: Config,
    train_on: Scenario,
    start: Path | None,
    prices: Prices | None,
    watched: Scenario,
    checking: list[Future[float]],
    simple: Future[dict[str, Entrant]],
    out: Path,
    logger: Logger,
    ticks: training.Progress,
    console: Console,
) -> MaskablePPO:
    """Train by rollouts, a rule that is ahead, and PPO; check on the episodes ``watched``, and save a checkpoint then.

    ``start``: bundle to start from. None: imitation comes first, or a checkpoint is resumed.
    ``prices``: those about which each episode draws its own. ``checking`` becomes the clairvoyant's utility on each of
    the episodes that are watched. ``simple`` becomes rules that it may learn from.
    """
    if prices is not None:
        train_on = replace(train_on, price_draw=PriceDraw(prices))
        watched = budgeted.at_prices(watched, prices)
    checked_on = replace(train_on.unvaried, episode_s=CHECK_S)
    keeper = training.Keeper(lambda policy: ladder.mean_utility(Learner(policy), checked_on, CHECKING))
    checkpoint, effort = out / CHECKPOINT, config.training.effort
    ppo = training.PpoConfig(steps=config.training.steps)
    try:
        if config.output.resume:
            ppo = replace(ppo, hidden=training.hidden_in(checkpoint))
        recipe = training.Recipe(ppo=ppo, seed=config.training.seed).times(effort)
        model = training.new_model(train_on, recipe, start)
        if config.output.resume:
            training.load_checkpoint(model, checkpoint, keeper)
            if model.num_timesteps >= recipe.ppo.frames:
                steps = int((model.num_timesteps - recipe.ppo.critic_frames) / effort)
                console.print(f"{out}: this training had ended. --steps above {steps} goes on with it.", markup=False)
    except ValueError as error:
        raise UsageError(str(error)) from error
    policy = training.policy_of(model)
    if not model.num_timesteps:  # PPO has not begun
        begin: training.Phase = "rule" if config.output.resume else "imitation" if start is None else "rollouts"
        learned = training.before_ppo(
            model, train_on, recipe, keeper, begin, lambda: worths(simple.result(), checked_on), ticks
        )
        for phase, losses in learned:
            log_regret(logger, phase, losses)
            if phase != "imitation":
                training.save_checkpoint(model, checkpoint, keeper)

    def bound() -> float | None:
        known = all(future.done() for future in checking)
        return sum(future.result() for future in checking) / len(checking) if known else None

    def on_check() -> None:
        logger.record("check/worth", keeper.check(policy))
        training.save_checkpoint(model, checkpoint, keeper)

    training.learn_by_ppo(model, recipe, Monitor(watched, bound, on_check=on_check), ticks, logger)
    keeper.check(policy)
    logger.dump(model.num_timesteps)  # the last rollouts' figures; later ones have other steps
    training.save_checkpoint(model, checkpoint, keeper)
    keeper.restore(policy)
    return model


def save_policy(
    config: Config,
    model: MaskablePPO,
    profile: Profile,
    train_on: Scenario,
    serves: Mapping[str, Any],
    began: Mapping[str, Any],
    policy: Entrant,
    probe_after_s: float,
    out: Path,
) -> None:
    """Write the bundle, and SB3's own file next to it, with the last learning rate for those who go on."""
    demand = config.demand.demand
    budgets = {"joule": demand.max_watts, "byte": demand.max_gb_month}
    learned = {
        "start": began["name"],
        "trained_on": [*(stretch for link in serves["trace"] for stretch in link), *began["trained_on"]],
        "priced": [name for name, most in budgets.items() if most is not None],
    }
    model.learning_rate = model.lr_schedule(0.0)  # a number: the schedule itself would be code in the file
    model.save(out / "sb3_policy.zip", exclude=["env", "logger", "lr_schedule", "clip_range"])
    write_bundle(
        out,
        training.policy_of(model),
        profile=profile,
        table=train_on.table,
        machines=config.world.machines,
        demand=demand,
        world=replace(train_on.world, probe_after_s=probe_after_s),  # another budget has other probes
        first_prices=policy.prices if isinstance(policy, budgeted.Budgeted) else None,
        config=config.plain() | learned,
    )
    prepared = Path(config.world.profile) / SUBFOLDER
    if (prepared / CNN_MANIFEST).is_file():  # a folder of tidesplit prepare: its models go along
        copy_for_bundle(out, load_cnn(prepared))


def worths(simple: Mapping[str, Entrant], checked_on: Scenario) -> list[tuple[float, Static | Family]]:
    """What simple rules are worth in the check episodes, at the prices that these draw."""
    found = []
    for rule in simple.values():
        plain = rule.entrant if isinstance(rule, budgeted.Budgeted) else rule
        plain = plain.controller if isinstance(plain, ladder.WithoutProbes) else plain
        assert isinstance(plain, Static | Family)
        found.append((ladder.mean_utility(plain, checked_on, CHECKING), plain))
    return found


def log_regret(logger: Logger, phase: str, losses: Sequence[float]) -> None:
    """Log the expected regret after each round of a phase."""
    for number, loss in enumerate(losses):
        logger.record(f"{phase}/expected_regret", loss)
        logger.dump(number)


def rules_played(
    tuning: Sequence[Future[dict[str, Entrant]]],
    own: Mapping[str, OwnController],
    judge_on: Scenario,
    seeds: Sequence[int],
    pool: ProcessPoolExecutor,
    ticks: training.Progress,
) -> dict[str, contest.Played]:
    """Wait for the rules, then let them and the user's ``own`` controllers play the traces kept back.

    It knows nothing of the policy, so it runs in a thread while that one is trained; the work is done by the pool.
    """
    rules = dict(item for tuned in awaited(tuning, "tuning the rules", ticks) for item in tuned.items())
    return contest.all_played({**rules, **own}, judge_on, seeds, ticks, pool)


def compare(
    policy: Entrant,
    judge_on: Scenario,
    playing: Future[dict[str, contest.Played]],
    bounding: Sequence[list[Future[float]]],
    seeds: Sequence[int],
    ticks: training.Progress,
) -> list[contest.Result]:
    """Wait for the rules and for the clairvoyant, then play the policy like the rules, once for each seed."""
    others = playing.result()
    found = awaited([future for of in bounding for future in of], "clairvoyant", ticks)
    count = len(found) // len(seeds)
    bounds = [found[i : i + count] for i in range(0, len(found), count)]
    ours = {POLICY: contest.played(policy, judge_on, seeds)}
    return contest.results_of(ladder.in_order({**others, **ours}), judge_on, bounds)


def awaited(futures: Sequence[Future[Found]], name: str, ticks: training.Progress) -> list[Found]:
    """Wait for results, in order; a bar called ``name`` counts them."""
    found: list[Found] = []
    for future in futures:
        ticks(name, len(found), len(futures))
        found.append(future.result())
    ticks(name, len(found), len(futures))
    return found


def finish(
    config: Config,
    results: Sequence[contest.Result],
    judge_on: Scenario,
    out: Path,
    logger: Logger,
    console: Console,
) -> None:
    """Print the table. Write results.json, the figure, and the table's means for TensorBoard."""
    plain, first = config.plain(), results[0]
    rows = [row for result in results for row in result.rows]
    bounds = {trace: float(np.mean([result.bounds[trace] for result in results])) for trace in first.bounds}
    title = f"{len(bounds)} held-out trace{'s' * (len(bounds) > 1)}, {len(results)} courses of events, simulated"
    console.print(figures.ladder_table(rows, bounds, title, judge_on.demands[0]))
    static = static_point(first, judge_on.table)
    console.print(
        f"{ladder.verdict(rows, judge_on.demands[0])} Best static point: {static}. To use it for every frame: "
        f"tidesplit edge --bundle {out} --point {static}",
        highlight=False,
        soft_wrap=True,
    )
    contest.write_json(out / "results.json", rows, bounds=bounds, config=plain)
    name, record = next(iter(first.records[POLICY].items()))
    figure = figures.decisions_figure(record, judge_on.table, judge_on.demands[0].period_s, f"PPO on {name}, held out")
    figures.save(figure, out / "decisions.png")
    mean = {f"heldout/{k}": v for k, v in mean_row([row for row in rows if row.controller == POLICY]).items()}
    shown = {k: v for k, v in plain.items() if v is not None}
    logger.record("hparams", HParam(shown, mean), exclude=("stdout",))
    for key, value in mean.items():
        logger.record(key, value)
    logger.dump(round(config.training.effort * config.training.steps))
    logger.close()


def static_point(result: contest.Result, table: PointTable) -> str:
    """Identifier of the operating point that the best static point of the ladder uses for every frame."""
    histories = result.records[ladder.RULES[0]].values()
    return table.ids[int(np.bincount(np.concatenate([history.points for history in histories])).argmax())]


def ticker(progress: Progress) -> training.Progress:
    """A function that moves the bar of a phase. The first call for a phase makes its bar."""
    tasks: dict[str, TaskID] = {}

    def tick(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = progress.add_task(name, total=total)
        progress.update(tasks[name], completed=done, total=total)

    return tick
