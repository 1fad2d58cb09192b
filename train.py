"""Train a policy for a profile, a demand and an uplink: python train.py --trace lte.csv

Writes into OUT: policy.onnx and bundle.json (what the device needs), profile.json, results.json (the table printed at
the end), decisions.png, sb3_policy.zip (to go on training with Stable-Baselines3), checkpoint.safetensors (--resume),
tensorboard/ (tensorboard --logdir OUT/tensorboard).

The table at the end is of time that the policy was not trained on: the last part of every trace, or where there are
many traces, some of them whole. Its rules were tuned on the training part. All of it is simulated.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from sb3_contrib import MaskablePPO
from stable_baselines3.common.logger import HParam, Logger, TensorBoardOutputFormat

from tidesplit.agents import bundle
from tidesplit.agents.judging import contest, ladder
from tidesplit.agents.judging import figures as report
from tidesplit.agents.judging.evaluation import Entrant, mean_row
from tidesplit.agents.judging.ladder import POLICY
from tidesplit.agents.learning import training
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.agents.learning.monitor import CHECK_SEED, Learner, Monitor
from tidesplit.envs.simulation.scenario import machines_of, scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace, TraceError, load_traces
from tidesplit.envs.world.vocabulary import Demand, DemandError
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import Profile, ProfileError
from tidesplit.profiling.points.tiers import estimated

SHORTEST_HOLDOUT_S = 5.0
MANY_TRACES = 5
CHECK_S = 12.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every option of train.py, with its help."""

    trace: str = field(default="lte.csv", metadata={"help": "uplink: a file, a folder, or the name of a bundled trace"})
    profile: str = field(
        default="efficientnet_lite0", metadata={"help": "profile: a file or the name of a bundled one"}
    )
    device: str = field(default="raspberry-pi-4", metadata={"help": "machine in the profile that runs the heads"})
    server: str | None = field(
        default=None,
        metadata={"help": "machine that runs the tails (default: x86-2core; with --tiers 3 the edge server, i5-2500)"},
    )
    tiers: int = field(
        default=2, metadata={"help": "2, or 3 for an edge server between device and cloud", "choices": (2, 3)}
    )
    cloud: str = field(default="x86-2core", metadata={"help": "with --tiers 3: machine that answers behind the server"})
    second_trace: str = field(
        default="metro.csv", metadata={"help": "with --tiers 3: the link from edge server to cloud, like --trace"}
    )
    objective: str = field(
        default="accuracy",
        metadata={
            "help": "accuracy: right answers within the deadline; latency: fastest answers above --min-accuracy",
            "choices": ("accuracy", "latency"),
        },
    )
    fps: float = field(default=30.0, metadata={"help": "frames a second"})
    deadline_ms: float | None = field(
        default=None, metadata={"help": "a frame answered later is lost (default: 100; 1000 for the latency objective)"}
    )
    min_accuracy: float = field(default=0.0, metadata={"help": "operating points below this accuracy are not used"})
    steps: int = field(default=400_000, metadata={"help": "frames of PPO after imitation"})
    table_spread: float = field(
        default=0.0,
        metadata={"help": "vary timings and sizes by this (log-normal), to serve other devices and CNNs too"},
    )
    trace_spread: float = field(
        default=1.5,
        metadata={
            "help": "vary bandwidth (and by 0.4 of it the round trip) in training, log-normal, to serve other links too"
        },
    )
    holdout: float = field(default=0.2, metadata={"help": "share of the time, or of many traces, kept for the table"})
    holdout_s: float = field(default=60.0, metadata={"help": "at most so many seconds of each trace in the table"})
    seed: int = field(default=0, metadata={"help": "seed of everything random"})
    out: Path | None = field(
        default=None, metadata={"help": "folder to write (default: out/TRACE, or out/TRACE-2 ...)"}
    )
    resume: bool = field(default=False, metadata={"help": "go on from OUT's checkpoint"})

    @property
    def demand(self) -> Demand:
        """The demand that these options make."""
        usual_ms = 100.0 if self.objective == "accuracy" else 1000.0
        return Demand(
            objective="latency" if self.objective == "latency" else "accuracy",
            fps=self.fps,
            deadline_s=(usual_ms if self.deadline_ms is None else self.deadline_ms) / 1e3,
            min_accuracy=self.min_accuracy,
        )

    @property
    def machines(self) -> tuple[str, ...]:
        """The chain of machines, device first."""
        return machines_of(self.tiers, self.device, self.server, self.cloud)


class UsageError(ValueError):
    """Options that do not fit together, in one sentence."""


MISTAKES = (TraceError, ProfileError, DemandError, UsageError, bundle.BundleError)


def main(argv: list[str] | None = None) -> int:
    """Run; 0 when done, 2 for a user's mistake."""
    config = parse(Config, (__doc__ or "").strip(), argv)
    console = Console()
    contest.stop_on_sigterm()
    try:
        run(config, console)
    except MISTAKES as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train.py: stopped; --resume with the same --out goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def run(config: Config, console: Console) -> None:
    """Train, compare, write the bundle."""
    check_numbers(config)
    begun = time.perf_counter()
    profile = profiles.load(config.profile)
    seen, unseen = held_out(load_traces(config.trace), config.holdout, config.holdout_s)
    second = load_traces(config.second_trace) if config.tiers == 3 else []
    further, kept_back = held_out(second, config.holdout, config.holdout_s)
    train_on = scenario(config, profile, seen, further)
    judged = unseen or [t.slice(0.0, min(t.duration_s, config.holdout_s)) for t in seen]
    judge_on = scenario(config, profile, judged, kept_back or further)
    out = folder(config)
    console.print(
        f"{len(train_on.table.ids)} operating points of {profile.name} on {', '.join(config.machines)}, "
        f"{len(seen)} trace{'s' * (len(seen) > 1)}; everything below is [bold]simulated[/bold]. Writing {out}"
    )
    if guessed := estimated(profile, train_on.table.ids):
        console.print(
            f"[yellow]The accuracy of {len(guessed)} points is estimated: cut twice, and that pair was not measured "
            "(tidesplit profile chain).[/yellow]"
        )
    if not unseen:
        console.print(
            "[yellow]The trace is too short to keep a part of it back: the table is of training time.[/yellow]"
        )
    torch.set_num_threads(1)  # the rules are tuned on the other core meanwhile
    torch.manual_seed(config.seed)
    with contest.workers(1) as pool, bars(console) as progress:
        ticks = ticker(progress)
        check = check_episodes(train_on)
        checking = contest.submit_bounds(pool, check, CHECK_SEED)
        tuning = pool.submit(ladder.tuned_rules, train_on, ladder.Tuning())
        bounding = contest.submit_bounds(pool, judge_on, config.seed)
        logger = Logger(str(out), [TensorBoardOutputFormat(str(out / "tensorboard"))])
        model = learn(config, train_on, check, checking, out, logger, ticks)
        save_policy(config, model, profile, train_on, out)
        result = compare(model, judge_on, tuning, bounding, config.seed, ticks)
    finish(config, result, judge_on, out, logger, console)
    console.print(f"{time.perf_counter() - begun:.0f} s in all. tensorboard --logdir {out / 'tensorboard'}")


def check_numbers(config: Config) -> None:
    """Refuse numbers that mean nothing; the demand's own are checked as it is made."""
    fine = {
        "--holdout from 0 to below 1": 0.0 <= config.holdout < 1.0,
        "--holdout-s of more than 0": config.holdout_s > 0.0,
        "--steps of at least 0": config.steps >= 0,
        "--seed of at least 0": config.seed >= 0,
        "--table-spread from 0 to 1": 0.0 <= config.table_spread <= 1.0,
        "--trace-spread from 0 to 2": 0.0 <= config.trace_spread <= 2.0,
    }
    for expected, met in fine.items():
        if not met:
            value = getattr(config, expected.split()[0].removeprefix("--").replace("-", "_"))
            raise UsageError(f"{expected} expected, {value} received")


def learn(
    config: Config,
    train_on: Scenario,
    check: Scenario,
    checking: list[Future[float]],
    out: Path,
    logger: Logger,
    ticks: training.Progress,
) -> MaskablePPO:
    """Imitation, critic, PPO; with a checkpoint after every check."""
    recipe = training.Recipe(ppo=training.PpoConfig(steps=config.steps), seed=config.seed)
    model = training.new_model(train_on, recipe)
    checkpoint = out / "checkpoint.safetensors"
    if config.resume:
        try:
            training.load_checkpoint(model, checkpoint)
        except ValueError as error:
            raise UsageError(str(error)) from error
    else:
        for number, loss in enumerate(training.learn_by_imitation(model, train_on, recipe, ticks)):
            logger.record("imitation/expected_regret", loss)
            logger.dump(number)
        training.save_checkpoint(model, checkpoint)

    def bound() -> float | None:
        done = [future.result() for future in checking if future.done()]
        return sum(done) / len(done) if len(done) == len(checking) else None

    monitor = Monitor(check, bound, on_check=lambda: training.save_checkpoint(model, checkpoint))
    training.learn_by_ppo(model, recipe, monitor, ticks, logger)
    logger.dump(model.num_timesteps)  # what the last rollouts recorded, before later words come at other steps
    training.save_checkpoint(model, checkpoint)
    return model


def save_policy(config: Config, model: MaskablePPO, profile: Profile, train_on: Scenario, out: Path) -> None:
    """The bundle, and SB3's own file beside it."""
    model.save(out / "sb3_policy.zip", exclude=["env", "logger", "lr_schedule", "clip_range", "learning_rate"])
    write_bundle(
        out,
        training.policy_of(model),
        profile=profile,
        table=train_on.table,
        machines=config.machines,
        demand=config.demand,
        config=plain(config),
    )


def compare(
    model: MaskablePPO,
    judge_on: Scenario,
    tuning: Future[dict[str, Entrant]],
    bounding: list[Future[float]],
    seed: int,
    ticks: training.Progress,
) -> contest.Result:
    """PPO beside every rule on time it was not trained on."""
    ticks("tuning the rules", 0, 1)
    rules = tuning.result()
    ticks("tuning the rules", 1, 1)
    bounds: list[float] = []
    for future in bounding:
        ticks("clairvoyant", len(bounds), len(bounding))
        bounds.append(future.result())
    ticks("clairvoyant", len(bounds), len(bounding))
    entrants: dict[str, Entrant] = {**rules, POLICY: Learner(training.policy_of(model))}
    return contest.contest(ladder.in_order(entrants), judge_on, [bounds], [seed], ticks)[0]


def finish(
    config: Config, result: contest.Result, judge_on: Scenario, out: Path, logger: Logger, console: Console
) -> None:
    """Print the table, write results.json and the figure, and the last words to TensorBoard."""
    console.print(report.ladder_table(result.rows, result.bounds, f"{len(result.bounds)} held-out traces, simulated"))
    contest.write_json(out / "results.json", result.rows, bounds=result.bounds, config=plain(config))
    first = next(iter(result.bounds))
    figure = report.decisions_figure(
        result.records[POLICY][first], judge_on.table, config.demand.period_s, f"PPO on {first}, held out"
    )
    report.save(figure, out / "decisions.png")
    mean = mean_row([row for row in result.rows if row.controller == POLICY])
    shown = {k: v for k, v in plain(config).items() if isinstance(v, str | int | float)}
    logger.record("hparams", HParam(shown, {f"heldout/{k}": v for k, v in mean.items()}), exclude=("stdout",))
    for key, value in mean.items():
        logger.record(f"heldout/{key}", value)
    logger.dump(config.steps)
    logger.close()


def scenario(config: Config, profile: Profile, traces: list[Trace], further: list[Trace]) -> Scenario:
    """Traces, profile and demand of the options, put together."""
    built = scenario_from(
        trace=traces,
        profile=profile,
        device=config.device,
        server=config.server,
        tiers=config.tiers,
        cloud=config.cloud,
        second_trace=further,
        demands=[config.demand],
    )
    return replace(built, table_spread=config.table_spread, trace_spread=config.trace_spread)


def held_out(traces: list[Trace], share: float, longest_s: float) -> tuple[list[Trace], list[Trace]]:
    """Traces to train on and others to judge by: whole ones where there are many, else the last part of each."""
    if share == 0.0:
        return traces, []
    if len(traces) >= MANY_TRACES:
        every = max(2, round(1.0 / share))
        unseen = traces[every - 1 :: every]
        return [t for t in traces if not any(t is u for u in unseen)], [shortened(t, longest_s) for t in unseen]
    long = [t for t in traces if t.duration_s * share >= SHORTEST_HOLDOUT_S]
    cuts = {id(t): t.duration_s * (1.0 - share) for t in long}
    seen = [t.slice(0.0, cuts[id(t)]) if id(t) in cuts else t for t in traces]
    return seen, [shortened(t.slice(cuts[id(t)], t.duration_s), longest_s) for t in long]


def shortened(trace: Trace, longest_s: float) -> Trace:
    """Its first ``longest_s`` seconds."""
    return trace if trace.duration_s <= longest_s else trace.slice(0.0, longest_s)


def check_episodes(train_on: Scenario) -> Scenario:
    """A few short stretches of the training traces, on which training is watched."""
    stretches = []
    for number, trace in enumerate(train_on.traces[:4]):
        begin = 0.0 if trace.duration_s <= CHECK_S else (0.37 * (number + 1) % 1.0) * (trace.duration_s - CHECK_S)
        stretches.append(trace.slice(begin, min(begin + CHECK_S, trace.duration_s)))
    return contest.whole_traces(replace(train_on, traces=tuple(stretches)))


def folder(config: Config) -> Path:
    """The folder to write. A finished bundle is never written over."""
    if config.out is None:
        if config.resume:
            raise UsageError("--resume needs --out, the folder to go on in")
        base = Path("out") / (Path(config.trace).stem or "trace")
        numbered = (base.with_name(f"{base.name}-{n}") if n > 1 else base for n in range(1, 10_000))
        out = next(path for path in numbered if not path.exists())
    else:
        out = config.out
        if config.resume and not (out / "checkpoint.safetensors").is_file():
            raise UsageError(f"--resume: {out} holds no checkpoint.safetensors to go on from")
        if not config.resume and (out / bundle.MANIFEST).exists():
            raise UsageError(f"{out} holds a trained policy already; --resume goes on with it, another --out keeps it")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}") from error
    return out


def bars(console: Console) -> Progress:
    """Progress bars with the time left."""
    columns = (TextColumn("{task.description:>18}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console)


def ticker(progress: Progress) -> Callable[[str, int, int], None]:
    """Moves the bar of a phase, making it when first heard of."""
    tasks: dict[str, Any] = {}

    def tick(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = progress.add_task(name, total=total)
        progress.update(tasks[name], completed=done, total=total)

    return tick


def plain(config: Any) -> dict[str, Any]:
    """A config as JSON values."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}


def parse(cls: type[Config], description: str, argv: list[str] | None) -> Config:
    """Command line made from the config's fields."""
    parser = argparse.ArgumentParser(
        prog="train.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds: Mapping[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
    for option in fields(cls):
        flag = "--" + option.name.replace("_", "-")
        kind = str(option.type).split(" | ", maxsplit=1)[0]
        text = option.metadata["help"]
        if kind == "bool":
            parser.add_argument(flag, action="store_true", help=text)
            continue
        if option.default is not None:
            text += " (default: %(default)s)"
        parser.add_argument(
            flag,
            type=Path if kind == "Path" else kinds[kind],
            default=option.default,
            choices=option.metadata.get("choices"),
            metavar=None if "choices" in option.metadata else option.name.upper(),
            help=text,
        )
    return cls(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
