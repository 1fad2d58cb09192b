"""Where is something left to decide? A map over devices, budgets, link families and frame rates.

    python benchmarks/headroom.py --tune-on TRAIN [TRAIN ...] --family NAME=FOLDER [NAME=FOLDER ...] --json FILE

Each cell has the best rule that needs no training (best static point, best mixture of points, threshold rule, look-up),
all tuned on the training traces at the cell's own budgets, and one who sees five frames ahead. The headroom is the
utility between the two. With --bundle it has the policy too, which is the same file in every cell. With --specialists
policies are trained for each cell on the training traces, one for each seed. Controllers whose budgets are overspent by
more than 2 % are listed, and never the best rule.

Cells whose budgets no choice of points can meet are left out, and said. With --resume rows of FILE are not made again.
It does not see that a bundle or the code has changed.

A budget of energy is given as the share of the watts, above those of an idle device, that the best static point needs.
Everything is simulated, and watts are estimated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from tidesplit.agents import bundle as bundles
from tidesplit.agents.judging import budgeted, contest, ladder
from tidesplit.agents.judging.budgeted import FORESIGHT, MIXTURE, THRESHOLD, Budgeted
from tidesplit.agents.judging.evaluation import Entrant, play, simulation_of
from tidesplit.agents.judging.ladder import POLICY, Tuning
from tidesplit.agents.judging.seer import Foresight
from tidesplit.agents.learning.monitor import Learner
from tidesplit.agents.learning.training import PpoConfig
from tidesplit.benchmarks.learned import trained
from tidesplit.benchmarks.results import write_json
from tidesplit.envs.budget.prices import PriceDraw, Prices
from tidesplit.envs.simulation.scenario import SERVER, scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.envs.world.vocabulary import Demand, gb_per_month
from tidesplit.profiling.points import profile as profiles

DEVICES = ("raspberry-pi-zero-2w", "raspberry-pi-4", "raspberry-pi-5")
PACES = ((30.0, 100.0), (10.0, 150.0))  # frames a second, deadline in milliseconds
BUDGETS = {"none": (None, None), "0.75": (0.75, None), "0.5": (0.5, None), "10GB": (None, 10.0)}
"""Share of the best static point's watts above idle, and GB a month."""
RULES = ("best static point", MIXTURE, THRESHOLD, "look-up, tuned")
TUNING = Tuning(lanes=24)
COUNTS = 0.01  # headroom from which a cell counts
SPECIALIST = "PPO trained for the cell, seed"


class Cell(NamedTuple):
    """A device, a pace, and budgets."""

    device: str
    fps: float
    deadline_ms: float
    share: float | None
    gb_month: float | None


def scenario(cell: Cell, demand: Demand, traces: Sequence[Trace], options: argparse.Namespace) -> Scenario:
    """A demand in the cell's world."""
    machines = {"device": cell.device, "server": options.server}
    return scenario_from(trace=traces, profile=options.profile, demands=[demand], **machines)


def demand_of(cell: Cell, tune_on: Sequence[Trace], options: argparse.Namespace) -> Demand:
    """The cell's demand. The watts of its budget come from the best static point without one, on training traces."""
    free = Demand(fps=cell.fps, deadline_s=cell.deadline_ms / 1e3)
    if cell.share is None:
        return replace(free, max_gb_month=cell.gb_month)
    arena = replace(scenario(cell, free, tune_on, options), episode_s=12.0)
    spent = ladder.means_of(budgeted.statics(arena.table), arena, TUNING)
    idle_w = arena.table.machine.idle_w
    watts = idle_w + cell.share * (spent.joules[spent.utility.argmax()] * cell.fps - idle_w)
    return replace(free, max_watts=round(float(watts), 2), max_gb_month=cell.gb_month)


def played(
    cell: Cell,
    known: Collection[str],
    families: Mapping[str, Sequence[Trace]],
    tune_on: Sequence[Trace],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Rows of one cell, one for each family and controller not ``known`` yet; none where its budgets cannot be met.

    Runs in a process of its own.
    """
    demand = demand_of(cell, tune_on, options)
    tuned_in = scenario(cell, demand, tune_on, options)
    try:
        prices = ladder.mixture_prices(tuned_in, TUNING) if demand.budgeted else None
    except ladder.BudgetError as error:
        print(f"{cell.device}, {cell.fps:g} fps, left out: {error}", file=sys.stderr)
        return []
    names = [name for name in RULES if name not in known and (demand.budgeted or name not in ladder.FOR_BUDGETS)]
    entrants: dict[str, Entrant] = dict(ladder.tuned_rules(tuned_in, TUNING, names))
    if options.bundle and POLICY not in known:
        entrants[POLICY] = settled(bundles.load(options.bundle).policy, tuned_in, prices)
    if FORESIGHT not in known:
        seer = Foresight(FORESIGHT)
        began_at = None if prices is None else (float(prices.joule[0]), float(prices.byte[0]))
        entrants[FORESIGHT] = seer if began_at is None else Budgeted(seer, began_at)
    return rows_of(cell, entrants, tuned_in, families, options)


def specialised(
    cell: Cell,
    seed: int,
    families: Mapping[str, Sequence[Trace]],
    tune_on: Sequence[Trace],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Rows of a policy that is trained for one cell. Runs in a process of its own."""
    demand = demand_of(cell, tune_on, options)
    tuned_in = scenario(cell, demand, tune_on, options)
    try:
        prices = ladder.mixture_prices(tuned_in, TUNING) if demand.budgeted else None
    except ladder.BudgetError:
        return []
    draw = None if prices is None else PriceDraw(prices)
    policy = trained(replace(tuned_in, price_draw=draw), profiles.load(options.profile).name, options.steps, seed)
    entrants = {f"{SPECIALIST} {seed}": settled(Learner(policy), tuned_in, prices)}
    return rows_of(cell, entrants, tuned_in, families, options)


def rows_of(
    cell: Cell,
    entrants: Mapping[str, Entrant],
    tuned_in: Scenario,
    families: Mapping[str, Sequence[Trace]],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """One row for each family and entrant."""
    rows = []
    for family, traces in families.items():
        judged = contest.whole_traces(replace(tuned_in, traces=tuple(traces)))
        for name, entrant in entrants.items():
            row = judged_row(entrant, judged, range(options.seeds))
            facts = {"cell": cell._asdict(), "demand": asdict(tuned_in.demands[0]), "family": family}
            rows.append({**facts, "controller": name, **row})
    return rows


def settled(policy: Entrant, tuned_in: Scenario, prices: Prices | None) -> Entrant:
    """A policy with the prices to which it settles under the cell's budgets on training traces."""
    return policy if prices is None else budgeted.settled(policy, tuned_in, prices, TUNING.lanes, TUNING.seed)


def judged_row(entrant: Entrant, judged: Scenario, seeds: Sequence[int]) -> dict[str, Any]:
    """Means over traces and courses of events, and the utility of each course."""
    records = play(entrant, simulation_of(judged, list(seeds)))
    period_s = judged.demands[0].period_s
    watts = float(np.mean([r.joules.mean() for r in records])) / period_s
    gb = gb_per_month(float(np.mean([r.sent_bytes.mean() for r in records])), period_s)
    utility = np.reshape([r.utility.mean() for r in records], (len(seeds), -1)).mean(axis=1)
    return {
        "utility": float(utility.mean()),
        "by_seed": utility.tolist(),
        "watts": watts,
        "gb_per_month": gb,
        "within": budgeted.within(watts, gb, judged.demands[0]),
    }


class Standing(NamedTuple):
    """A family in a cell: the best rule within the budgets, the headroom, and the share that the policy captures."""

    rule: str
    best: float
    headroom: float
    share: float  # not a number without a policy


def standing(rows: Sequence[Mapping[str, Any]]) -> Standing:
    """The standing of one family in one cell."""
    by_name = {row["controller"]: row for row in rows}
    rules = [row for name, row in by_name.items() if name in RULES and row["within"]]
    best = max(rules, key=lambda row: float(row["utility"]), default=None)
    worth = 0.0 if best is None else float(best["utility"])
    headroom = by_name[FORESIGHT]["utility"] - worth
    ahead = by_name[POLICY]["utility"] - worth if POLICY in by_name else float("nan")
    return Standing("none" if best is None else best["controller"], worth, headroom, ahead / max(headroom, 1e-9))


def cells(options: argparse.Namespace) -> list[Cell]:
    """Every combination that is asked for."""
    every = itertools.product(options.device, options.pace, options.budget)
    return [Cell(device, fps, ms, *BUDGETS[name]) for device, (fps, ms), name in every]


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each cell and family."""
    table = Table(title="Headroom over the best rule; simulated")
    for heading in (
        "device", "fps, ms", "watts", "GB", "links", "best rule", "utility", "foresight", "headroom", "PPO",
        "specialists",
    ):  # fmt: skip
        table.add_column(heading)
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((*row["cell"].values(), row["family"]), []).append(row)
    whole = {key: of for key, of in groups.items() if FORESIGHT in {row["controller"] for row in of}}
    for (device, fps, deadline_ms, _, gb, family), of in whole.items():
        found, watts = standing(of), of[0]["demand"]["max_watts"]
        by_name = {row["controller"]: row for row in of}
        shown = [
            ", ".join(
                f"{row['utility']:.3f}{'' if row['within'] else ' over'}" for row in of if is_one(row["controller"])
            )
            for is_one in (POLICY.__eq__, lambda name: name.startswith(SPECIALIST))
        ]
        table.add_row(
            device.removeprefix("raspberry-"), f"{fps:g}, {deadline_ms:g}", "" if watts is None else f"{watts:g}",
            "" if gb is None else f"{gb:g}", family, found.rule, f"{found.best:.3f}",
            f"{by_name[FORESIGHT]['utility']:.3f}", f"{found.headroom:.3f}", *shown,
            style="" if found.headroom >= COUNTS else "dim",
        )  # fmt: skip
    return table


def family(text: str) -> tuple[str, str]:
    """NAME=FOLDER, in two parts."""
    name, equals, spec = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} received, NAME=FOLDER expected")
    return name, spec


def pace(text: str) -> tuple[float, float]:
    """FPS:MS, in two numbers."""
    try:
        fps, deadline_ms = map(float, text.split(":"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} received, FPS:MS expected, such as 30:100") from error
    return fps, deadline_ms


def some(spec: str, most: int, seconds: float) -> list[Trace]:
    """At most so many traces of a folder, evenly chosen, and of each the first seconds."""
    traces = load_traces(spec)
    chosen = np.unique(np.linspace(0, len(traces) - 1, min(most, len(traces))).round().astype(int))
    return [traces[i].slice(0.0, min(traces[i].duration_s, seconds)) for i in chosen]


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune-on", nargs="+", required=True, help="training traces: files, folders, bundled names")
    parser.add_argument("--family", nargs="+", type=family, required=True, help="test traces, each NAME=FOLDER")
    parser.add_argument("--profile", default="efficientnet_lite0")
    parser.add_argument("--device", nargs="+", default=list(DEVICES), help="machines of the profile")
    parser.add_argument("--server", default=SERVER, help="machine of the profile behind the uplink")
    parser.add_argument(
        "--pace",
        nargs="+",
        type=pace,
        default=list(PACES),
        metavar="FPS:MS",
        help="frames a second, and the deadline (default: 30:100 10:150)",
    )
    parser.add_argument("--budget", nargs="+", choices=BUDGETS, default=list(BUDGETS), help="(default: all)")
    parser.add_argument("--bundle", type=Path, help="folder of a policy that is played in every cell")
    parser.add_argument(
        "--specialists", nargs="*", type=int, default=[], metavar="SEED", help="train a policy for each cell"
    )
    parser.add_argument("--steps", type=int, default=PpoConfig.steps, help="frames of its PPO (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=4, help="courses of events (default: %(default)s)")
    parser.add_argument("--traces", type=int, default=2, help="most traces of a family (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="longest part of a trace (default: %(default)g)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--resume", action="store_true", help="keep the rows of that file")
    return parser


def begun(file: Path, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the file so far.

    Raises:
        SystemExit: they are of another kind of run.
    """
    if not file.exists():
        return []
    document = json.loads(file.read_text(encoding="utf-8"))
    for name, value in facts.items():
        if document.get(name) != value:
            raise SystemExit(f"{file} has rows of other runs: {name} {document.get(name)}, not {value}")
    rows: list[dict[str, Any]] = document["rows"]
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Play all cells, print the map, write JSON."""
    options = arguments().parse_args(argv)
    contest.stop_on_sigterm()
    started = time.perf_counter()
    families = {name: some(spec, options.traces, options.seconds) for name, spec in options.family}
    tune_on = [trace for spec in options.tune_on for trace in some(spec, 40, np.inf)]
    recipe = ("profile", "server", "seeds", "traces", "seconds", "tune_on", "steps")
    facts = {"kind": "simulated", **{key: getattr(options, key) for key in recipe}, "family": dict(options.family)}
    rows = begun(options.json, facts) if options.resume and options.json else []
    known: dict[Cell, set[str]] = {cell: set() for cell in cells(options)}
    for row in rows:
        known.setdefault(Cell(**row["cell"]), set()).add(row["controller"])
    with contest.workers() as pool:
        asked = cells(options)
        futures = [
            pool.submit(specialised, cell, seed, families, tune_on, options)
            for cell, seed in itertools.product(asked, options.specialists)
            if f"{SPECIALIST} {seed}" not in known[cell]
        ]
        every = {FORESIGHT, *([POLICY] if options.bundle else [])}
        futures += [
            pool.submit(played, cell, known[cell], families, tune_on, options)
            for cell in asked
            if not every <= known[cell]
        ]
        for number, future in enumerate(as_completed(futures), start=1):
            rows += future.result()
            rows.sort(key=lambda row: [*map(str, row["cell"].values()), row["family"], row["controller"]])
            write_json(options.json, {**facts, "rows": rows})
            print(f"{number} of {len(futures)} tasks, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    Console(width=150).print(table_of(rows))


if __name__ == "__main__":
    main()
