"""Latency and bytes at no more than one point of accuracy lost: PPO beside the baselines of the published headlines.

    python benchmarks/headline.py --traces ../shared/traces [--family lte_us ...] [--profile NAME ...] [--json FILE]

The demand is CNNPC's A0: the quickest answer at or above the uncut net's accuracy less one point, five frames a second,
so that a frame is alone in the pipeline as it is in the papers. For each CNN and each family of uplinks a policy is
trained on TRACES/train/FAMILY and played on TRACES/test/FAMILY; the family `steady` is the link of CNNPC's own tables,
20 Mbit/s and 1.66 ms a round trip for ever. Beside it stand

- device only: the whole net at full width on the device (CNNPC's single-device inference), and the quickest one above
  the floor;
- image offload: the image point above the floor that is quickest on the training traces;
- partition only: Neurosurgeon (Kang et al., ASPLOS 2017), which moves the cut with the believed bandwidth and sends the
  float32 feature, or the raw picture, as it is. It is the uncompressed collaborative inference of the headlines.

Latencies are of all frames, one unanswered in a second counted as a second. Everything is simulated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, installed or not

from tidesplit.agents.judging import contest, ladder
from tidesplit.agents.judging.evaluation import Entrant, interval, play, simulation_of
from tidesplit.agents.judging.ladder import Blind
from tidesplit.agents.learning import training
from tidesplit.agents.learning.monitor import Learner
from tidesplit.agents.rules.controllers import Lookup, Static
from tidesplit.envs.simulation.scenario import DEVICE, SERVER, points_of
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.envs.world.vocabulary import MISS, Demand
from tidesplit.models.registry import build
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import Profile
from tidesplit.profiling.points.table import PointTable, table_for

LOST = 0.01  # of accuracy at most
FPS = 5.0
LIMIT_S = 1.0
FLOAT32_BYTES = 4
PPO, WHOLE, SLIM, IMAGE, UNCOMPRESSED = (
    "PPO",
    "device only, full width",
    "device only, quickest",
    "image offload",
    "partition only, float32",
)
STEADY_MBPS, STEADY_RTT_S, STEADY_S = 20.0, 0.00166, 60.0  # CNNPC's link and its constant
CLAIMS = {"CNNPC, up to": {WHOLE: 6.1, UNCOMPRESSED: 4.1}}


class Played(NamedTuple):
    """A controller's means by trace and seed, ``[K]`` each; seconds and bytes."""

    latency_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    sent_bytes: np.ndarray[tuple[int], np.dtype[np.float64]]
    accuracy: np.ndarray[tuple[int], np.dtype[np.float64]]
    misses: np.ndarray[tuple[int], np.dtype[np.float64]]


def uncompressed(profile: Profile, whole: PointTable) -> PointTable:
    """Partitions of the full-width net that send what is alive at the cut as it is: picture bytes or float32.

    Times are those of the measured full-width head and tail of the same cut, without the codec's.
    """
    net = build(profile.name, int(profile.cnn.get("classes", 10)))
    last = whole.row("device-c1.00")
    rows, sizes, heads = [last], [0.0], [float(whole.head_s[last])]
    for partition in range(profile.partitions):
        at = np.flatnonzero((whole.partition == partition) & (whole.channel_ratio == 1.0) & (whole.region_ratio == 1.0))
        row = int(at[np.argmax(whole.bits[at])])
        cut = net.feature_shape(net.cuts[partition - 1], net.input_px) if partition else (3, net.input_px, net.input_px)
        rows.append(row)
        sizes.append(float(np.prod(cut)) * (FLOAT32_BYTES if partition else 1))
        heads.append(profile.devices[DEVICE].timings[whole.ids[row]].head_s)
    table = whole.take(rows)
    return replace(
        table,
        bytes_mean=np.array(sizes),
        bytes_sigma=np.zeros(len(rows)),
        head_s=np.array(heads),
        accuracy=np.full(len(rows), whole.accuracy[last]),
        finish_s=np.full(len(rows), np.inf),
    )


def uplinks(folder: Path, family: str) -> tuple[Trace, ...]:
    """The traces of a family."""
    if family != "steady":
        return tuple(load_traces(folder / family))
    return (Trace("steady", np.zeros(1), STEADY_S, np.full(1, 1e6 * STEADY_MBPS), np.full(1, STEADY_RTT_S)),)


def trained(scenario: Scenario, steps: int, seed: int) -> Entrant:
    """A policy trained on the scenario."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    varied = replace(scenario, trace_spread=1.5)
    recipe = training.Recipe(ppo=training.PpoConfig(steps=steps), seed=seed)
    model = training.new_model(varied, recipe)
    training.learn_by_imitation(model, varied, recipe, lambda *_: None)
    training.learn_by_ppo(model, recipe, None, lambda *_: None)
    return Learner(training.policy_of(model))


def played(entrant: Entrant, scenario: Scenario, seeds: Sequence[int]) -> Played:
    """Play whole traces, the same courses of events for every controller."""
    records = [r for seed in seeds for r in play(entrant, simulation_of(contest.whole_traces(scenario), seed))]
    answered = [np.maximum(np.count_nonzero(r.answered_by != MISS), 1) for r in records]
    return Played(
        np.array([r.latency_s.mean() for r in records]),
        np.array([r.sent_bytes.mean() for r in records]),
        np.array([r.accuracy.sum() / n for r, n in zip(records, answered, strict=True)]),
        np.array([np.mean(r.answered_by == MISS) for r in records]),
    )


def compare(profile: Profile, family: str, traces: Path, steps: int, seeds: Sequence[int]) -> dict[str, Played]:
    """Every controller on one family's test traces, for one CNN; runs in a process of its own."""
    whole = table_for(profile, DEVICE, SERVER)
    floor = float(whole.accuracy[whole.row("device-c1.00")]) - LOST
    demand = Demand(objective="latency", fps=FPS, deadline_s=LIMIT_S, min_accuracy=floor)
    seen, unseen = (uplinks(traces / part, family) for part in ("train", "test"))

    def world(table: PointTable, on: Sequence[Trace] = unseen) -> Scenario:
        return Scenario(traces=tuple(on), demands=(demand,), table=table)

    def only(rows: np.ndarray[Any, np.dtype[np.int64]]) -> PointTable:
        return whole.take(rows[whole.accuracy[rows] >= floor])

    images, local = only(np.flatnonzero(whole.partition == 0)), only(np.flatnonzero(whole.local))
    worth = ladder.static_utilities(replace(world(images, seen), episode_s=12.0), ladder.Tuning())
    chosen, cuts = points_of(profile, DEVICE, SERVER), uncompressed(profile, whole)
    full, first = whole.take([whole.row("device-c1.00")]), Blind(Static("", 0))
    return {
        PPO: played(trained(world(chosen, seen), steps, seeds[0]), world(chosen), seeds),
        WHOLE: played(first, world(full), seeds),
        SLIM: played(Blind(Static("", int(np.argmin(local.head_s)))), world(local), seeds),
        IMAGE: played(Blind(Static("", int(np.argmax(worth)))), world(images), seeds),
        UNCOMPRESSED: played(Blind(Lookup(name="", quickest=True)), world(cuts), seeds),
    }


def lines(found: dict[str, Played], rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Means, and how many times as long and as many bytes a baseline takes as PPO, with the interval over traces."""
    ours, out = found[PPO], {}
    for name, of in found.items():
        faster = of.latency_s / ours.latency_s
        out[name] = {
            "latency_ms": float(of.latency_s.mean()) * 1e3,
            "accuracy": float(of.accuracy.mean()),
            "bytes": float(of.sent_bytes.mean()),
            "misses": float(of.misses.mean()),
            "times_as_slow": float(of.latency_s.mean() / ours.latency_s.mean()),
            "times_as_slow_by_trace": [float(np.mean(faster)), *interval(faster, rng)],
            "at_most_times_as_slow": float(faster.max()),
            "times_the_bytes": float(of.sent_bytes.mean() / max(ours.sent_bytes.mean(), 1.0)),
            "n": len(faster),
        }
    return out


def shown(results: list[dict[str, Any]]) -> Table:
    """One row a CNN, family and controller."""
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


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, required=True, help="folder with train/FAMILY and test/FAMILY")
    parser.add_argument("--family", nargs="+", default=["lte_us", "5g_drive", "steady"])
    parser.add_argument("--profile", nargs="+", default=["efficientnet_lite0"])
    parser.add_argument("--steps", type=int, default=200_000, help="PPO steps (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="courses of events a trace (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
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
    if options.json:
        demand = asdict(Demand(objective="latency", fps=FPS, deadline_s=LIMIT_S)) | {"accuracy_lost_at_most": LOST}
        document = {"kind": "simulated", "demand": demand, "claims": CLAIMS, "seeds": options.seeds, "results": results}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
