"""Latency and bytes at one point of accuracy lost: PPO and the baselines that published systems compare with.

    python benchmarks/headline.py --traces ../shared/traces [--family lte_us ...] [--profile NAME ...] [--json FILE]

The demand is CNNPC's A0: the fastest answer at or above the uncut net's accuracy less one point. At five frames a
second a frame has the pipeline for itself, as in the papers. For each CNN and each family of uplinks a policy is
trained on TRACES/train/FAMILY and played on TRACES/test/FAMILY. The family `steady` is the link of CNNPC's own tables:
constant 20 Mbit/s and a round trip of 1.66 ms. The baselines:

- device only: the whole net at full width on the device (CNNPC's single-device inference), and the fastest net on the
  device above the floor;
- image offload: the image point above the floor that is fastest on the training traces;
- partition only: Neurosurgeon (Kang et al., ASPLOS 2017). It moves the cut with the believed bandwidth and sends the
  float32 feature or the raw picture as it is. The headlines call this uncompressed collaborative inference.

Latencies are means over all frames; a frame without an answer counts one second. Everything is simulated.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from tidesplit.agents.judging import contest, ladder
from tidesplit.agents.judging.evaluation import Entrant, interval, play, simulation_of
from tidesplit.agents.judging.ladder import POLICY
from tidesplit.agents.learning.monitor import Learner
from tidesplit.agents.rules.controllers import Lookup, Static
from tidesplit.benchmarks.learned import trained
from tidesplit.benchmarks.results import write_json
from tidesplit.envs.simulation.scenario import DEVICE, SERVER
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.envs.world.vocabulary import MISS, Bools, Demand, Floats
from tidesplit.models.registry import build
from tidesplit.models.slim_net import SlimNet
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import Profile
from tidesplit.profiling.points.table import PointTable, table_for
from tidesplit.profiling.points.tiers import points_of

LOST = 0.01  # of accuracy at most
FPS = 5.0
LIMIT_S = 1.0
FLOAT32_BYTES = 4
FULL = "device-c1.00"  # the uncut net at full width
WHOLE, SLIM, IMAGE, UNCOMPRESSED = (
    "device only, full width",
    "device only, quickest",
    "image offload",
    "partition only, float32",
)
STEADY_MBPS, STEADY_RTT_S, STEADY_S = 20.0, 0.00166, 60.0  # CNNPC's link; any length serves
CLAIMS = {"CNNPC, up to": {WHOLE: 6.1, UNCOMPRESSED: 4.1}}


class Played(NamedTuple):
    """Means of one controller by trace and seed, ``[K]`` each. Accuracy is of answered frames, misses are a share."""

    latency_s: Floats
    sent_bytes: Floats
    accuracy: Floats
    misses: Floats


def uncompressed(profile: Profile, whole: PointTable) -> PointTable:
    """The full-width net on the device, and its partitions that send the picture or the float32 feature as it is.

    A partition's times are those of the measured full-width head and tail at its cut, without the codec's.
    """
    net = build(profile.name, int(profile.cnn.get("classes", 10)))
    last, uplink = whole.row(FULL), whole.hops[0]
    rows, sizes, heads = [last], [0.0], [float(whole.head_s[last])]
    for partition in range(profile.partitions):
        at = np.flatnonzero(
            (uplink.partition == partition) & (uplink.channel_ratio == 1.0) & (uplink.region_ratio == 1.0)
        )
        row = int(at[np.argmax(uplink.bits[at])])
        rows.append(row)
        sizes.append(crossing_bytes(net, partition))
        heads.append(profile.devices[DEVICE].timings[whole.ids[row]].head_s)
    taken = whole.take(rows)
    return replace(
        taken,
        hops=(replace(taken.hops[0], bytes_mean=np.array(sizes), bytes_sigma=np.zeros(len(rows))),),
        head_s=np.array(heads),
        accuracy=np.full(len(rows), whole.accuracy[last]),
        finish_s=np.full(len(rows), np.inf),
    )


def crossing_bytes(net: SlimNet, partition: int) -> float:
    """Bytes at a cut: one per value of the picture (partition 0), four per value of a feature."""
    if partition == 0:
        return 3.0 * net.input_px**2
    return FLOAT32_BYTES * float(np.prod(net.shape(partition)))


def uplinks(folder: Path, family: str) -> tuple[Trace, ...]:
    """Traces of a family."""
    if family != "steady":
        return tuple(load_traces(folder / family))
    return (Trace("steady", np.zeros(1), STEADY_S, np.full(1, 1e6 * STEADY_MBPS), np.full(1, STEADY_RTT_S)),)


def played(entrant: Entrant, scenario: Scenario, seeds: Sequence[int]) -> Played:
    """Play whole traces, with the same courses of events for every controller."""
    records = [r for seed in seeds for r in play(entrant, simulation_of(contest.whole_traces(scenario), seed))]
    answered = [max(np.count_nonzero(r.answered_by != MISS), 1) for r in records]
    return Played(
        np.array([r.latency_s.mean() for r in records]),
        np.array([r.sent_bytes.mean() for r in records]),
        np.array([r.accuracy.sum() / n for r, n in zip(records, answered, strict=True)]),
        np.array([np.mean(r.answered_by == MISS) for r in records]),
    )


def compare(profile: Profile, family: str, traces: Path, steps: int, seeds: Sequence[int]) -> dict[str, Played]:
    """Every controller on one family's test traces, for one CNN; runs in a process of its own."""
    whole = table_for(profile, DEVICE, SERVER)
    full = whole.row(FULL)
    floor = float(whole.accuracy[full]) - LOST
    demand = Demand(objective="latency", fps=FPS, deadline_s=LIMIT_S, min_accuracy=floor)
    seen, unseen = (uplinks(traces / part, family) for part in ("train", "test"))

    def world(table: PointTable, on: Sequence[Trace] = unseen) -> Scenario:
        return Scenario(traces=tuple(on), demands=(demand,), table=table)

    def good(among: Bools) -> PointTable:
        return whole.take(np.flatnonzero(among & (whole.accuracy >= floor)))

    def always(row: int) -> Entrant:
        return Static("", row)

    images, local, chosen = good(whole.hops[0].partition == 0), good(whole.local), points_of(profile, (DEVICE, SERVER))
    worth = ladder.static_utilities(replace(world(images, seen), episode_s=12.0), ladder.Tuning())
    entrants: dict[str, tuple[Entrant, PointTable]] = {
        POLICY: (Learner(trained(world(chosen, seen), profile.name, steps, seeds[0])), chosen),
        WHOLE: (always(0), whole.take([full])),
        SLIM: (always(int(np.argmin(local.head_s))), local),
        IMAGE: (always(int(np.argmax(worth))), images),
        UNCOMPRESSED: (Lookup(name="", quickest=True), uncompressed(profile, whole)),
    }
    return {name: played(entrant, world(table), seeds) for name, (entrant, table) in entrants.items()}


def lines(found: Mapping[str, Played], rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Means of each controller, and its latency and bytes as multiples of PPO's, with the interval over traces."""
    ours, out = found[POLICY], {}
    for name, of in found.items():
        multiples = of.latency_s / ours.latency_s
        out[name] = {
            "latency_ms": float(of.latency_s.mean()) * 1e3,
            "accuracy": float(of.accuracy.mean()),
            "bytes": float(of.sent_bytes.mean()),
            "misses": float(of.misses.mean()),
            "times_as_slow": float(of.latency_s.mean() / ours.latency_s.mean()),
            "times_as_slow_by_trace": [float(np.mean(multiples)), *interval(multiples, rng)],
            "at_most_times_as_slow": float(multiples.max()),
            "times_the_bytes": float(of.sent_bytes.mean() / max(ours.sent_bytes.mean(), 1.0)),
            "n": len(multiples),
        }
    return out


def shown(results: Sequence[Mapping[str, Any]]) -> Table:
    """One row per CNN, family and controller."""
    table = Table(title="simulated; at most 1 point of accuracy below the uncut net")
    headings = ("CNN", "uplinks", "controller", "mean ms", "accuracy", "bytes", "PPO is faster by", "at most", "bytes")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in headings[:3] else "right", no_wrap=True)
    for result in results:
        for name, row in result["controllers"].items():
            mean, low, high = row["times_as_slow_by_trace"]
            table.add_row(
                result["profile"],
                result["family"],
                name,
                f"{row['latency_ms']:.1f}",
                f"{row['accuracy']:.4f}",
                f"{row['bytes']:.0f}",
                f"{row['times_as_slow']:.2f}x (by trace {mean:.2f} [{low:.2f}, {high:.2f}])",
                f"{row['at_most_times_as_slow']:.1f}x",
                f"{row['times_the_bytes']:.1f}x",
            )
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Train, play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, required=True, help="folder with train/FAMILY and test/FAMILY")
    parser.add_argument("--family", nargs="+", default=["lte_us", "5g_drive", "steady"])
    parser.add_argument("--profile", nargs="+", default=["efficientnet_lite0"])
    parser.add_argument("--steps", type=int, default=200_000, help="PPO steps (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="courses of events a trace (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(argv)
    contest.stop_on_sigterm()
    asked = [(profiles.load(p), f) for p in options.profile for f in options.family]
    with contest.workers() as pool:
        seeds = range(options.seeds)
        runs = [pool.submit(compare, p, f, options.traces, options.steps, seeds) for p, f in asked]
        results = [
            {"profile": p.name, "family": f, "controllers": lines(run.result(), np.random.default_rng(0))}
            for (p, f), run in zip(asked, runs, strict=True)
        ]
    Console(width=170).print(shown(results))
    demand = asdict(Demand(objective="latency", fps=FPS, deadline_s=LIMIT_S)) | {"accuracy_lost_at_most": LOST}
    document = {"kind": "simulated", "demand": demand, "claims": CLAIMS, "seeds": options.seeds, "results": results}
    write_json(options.json, document)


if __name__ == "__main__":
    main()
