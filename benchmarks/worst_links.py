"""Look for the links on which a policy is furthest below the best rule.

    python benchmarks/worst_links.py --bundle OUT --tune-on TRAIN [TRAIN ...] --family NAME=TRACES --json FILE

Links are drawn from the trace generator: its rates, their spread, gaps, memories, outages, and a round trip. A search
keeps the worst and changes them, again and again (an evolution strategy). What it finds is judged on fresh draws of the
same links. A controller's worth is its utility less its cost, at the prices at which the best mixture of points meets
the budgets. The rules, tuned on TRAIN, meet the same links and events. All of them also play links drawn at random, and
minutes of the families. Everything is simulated.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tidesplit.agents import bundle as bundles
from tidesplit.agents.judging import budgeted, ladder, tuning_cache
from tidesplit.agents.judging.budgeted import MIXTURE, THRESHOLD
from tidesplit.agents.judging.evaluation import Entrant, controller_of, simulation_of
from tidesplit.agents.judging.ladder import POLICY, Tuning
from tidesplit.benchmarks.asked_budgets import add_budgets, with_budgets
from tidesplit.benchmarks.headroom import family
from tidesplit.benchmarks.results import write_json
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.model import LinkModel, generate
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.envs.world.vocabulary import Floats

RULES = ("best static point", MIXTURE, THRESHOLD)
TUNING = Tuning()
STEP_S, SHAPE = 0.1, (-1.6, -1.1, -0.45, 0.0, 0.4, 1.1, 1.6, 2.0)
"""Bin of the traces, and where on the logarithmic scale of the spread the quantiles of a link's rates lie."""
PARTS, JUDGED_PARTS = 2, 4  # traces of each link, which differ in their seed: in the search, and afterwards
FRESH = 99  # seed of what is judged
FIRST_WIDTH, NARROWER = 0.25, 0.7  # of a change, as a share of each range; and what it is multiplied by each round
MOST_MINUTES = 24


@dataclass(frozen=True)
class Gene:
    """A number that the search changes, from ``low`` to ``high``, on a logarithmic scale if ``log``."""

    low: float
    high: float
    log: bool = False

    def at(self, share: float) -> float:
        """The value at a share of the way, 0 to 1."""
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + share * (self.high - self.low)


GENES = {
    "median_mbps": Gene(0.05, 20.0, log=True),
    "spread": Gene(0.0, 1.5),
    "empty_share": Gene(0.0, 0.4),
    "memory_s": Gene(0.2, 30.0, log=True),
    "lasting": Gene(0.0, 1.0),
    "outages_per_hour": Gene(0.0, 240.0),
    "outage_s": Gene(2.0, 15.0, log=True),
    "rtt_ms": Gene(20.0, 250.0, log=True),
}
"""``lasting``: share of the latent variance that has the memory; the rest has none."""


def values_of(genome: Floats) -> dict[str, float]:
    """The numbers of a link."""
    return {name: gene.at(float(share)) for (name, gene), share in zip(GENES.items(), genome, strict=True)}


def trace_of(genome: Floats, seconds: float, seed: int) -> Trace:
    """A trace of the link."""
    of = values_of(genome)
    quantiles = 1e6 * of["median_mbps"] * np.exp(of["spread"] * np.array(SHAPE))
    model = LinkModel(
        name="searched",
        source="searched",
        step_s=STEP_S,
        quantiles_bps=tuple(quantiles),
        empty_share=of["empty_share"],
        memory_s=(of["memory_s"],),
        weights=(of["lasting"], 1.0 - of["lasting"]),
        outages_per_hour=of["outages_per_hour"],
        outage_mean_s=of["outage_s"],
    )
    drawn = generate(model, seconds, np.random.default_rng(seed))
    return replace(drawn, rtt_s=np.full(len(drawn.time_s), of["rtt_ms"] / 1e3))


@dataclass(frozen=True)
class Arena:
    """The demand at fixed prices, and how long each link is played."""

    scenario: Scenario
    seconds: float

    def drawn(self, genomes: Sequence[Floats], seed: int, parts: int = PARTS) -> list[Trace]:
        """Traces of these links, so many parts of each one after the other."""
        return [trace_of(one, self.seconds, 1000 * seed + part) for one in genomes for part in range(parts)]

    def worths(self, entrant: Entrant, traces: Sequence[Trace], seed: int) -> Floats:
        """Utility less cost of an entrant on each trace, ``[traces]``."""
        simulation = simulation_of(replace(self.scenario, traces=tuple(traces)), seed)
        controller = controller_of(entrant, simulation)
        total, frames = np.zeros(simulation.lanes), int(simulation.frames.max())
        for _ in range(frames):
            outcome, _ = simulation.step(controller.predict(simulation.observation()))
            total += outcome.utility - outcome.cost
        return np.asarray(total / frames)


def gaps(arena: Arena, policy: Entrant, rules: Mapping[str, Entrant], genomes: Sequence[Floats], seed: int) -> Floats:
    """By how much the best rule is ahead of the policy on each link, ``[links]``. Below 0 the policy is ahead."""
    traces = arena.drawn(genomes, seed)
    theirs, ours = (
        np.array([arena.worths(one, traces, seed).reshape(len(genomes), -1).mean(axis=1) for one in of])
        for of in (rules.values(), [policy])
    )
    return np.asarray(theirs.max(axis=0) - ours[0])


def search(
    arena: Arena, policy: Entrant, rules: Mapping[str, Entrant], options: argparse.Namespace
) -> tuple[list[Floats], list[Floats]]:
    """The worst links, worst first, and all of the first round, which are drawn at random."""
    rng = np.random.default_rng(options.seed)
    pool = [rng.random(len(GENES)) for _ in range(options.links)]
    at_random, found = list(pool), list[tuple[float, Floats]]()
    for number in range(options.rounds):
        found += zip(gaps(arena, policy, rules, pool, number).tolist(), pool, strict=True)
        found.sort(key=lambda pair: -pair[0])
        print(f"round {number + 1} of {options.rounds}: worst {found[0][0]:.3f}", file=sys.stderr)
        parents = [genome for _, genome in found[: options.parents]]
        width = FIRST_WIDTH * NARROWER**number
        pool = [
            np.clip(parents[i % len(parents)] + width * rng.standard_normal(len(GENES)), 0.0, 1.0)
            for i in range(options.links)
        ]
    return [genome for _, genome in found[: options.parents]], at_random


def minutes_of(spec: str) -> list[Trace]:
    """The minutes of some traces, at most `MOST_MINUTES` of them, evenly chosen. Shorter traces are whole."""
    traces = load_traces(spec)
    cut = [t.slice(60.0 * m, 60.0 * (m + 1)) for t in traces for m in range(int(t.duration_s // 60))]
    cut += [t for t in traces if t.duration_s < 60.0]
    chosen = np.unique(np.linspace(0, len(cut) - 1, min(MOST_MINUTES, len(cut))).round().astype(int))
    return [cut[i] for i in chosen]


def row_of(
    name: str,
    arena: Arena,
    entrants: Mapping[str, Entrant],
    traces: Sequence[Trace],
    links: Sequence[Floats],
    seed: int,
) -> dict[str, Any]:
    """Worths on some traces, by controller; with ``links`` the mean of the parts of each."""
    count = len(links) or len(traces)
    worths = {key: arena.worths(one, traces, seed).reshape(count, -1).mean(axis=1) for key, one in entrants.items()}
    best = np.max([worths[rule] for rule in RULES], axis=0)
    return {
        "traces": name,
        "n": len(traces),
        "links": [values_of(one) for one in links],
        "worth": {key: of.tolist() for key, of in worths.items()},
        "gap": (best - worths[POLICY]).tolist(),
    }


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder that tidesplit train wrote")
    parser.add_argument("--tune-on", nargs="+", required=True, help="training traces: files, folders, bundled names")
    parser.add_argument("--family", nargs="*", type=family, default=[], help="further traces, each NAME=TRACES")
    add_budgets(parser)
    parser.add_argument("--links", type=int, default=48, help="links of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of the search (default: %(default)s)")
    parser.add_argument("--parents", type=int, default=8, help="links kept from round to round (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each link (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each set of traces."""
    table = Table(title="Utility less cost, and how far below the best rule of each link; simulated")
    for heading in ("traces", "n", *RULES, POLICY, "gap: mean, worst"):
        table.add_column(heading)
    for row in rows:
        worths = [f"{np.mean(row['worth'][name]):.3f}" for name in (*RULES, POLICY)]
        span = f"{np.mean(row['gap']):.3f}, {np.max(row['gap']):.3f}"
        table.add_row(row["traces"], str(row["n"]), *worths, span)
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Search, judge, print the table, write JSON."""
    options = arguments().parse_args(argv)
    begun = time.perf_counter()
    one = bundles.load(options.bundle)
    demand = with_budgets(one.demand, options)
    world = one.world.under(demand)
    tune_on = tuple(trace for spec in options.tune_on for trace in load_traces(spec))
    tuned_in = Scenario(traces=tune_on, demands=(demand,), table=one.table, world=world)
    prices = ladder.mixture_prices(tuned_in, TUNING)
    arena = Arena(replace(budgeted.at_prices(tuned_in, prices), episode_s=None), options.seconds)
    rules = {
        name: rule.entrant if isinstance(rule, budgeted.Budgeted) else rule
        for name, rule in tuning_cache.cached_rules(tuned_in, TUNING, RULES).items()
    }
    everyone: dict[str, Entrant] = {**rules, POLICY: one.policy}
    worst, at_random = search(arena, one.policy, rules, options)
    rows = []
    for title, links in {"worst links": worst, "links at random": at_random}.items():
        traces = arena.drawn(links, FRESH, JUDGED_PARTS)
        rows.append(row_of(title, arena, everyone, traces, links, FRESH))
    for title, spec in options.family:
        rows.append(row_of(title, arena, everyone, minutes_of(spec), [], FRESH))
    Console(width=170).print(table_of(rows))
    print(f"{time.perf_counter() - begun:.0f} s")
    price = {"joule": float(prices.joule[0]), "byte": float(prices.byte[0])}
    write_json(options.json, {"kind": "simulated", "demand": asdict(demand), "prices": price, "rows": rows})


if __name__ == "__main__":
    main()
