"""Compare a trained policy with every rule on any uplink: python evaluate.py OUT --trace T [T ...] --json FILE

One row a controller and trace. The rules are tuned on --tune-on (default: the traces that the policy was trained on),
never on the traces they are judged by. Where several traces or seeds are played, a second table has interquartile means
and differences to the tuned MPC on the same traces and seeds, with 95 % bootstrap intervals over both. Several OUT are
policies trained alike from different seeds: they take turns with the seeds of --ladder, so that intervals are over
training too. Everything is simulated. Beside FILE goes a plot, FILE with .png at its end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from tidesplit.agents import bundle as bundles
from tidesplit.agents.judging import contest, intervals, ladder
from tidesplit.agents.judging import figures as report
from tidesplit.agents.judging.evaluation import Entrant
from tidesplit.envs.simulation.scenario import SECOND_TRACE
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.table import above_floor
from tidesplit.train import MISTAKES, UsageError, bars, ticker

LADDER_SEEDS = 5
RIVAL = "MPC, tuned"  # the best of the rules that see what the policy sees


def main(argv: list[str] | None = None) -> int:
    """Run; 0 when done, 2 for a user's mistake."""
    options = arguments().parse_args(argv)
    contest.stop_on_sigterm()
    try:
        run(options, Console())
    except MISTAKES as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate.py: stopped", file=sys.stderr)
        return 130
    return 0


def run(options: argparse.Namespace, console: Console) -> None:
    """Play every controller on every trace, print the table, write JSON and plot."""
    check_options(options)
    trained = [bundles.load(out) for out in options.out]
    bundle = alike(trained, options)
    demand = demanded(bundle.demand, options)
    above_floor(bundle.table, demand.min_accuracy)
    traces = unambiguous([trace for spec in options.trace for trace in load_traces(spec)], options.seconds)
    config = bundle.manifest["config"]
    further = len(bundle.table.hops) - 1
    if options.second_trace and not further:
        raise UsageError("--second-trace is of three tiers, and the policy was trained for two (train.py --tiers 3)")

    def behind(spec: str) -> tuple[tuple[Trace, ...], ...]:
        return tuple(tuple(load_traces(spec)) for _ in range(further))

    own = config.get("second_trace", SECOND_TRACE)
    judge_on = Scenario(
        traces=tuple(traces), demands=(demand,), table=bundle.table, further=behind(options.second_trace or own)
    )
    tune_on = replace(judge_on, traces=tuple(load_traces(options.tune_on or config["trace"])), further=behind(own))
    seeds = range(options.seed, options.seed + options.seeds)
    with contest.workers() as pool, bars(console) as progress:
        ticks = ticker(progress)
        tuning = pool.submit(ladder.tuned_rules, tune_on, ladder.Tuning(thorough=options.thorough))
        bounds = {seed: contest.submit_bounds(pool, judge_on, seed) for seed in seeds}
        ticks("tuning the rules", 0, 1)
        rules = tuning.result()
        ticks("tuning the rules", 1, 1)
        found = gathered([future for seed in seeds for future in bounds[seed]], ticks, "clairvoyant")
        by_seed = [found[i : i + len(traces)] for i in range(0, len(found), len(traces))]
        results = contest.contest(ladder.in_order(rules), judge_on, by_seed, seeds, ticks, pool)
        for first, each in enumerate(trained):
            turns = range(first, len(seeds), len(trained))
            policy: dict[str, Entrant] = {ladder.POLICY: each.policy}
            own = contest.contest(policy, judge_on, [by_seed[i] for i in turns], [seeds[i] for i in turns], ticks, pool)
            for i, learned in zip(turns, own, strict=True):
                results[i] = results[i].with_rows(learned, ladder.in_order({**rules, **policy}))
    show(results, judge_on, options, console)


def alike(trained: Sequence[bundles.Bundle], options: argparse.Namespace) -> bundles.Bundle:
    """The first of the bundles; UsageError where the others decide something else, or would have no turn."""
    first = trained[0]
    for out, other in zip(options.out[1:], trained[1:], strict=True):
        for what, ours, theirs in (
            ("demand", first.demand, other.demand),
            ("operating points", first.table.ids, other.table.ids),
            ("training traces", first.manifest["config"]["trace"], other.manifest["config"]["trace"]),
        ):
            if ours != theirs:
                raise UsageError(f"{options.out[0]} and {out} have different {what}: compare them one by one")
    if options.seeds < len(trained):
        raise UsageError(f"{len(trained)} policies received for --seeds {options.seeds}: each needs a seed (--ladder)")
    return first


def check_options(options: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing and a FILE that could not be written, before hours were spent on its content."""
    if options.seconds is not None and not options.seconds > 0.0:
        raise UsageError(f"--seconds of more than 0 expected, {options.seconds:g} received")
    if options.seed < 0:
        raise UsageError(f"--seed of at least 0 expected, {options.seed} received")
    if options.json is not None and not options.json.resolve().parent.is_dir():
        raise UsageError(f"--json {options.json}: there is no folder {options.json.resolve().parent}")


def gathered(futures: Sequence[Future[float]], ticks: contest.Progress, name: str) -> list[float]:
    """Results as they come, in order."""
    found: list[float] = []
    for future in futures:
        ticks(name, len(found), len(futures))
        found.append(future.result())
    ticks(name, len(found), len(futures))
    return found


def show(results: Sequence[contest.Result], judged: Scenario, options: argparse.Namespace, console: Console) -> None:
    """Table on the terminal, rows as JSON, plot."""
    demand = judged.demands[0]
    rows = [row for result in results for row in result.rows]
    bounds = {t: float(np.mean([r.bounds[t] for r in results])) for t in results[0].bounds}
    kind = "right answers" if demand.objective == "accuracy" else "speed"
    title = (
        f"{len(bounds)} trace{'s' * (len(bounds) > 1)}, {len(results)} seed{'s' * (len(results) > 1)}, "
        f"{demand.fps:g} fps, {demand.deadline_s * 1e3:g} ms, for {kind}, {len(judged.links) + 1} tiers; simulated"
    )
    console.print(report.ladder_table(rows, bounds, title))
    found = intervals.standings(results, RIVAL, np.random.default_rng(options.seed))
    if len(bounds) * len(results) > 1:
        console.print(report.standings_table(found, RIVAL, "the same traces and seeds for all; bootstrap over both"))
    if options.json is not None:
        contest.write_json(
            options.json,
            rows,
            bounds=bounds,
            kind="simulated",
            tiers=len(judged.links) + 1,
            seeds=len(results),
            rival=RIVAL,
            standings=intervals.as_json(found),
        )
        report.save(report.rows_figure(results[0].rows, results[0].bounds), options.json.with_suffix(".png"))
        console.print(f"Wrote {options.json} and {options.json.with_suffix('.png')}")


def demanded(trained: Demand, options: argparse.Namespace) -> Demand:
    """The demand that the policy was trained for, with what the command line changes."""
    changes = {
        "fps": options.fps,
        "deadline_s": None if options.deadline_ms is None else options.deadline_ms / 1e3,
        "min_accuracy": options.min_accuracy,
    }
    return replace(trained, **{k: v for k, v in changes.items() if v is not None})


def unambiguous(traces: list[Trace], longest_s: float | None) -> list[Trace]:
    """The traces, shortened if asked for, under names that differ."""
    seen: dict[str, int] = {}
    out: list[Trace] = []
    for trace in traces:
        seen[trace.name] = seen.get(trace.name, 0) + 1
        name = trace.name if seen[trace.name] == 1 else f"{trace.name} ({seen[trace.name]})"
        short = trace if longest_s is None or trace.duration_s <= longest_s else trace.slice(0.0, longest_s)
        out.append(replace(short, name=name))
    return out


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="+", metavar="OUT", help="folder that train.py wrote")
    parser.add_argument("--trace", nargs="+", required=True, metavar="T", help="files, folders or bundled names")
    parser.add_argument(
        "--second-trace", metavar="T", help="three tiers: the second hop (default: the policy's own; see train.py)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, and a plot beside it")
    parser.add_argument("--tune-on", metavar="T", help="traces to tune the rules on (default: the policy's own)")
    parser.add_argument("--thorough", action="store_true", help="tune the rules on finer grids, twice over")
    parser.add_argument("--fps", type=float, metavar="FPS", help="frames a second, if other than trained for")
    parser.add_argument("--deadline-ms", type=float, metavar="MS", help="deadline, if other than trained for")
    parser.add_argument("--min-accuracy", type=float, metavar="A", help="accuracy floor, if other than trained for")
    parser.add_argument("--seconds", type=float, metavar="S", help="play at most this much of each trace")
    parser.add_argument(
        "--seeds", type=positive, default=1, metavar="N", help="play each trace with N courses of events"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="SEED", help="first seed (default: %(default)s)")
    parser.add_argument(
        "--ladder",
        dest="seeds",
        action="store_const",
        const=LADDER_SEEDS,
        help=f"play each trace with {LADDER_SEEDS} courses of events, for intervals over traces and seeds",
    )
    return parser


def positive(text: str) -> int:
    """A whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} received, 1 or more expected")
    return value


if __name__ == "__main__":
    sys.exit(main())
