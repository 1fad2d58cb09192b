"""The worth of the choices themselves: the best static point with and without int8, races and streams.

    python benchmarks/choices.py --trace ../shared/traces/test/lte_us --tune-on ../shared/traces/train/lte_us

There are seven sets of points. "neither" has float32 points and no races, "int8" has int8 heads and whole local nets
too, "races" has races of float32 points, and "int8 and races" has both. "video" adds streams of video to both, "memory"
adds streams of cuts, and "all" adds all streams. Small pictures are in every set unless --no-small is given. A set's
best static point is chosen on the training traces, where all points of the set play in one batch. It then plays every
frame of the whole test traces, with the same courses of events for all sets. "device only" is the best whole local net
of the sets without races: the float32 one, and with int8 the better of both.

Without --tune-on the last part of each trace is judged, and points are chosen on the rest, as tidesplit train does.
--rules adds the look-up and the MPC, tuned for each set, or only those that it names. --bound adds the clairvoyant,
--bundle a policy with all points. Of every controller, `chosen` in the JSON has the share of frames by point, and by
kind of point.
--sets names the sets to play. --world granted is the world in which a message that finds the link idle waits for a
grant of the uplink; a JSON file of numbers makes another one. It prints a table and writes JSON (--json). Everything is
simulated, and watts are estimated.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from tidesplit.agents import bundle as bundles
from tidesplit.agents.judging import contest
from tidesplit.agents.judging.evaluation import Entrant, Row, mean_row
from tidesplit.agents.judging.ladder import POLICY, Tuning, WithoutProbes, tuned_rules
from tidesplit.agents.rules.controllers import Static
from tidesplit.benchmarks.results import write_json
from tidesplit.compression.codec.knobs import INT8, device_id
from tidesplit.envs.simulation.scenario import machines_of, scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.simulation.worlds import world_of
from tidesplit.envs.traces.held_out import held_out, shortened
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.envs.world.physics import WorldError
from tidesplit.envs.world.vocabulary import Demand, Ints
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import DeviceTable, OperatingPoint, Profile
from tidesplit.profiling.points.table import PointTable
from tidesplit.profiling.points.tiers import points_of

STATICS, RULES = ("best static point", "device only"), ("look-up, tuned", "MPC, tuned")
STATIC_TUNING = Tuning(episode_s=60.0)  # as long as the device needs to get hot by its own work
RULE_TUNING = Tuning()
HOLDOUT, LONGEST_HOLDOUT_S = 0.2, 60.0  # as in tidesplit train
NO_BOUND = -1.0


class Choice(NamedTuple):
    """A set of points to choose from."""

    int8: bool
    races: bool
    video: bool = False
    memory: bool = False


SETS = {
    "neither": Choice(int8=False, races=False),
    "int8": Choice(int8=True, races=False),
    "races": Choice(int8=False, races=True),
    "int8 and races": Choice(int8=True, races=True),
    "video": Choice(int8=True, races=True, video=True),
    "memory": Choice(int8=True, races=True, memory=True),
    "all": Choice(int8=True, races=True, video=True, memory=True),
}


def offered(profile: Profile, choice: Choice, small: bool) -> Profile:
    """The profile's points of one set, with or without those that send a picture smaller than the CNN's input.

    Without int8 points, image offload falls back to the float32 net of the same width.
    """
    kept = [p for p in profile.points if _in(p, choice) and (small or p.resolution is None)]
    if choice.int8:
        return replace(profile, points=tuple(kept), chains=None)
    gone = {p.id: device_id(p.channel_ratio) for p in profile.points if p.precision == INT8 and p.codec == "none"}
    fallback = {p.id: gone[p.fallback] for p in kept if p.fallback in gone}
    points = tuple(replace(p, fallback=fallback.get(p.id, p.fallback)) for p in kept)
    devices = {label: _refitted(table, fallback) for label, table in profile.devices.items()}
    return replace(profile, points=points, devices=devices, chains=None)


def _in(point: OperatingPoint, choice: Choice) -> bool:
    streams = point.stream is None or (choice.video if point.partition == 0 else choice.memory)
    return streams and (choice.int8 or point.precision != INT8)


def _refitted(table: DeviceTable, fallback: Mapping[str, str]) -> DeviceTable:
    """The table in which each of these points finishes with the whole run of its fallback."""
    timings = dict(table.timings)
    for point, net in fallback.items():
        timings[point] = replace(timings[point], finish_s=timings[net].head_s)
    return replace(table, timings=timings)


def scenario_of(options: argparse.Namespace, profile: Profile, choice: Choice, traces: Sequence[Trace]) -> Scenario:
    """These traces, and the points of one set."""
    known = offered(profile, choice, options.small)
    asked = scenario_from(
        trace=traces,
        profile=known,
        device=options.device,
        fps=options.fps,
        deadline_ms=options.deadline_ms,
        world=world_of(options.world),
    )
    return replace(asked, table=points_of(known, machines_of(2, options.device), choice.races))


def entrants_of(tune_on: Scenario, names: Sequence[str]) -> dict[str, Entrant]:
    """The rules of these names, tuned; runs in a process of its own."""
    static = tuned_rules(tune_on, STATIC_TUNING, [name for name in names if name in STATICS])
    further = [name for name in names if name in RULES]
    return static | (tuned_rules(tune_on, RULE_TUNING, further) if further else {})


def point_of(entrant: Entrant, scenario: Scenario) -> str:
    """Identifier of the point that a static rule always uses; empty for other rules."""
    static = entrant.controller if isinstance(entrant, WithoutProbes) else entrant
    return scenario.table.ids[static.row] if isinstance(static, Static) else ""


def record_of(rows: Sequence[Row], seeds: int) -> dict[str, Any]:
    """Means over traces and seeds, and the utility by trace and by seed. ``rows``: one seed after the other."""
    by_trace: dict[str, list[float]] = {}
    for row in rows:
        by_trace.setdefault(row.trace, []).append(row.utility)
    means = {key: value for key, value in mean_row(rows).items() if key not in ("regret_pct", "decision_us")}
    by_seed = np.reshape([row.utility for row in rows], (seeds, -1)).mean(axis=1)
    return {**means, "by_trace": {t: float(np.mean(u)) for t, u in by_trace.items()}, "by_seed": by_seed.tolist()}


def played(options: argparse.Namespace, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """One record for each set and controller, and the clairvoyant's mean utility by set."""
    profile = profiles.load(options.profile)
    judge_on = load_all(options.trace, options.seconds)
    tune_on = load_all(options.tune_on, np.inf)
    if not tune_on:
        tune_on, judge_on = held_out(judge_on, HOLDOUT, LONGEST_HOLDOUT_S)
    sets = {name: choice for name, choice in SETS.items() if has_points(profile, choice)}
    sets = {name: choice for name, choice in sets.items() if not options.sets or name in options.sets}
    if gone := [name for name in options.sets or SETS if name not in sets]:
        print(
            f"Profile {profile.name} lacks points of these sets, which are left out: {', '.join(gone)}.",
            file=sys.stderr,
        )
    judged = {name: scenario_of(options, profile, choice, judge_on) for name, choice in sets.items()}
    names = {name: [*STATICS[: 1 if sets[name].races else 2], *rules_of(options)] for name in sets}
    tuning = {
        name: pool.submit(entrants_of, scenario_of(options, profile, choice, tune_on), names[name])
        for name, choice in sets.items()
    }
    seeds, rows, bounds = range(options.seeds), [], {}
    bounding = {
        name: [contest.submit_bounds(pool, scenario, seed) for seed in seeds]
        for name, scenario in judged.items()
        if options.bound
    }
    for name, scenario in judged.items():
        entrants = tuning[name].result()
        if options.bundle and name == list(sets)[-1]:
            entrants[POLICY] = bundles.load(options.bundle).policy
        results = contest.contest(entrants, scenario, [[NO_BOUND] * len(judge_on)] * options.seeds, seeds, pool=pool)
        for controller, entrant in entrants.items():
            of = [row for result in results for row in result.rows if row.controller == controller]
            facts = {"points": name, "offered": scenario.table.size, "controller": controller}
            histories = [h for result in results for h in result.records[controller].values()]
            chosen = chosen_by(scenario.table, np.concatenate([h.points for h in histories]))
            rows.append(
                {**facts, "point": point_of(entrant, scenario), **record_of(of, options.seeds), "chosen": chosen}
            )
        print(f"{name}: played", file=sys.stderr)
    for name, futures in bounding.items():
        bounds[name] = float(np.mean([future.result() for of in futures for future in of]))
    recipe = {
        key: getattr(options, key) for key in ("profile", "device", "world", "small", "seeds", "trace", "tune_on")
    }
    demand = asdict(Demand(fps=options.fps, deadline_s=options.deadline_ms / 1e3))
    return {"kind": "simulated", "demand": demand, **recipe, "bounds": bounds, "rows": rows}


def rules_of(options: argparse.Namespace) -> Sequence[str]:
    """The rules that are asked for. All of them where --rules has no name."""
    return () if options.rules is None else options.rules or RULES


def load_all(specs: Sequence[str], longest_s: float) -> list[Trace]:
    """The traces of these files, folders or bundled names; of each the first ``longest_s`` seconds."""
    return [shortened(trace, longest_s) for spec in specs for trace in load_traces(spec)]


def has_points(profile: Profile, choice: Choice) -> bool:
    """True where the profile has points of every kind that belongs to a set."""
    points = profile.points
    video, memory = (
        any(p.stream is not None and (p.partition == 0) == first for p in points) for first in (True, False)
    )
    int8 = any(point.precision == INT8 for point in points)
    return (int8 or not choice.int8) and (video or not choice.video) and (memory or not choice.memory)


def chosen_by(table: PointTable, rows: Ints) -> dict[str, dict[str, float]]:
    """Share of the frames by kind of point, and by point for those of a hundredth or more."""
    shares = np.bincount(rows, minlength=table.size) / len(rows)
    streams = table.streams.of >= 0
    kind = np.where(streams, np.where(table.light, "video", "memory"), np.where(table.light, "picture", "cut"))
    kind = np.where(table.local, "device", np.char.add(kind, np.where(table.races, ", race", "")))
    kinds = {name: float(shares[kind == name].sum()) for name in np.unique(kind[shares > 0.0]).tolist()}
    return {"kinds": kinds, "points": {table.ids[row]: float(shares[row]) for row in np.flatnonzero(shares >= 0.01)}}


def table_of_choices(found: Mapping[str, Any]) -> Table:
    """One line for each set and controller. With up to three test traces, each has its own column."""
    demand, traces = found["demand"], list(found["rows"][0]["by_trace"])
    asked = f"{found['device']}, {demand['fps']:g} fps, {1e3 * demand['deadline_s']:g} ms, world {found['world']}"
    table = Table(title=f"{asked}: {len(traces)} traces, {found['seeds']} seeds; simulated")
    shown = traces if 1 < len(traces) <= 3 else []
    numbers = ("utility", *shown, "miss %", "right %", "watts", "radio", "hottest °C", "GB a month")
    for heading in ("points", "controller", "point", *numbers):
        table.add_column(heading, justify="right" if heading in numbers else "left")
    for name in dict.fromkeys(row["points"] for row in found["rows"]):
        for row in (r for r in found["rows"] if r["points"] == name):
            table.add_row(
                f"{name} ({row['offered']})",
                row["controller"],
                row["point"],
                f"{row['utility']:.4f}",
                *(f"{row['by_trace'][trace]:.4f}" for trace in shown),
                f"{100 * row['miss_rate']:.2f}",
                f"{100 * row['accuracy']:.2f}",
                f"{row['watts']:.2f}",
                f"{row['radio_watts']:.2f}",
                f"{row['hottest_c']:.0f}",
                f"{row['gb_per_month']:.1f}",
            )
        if name in found["bounds"]:
            table.add_row(f"{name} ({row['offered']})", "clairvoyant bound", "", f"{found['bounds'][name]:.4f}")
        table.add_section()
    return table


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", nargs="+", required=True, help="test traces: files, folders or bundled names")
    parser.add_argument("--tune-on", nargs="+", default=[], help="training traces, on which points are chosen")
    parser.add_argument("--profile", default="efficientnet_lite0")
    parser.add_argument("--device", default="raspberry-pi-4", help="machine of the profile (default: %(default)s)")
    parser.add_argument("--fps", type=float, default=30.0, help="frames a second (default: %(default)g)")
    parser.add_argument("--deadline-ms", type=float, default=100.0, help="deadline (default: %(default)g)")
    parser.add_argument("--seeds", type=int, default=4, help="courses of events of each trace (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=np.inf, help="longest part of a test trace (default: all)")
    parser.add_argument(
        "--world",
        default="as-traced",
        metavar="W",
        help="granted: idle links wait for a grant; or a JSON file of numbers",
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[], help="sets of points to play (default: all)")
    parser.add_argument("--no-small", dest="small", action="store_false", help="leave out small pictures")
    parser.add_argument("--rules", nargs="*", choices=RULES, help="play the tuned look-up and MPC too, or one of them")
    parser.add_argument("--bundle", type=Path, help="folder that tidesplit train wrote: play its policy too")
    parser.add_argument("--bound", action="store_true", help="add the clairvoyant bound of each set")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Play all sets, print the table, write JSON."""
    parser = arguments()
    options = parser.parse_args(argv)
    try:
        world_of(options.world)
    except WorldError as error:
        parser.error(str(error))
    contest.stop_on_sigterm()
    begun = time.perf_counter()
    with contest.workers() as pool:
        found = played(options, pool)
    Console(width=150).print(table_of_choices(found))
    print(f"{time.perf_counter() - begun:.0f} s")
    write_json(options.json, found)


if __name__ == "__main__":
    main()
