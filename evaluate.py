"""Compare a trained policy with every rule on any uplink: tidesplit evaluate OUT --trace T [T ...] --json FILE

One row per controller and trace. The rules are tuned on --tune-on (default: the traces that the policy was trained on),
never on the traces they are judged by. With several traces or seeds, a second table has interquartile means, and
differences to the tuned MPC on the same traces and seeds. Their 95 % bootstrap intervals are over both.

Several OUT are policies that differ in their training seed. They take turns with the seeds of --ladder, so the
intervals are over training too. Everything is simulated. A plot goes next to FILE, with the suffix .png.

A controller of your own joins the table: --controller my_rules:Patient for the function or class Patient in
my_rules.py. It is called with the scenario that the rules are tuned in, and returns an object with
predict(observation), see docs/extend.md. What the tuning of the rules finds is kept in ~/.cache/tidesplit/tuned.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: the command says which extra is missing
    import sys

    from tidesplit import __main__ as program

    sys.exit(program.main(["evaluate", *sys.argv[1:]]))

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from tidesplit.agents import bundle as bundles
from tidesplit.agents.judging import budgeted, contest, figures, intervals, ladder, tuning_cache
from tidesplit.agents.judging.evaluation import Entrant
from tidesplit.agents.judging.own_controllers import own_controllers
from tidesplit.agents.learning.purpose import stretches, trained_s
from tidesplit.envs.simulation.scenario import SECOND_TRACE
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.simulation.worlds import with_utility, world_of
from tidesplit.envs.traces.held_out import held_out, shortened
from tidesplit.envs.traces.trace import Trace, TraceError, load_traces
from tidesplit.profiling.points.table import above_floor
from tidesplit.train import UsageError, awaited, reported, tell_traces, ticker

LADDER_SEEDS = 5
RIVAL = "MPC, tuned"  # the best rule with the policy's observation


def main(argv: list[str] | None = None) -> int:
    """Run. Returns 0 when done, 2 for a user's mistake, 130 when stopped."""
    options = arguments().parse_args(argv)
    return reported("tidesplit evaluate", lambda: run(options, Console()))


def run(options: argparse.Namespace, console: Console) -> None:
    """Play every controller on every trace, print the table, write JSON and plot."""
    check(options)
    trained = [bundles.load(out) for out in options.out]
    traces = [trace for spec in options.trace for trace in load_traces(spec)]
    judge_on, tune_on = scenarios(alike(trained, options), traces, options)
    tell_traces(console, traces, *judge_on.further)
    if warning := training_time(trained, traces, options.seconds or np.inf):
        console.print(warning, style="yellow", markup=False)
    if (own := trained[0].manifest["config"].get("utility")) and options.utility is None:
        console.print(f"The policy was trained for a worth of its own: --utility {own} judges by it.", style="yellow")
    seeds = range(options.seed, options.seed + options.seeds)
    added = own_controllers(options.controller, tune_on, (*ladder.EVERY, ladder.POLICY))
    tuning_of = ladder.Tuning(thorough=options.thorough)
    if tuning_cache.file_of(tune_on, tuning_of).exists():
        console.print(f"Rules that were tuned on the same before are taken from {tuning_cache.folder()}.", markup=False)
    with contest.workers() as pool, Progress(console=console) as progress:
        ticks = ticker(progress)
        tuning = pool.submit(tuning_cache.cached_rules, tune_on, tuning_of, options.controllers)
        bounding = [future for seed in seeds for future in contest.submit_bounds(pool, judge_on, seed)]
        (rules,) = awaited([tuning], "tuning the rules", ticks)
        found, count = awaited(bounding, "clairvoyant", ticks), len(judge_on.traces)
        bounds = [found[i : i + count] for i in range(0, len(found), count)]  # by seed
        others: dict[str, Entrant] = {**rules, **added}
        results = contest.contest(ladder.in_order(others), judge_on, bounds, seeds, ticks, pool)
        for first, each in enumerate(trained):
            turns = range(first, len(seeds), len(trained))
            policy: dict[str, Entrant] = {ladder.POLICY: budgeted.policy_of(each, judge_on.demands[0])}
            own = contest.contest(policy, judge_on, [bounds[i] for i in turns], [seeds[i] for i in turns], ticks, pool)
            for i, learned in zip(turns, own, strict=True):
                results[i] = results[i].with_rows(learned, ladder.in_order({**others, **policy}))
    show(results, judge_on, options, console)


def check(options: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, and a FILE that cannot be written: the run before it may take hours."""
    if options.seconds is not None and not options.seconds > 0.0:
        raise UsageError(f"--seconds of more than 0 expected, {options.seconds:g} received")
    if options.seed < 0:
        raise UsageError(f"--seed of at least 0 expected, {options.seed} received")
    if unknown := [name for name in options.controllers if name not in ladder.EVERY]:
        known = ", ".join(map(repr, ladder.EVERY))
        raise UsageError(f"--controllers: no rule {unknown[0]!r}; there are {known}. --controller takes your own")
    if options.json is not None and not options.json.resolve().parent.is_dir():
        raise UsageError(f"--json {options.json}: there is no folder {options.json.resolve().parent}")


def scenarios(bundle: bundles.Bundle, traces: list[Trace], options: argparse.Namespace) -> tuple[Scenario, Scenario]:
    """The world that controllers are judged in, and the one that rules are tuned in."""
    demand, config = (
        bundle.demand.changed(
            options.fps, options.deadline_ms, options.min_accuracy, options.max_watts, options.max_gb_month
        ),
        bundle.manifest["config"],
    )
    table = bundle.table.without_pictures() if options.privacy else bundle.table
    above_floor(table, demand.min_accuracy)
    further = len(table.hops) - 1
    if options.second_trace and not further:
        raise UsageError("--second-trace needs three tiers, the policy was trained for two (tidesplit train --tiers 3)")

    tuned_on = tuple(load_traces(options.tune_on) if options.tune_on else of_training(config["trace"], "--tune-on"))
    own: tuple[Trace, ...] = ()
    if further:
        own = tuple(of_training(config.get("second_trace", SECOND_TRACE), "--second-trace", options.second_trace))
    other = tuple(load_traces(options.second_trace)) if options.second_trace else own
    judge_on = Scenario(
        traces=tuple(unambiguous(traces, options.seconds)),
        demands=(demand,),
        table=table,
        further=(other,) * further,
        world=with_utility(bundle.world if options.world is None else world_of(options.world), options.utility).under(
            demand
        ),
    )
    return judge_on, replace(judge_on, traces=tuned_on, further=(own,) * further)


def of_training(spec: str, option: str, otherwise: str | None = None) -> list[Trace]:
    """Traces of the training, or those called ``otherwise`` where these cannot be read, as in a bundle that was moved.

    Raises:
        UsageError: there is neither; it names the option that gives others.
    """
    try:
        return load_traces(spec)
    except TraceError as error:
        if otherwise is not None:
            return load_traces(otherwise)
        why = str(error).rstrip(".")
        raise UsageError(f"{option} expected: the policy's training traces cannot be read here ({why})") from error


def training_time(trained: Sequence[bundles.Bundle], traces: Sequence[Trace], longest_s: float) -> str | None:
    """A warning where policies are judged on time that they were trained on, or where nobody can say."""
    try:
        known = [stretch for bundle in trained for stretch in trained_on(bundle.manifest["config"])]
    except TraceError:
        return "Warning: the training traces are not here, so some of the judged time may be training time."
    seen = {trace.name: min(trained_s(trace, known), longest_s) for trace in traces}
    names = [name for name, seconds in seen.items() if seconds > 0.0]
    if not names:
        return None
    shown = ", ".join(f"the first {seen[name]:.0f} s of {name}" for name in names[:3])
    more = f" and of {len(names) - 3} more" if len(names) > 3 else ""
    return f"Warning: judged on training time: {shown}{more}. Policies look better there than on other traces."


def trained_on(config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Stretches of traces that a policy was trained on. Bundles that do not list them name the traces."""
    if "trained_on" in config:
        listed: Sequence[Mapping[str, Any]] = config["trained_on"]
        return listed
    return stretches(held_out(load_traces(config["trace"]), config.get("holdout", 0.0), np.inf)[0])


def alike(trained: Sequence[bundles.Bundle], options: argparse.Namespace) -> bundles.Bundle:
    """The first bundle. Raises UsageError where another one has a different task, or no seed is left for one."""
    first = trained[0]
    for out, other in zip(options.out[1:], trained[1:], strict=True):
        for part, ours, theirs in (
            ("demand", first.demand, other.demand),
            ("operating points", first.table.ids, other.table.ids),
            ("worlds", first.world, other.world),
            ("training traces", first.manifest["config"]["trace"], other.manifest["config"]["trace"]),
        ):
            if ours != theirs:
                raise UsageError(f"{options.out[0]} and {out} have different {part}: compare them one by one")
    if options.seeds < len(trained):
        raise UsageError(f"{len(trained)} policies received for --seeds {options.seeds}: each needs a seed (--ladder)")
    return first


def show(results: Sequence[contest.Result], judged: Scenario, options: argparse.Namespace, console: Console) -> None:
    """Print the tables, write the rows as JSON and the plot."""
    demand = judged.demands[0]
    rows = [row for result in results for row in result.rows]
    bounds = {t: float(np.mean([r.bounds[t] for r in results])) for t in results[0].bounds}
    kind = options.utility or ("right answers" if demand.objective == "accuracy" else "speed")
    rival = RIVAL if RIVAL in {row.controller for row in rows} else ladder.POLICY
    title = (
        f"{len(bounds)} trace{'s' * (len(bounds) > 1)}, {len(results)} seed{'s' * (len(results) > 1)}, "
        f"{demand.fps:g} fps, {demand.deadline_s * 1e3:g} ms, for {kind}, {len(judged.links) + 1} tiers; simulated"
        + (f", world {options.world}" if options.world else "")
    )
    console.print(figures.ladder_table(rows, bounds, title, demand))
    found = intervals.standings(results, rival, np.random.default_rng(options.seed))
    if len(bounds) * len(results) > 1:
        console.print(figures.standings_table(found, rival, "same traces and seeds for all; bootstrap over both"))
    if options.json is not None:
        contest.write_json(
            options.json,
            rows,
            bounds=bounds,
            kind="simulated",
            tiers=len(judged.links) + 1,
            seeds=len(results),
            rival=rival,
            world=options.world,
            utility=options.utility,
            standings=intervals.as_json(found),
        )
        figures.save(figures.rows_figure(results[0].rows, results[0].bounds), options.json.with_suffix(".png"))
        console.print(f"Wrote {options.json} and {options.json.with_suffix('.png')}")


def unambiguous(traces: list[Trace], longest_s: float | None) -> list[Trace]:
    """The traces under names that differ, each at most ``longest_s`` seconds long."""
    seen: dict[str, int] = {}
    out: list[Trace] = []
    for trace in traces:
        seen[trace.name] = seen.get(trace.name, 0) + 1
        name = trace.name if seen[trace.name] == 1 else f"{trace.name} ({seen[trace.name]})"
        out.append(replace(trace if longest_s is None else shortened(trace, longest_s), name=name))
    return out


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="tidesplit evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="+", metavar="OUT", help="folder that tidesplit train wrote")
    parser.add_argument("--trace", nargs="+", required=True, metavar="T", help="files, folders or bundled names")
    parser.add_argument(
        "--second-trace", metavar="T", help="three tiers: link of the second hop (default: that of the training)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, and a plot next to it")
    parser.add_argument("--tune-on", metavar="T", help="traces to tune the rules on (default: those of the training)")
    parser.add_argument(
        "--controller", action="append", default=[], metavar="MODULE:FACTORY",
        help="a controller of your own, which joins the table; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--controllers", nargs="*", default=list(ladder.EVERY), metavar="NAME",
        help="rules to tune and to play, by their names in the table (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--world", metavar="W", help="physical numbers: a JSON file, or granted or as-traced (default: as trained)"
    )
    parser.add_argument(
        "--utility", metavar="MODULE:FUNCTION",
        help="worth of answers in time, a function of accuracy, latency_s and deadline_s (default: the demand's)",
    )  # fmt: skip
    parser.add_argument("--thorough", action="store_true", help="tune the rules on finer grids, in two passes")
    parser.add_argument("--fps", type=float, metavar="FPS", help="frames a second (default: as trained)")
    parser.add_argument("--deadline-ms", type=float, metavar="MS", help="deadline (default: as trained)")
    parser.add_argument("--min-accuracy", type=float, metavar="A", help="accuracy floor (default: as trained)")
    parser.add_argument("--max-watts", type=float, metavar="W", help="budget of energy (default: as trained)")
    parser.add_argument("--max-gb-month", type=float, metavar="GB", help="budget of data (default: as trained)")
    parser.add_argument("--privacy", action="store_true", help="offer no point that sends pictures")
    parser.add_argument("--seconds", type=float, metavar="S", help="longest part of a trace that is played")
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
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} received, 1 or more expected")
    return value
