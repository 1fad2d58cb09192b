"""Every controller through the real runtime over an emulated link, and the simulator's account of the same.

    python benchmarks/emulated.py --bundle OUT --images DIR --trace T [T ...] [--frames 2000] [--json FILE]

Each run has a server process, a link process that follows the trace, and this process as the device, paced as the
bundle's device. Frames, bytes, answers and fallbacks are real; the computing time that this machine lacks is slept.
The simulator plays the same controller on the same seconds of the trace, in a world where only the request's overhead
varies. It then replays the decisions that the runtime took. Per trace, the two orders of the controllers are compared.
A controller is the policy, a rule, or the identifier of an operating point, which then every frame uses. Rules are
tuned on the bundle's training traces.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tidesplit.agents import bundle as bundles
from tidesplit.agents.judging import ladder
from tidesplit.agents.judging.evaluation import History, play
from tidesplit.agents.judging.ladder import POLICY, RULES, VIDEO
from tidesplit.agents.judging.replay import EMULATED, agreement
from tidesplit.agents.rules.controllers import Static
from tidesplit.benchmarks.processes import linked, served
from tidesplit.benchmarks.results import write_json
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.envs.world.observation import Controller
from tidesplit.envs.world.vocabulary import MISS
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.runtime.camera import source
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine, points_of
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.export import for_bundle
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.log.writer import Log

CONTROLLERS = (POLICY, "best static point", "look-up, tuned", "MPC, tuned")
COLUMNS = ("mean_ms", "p95_ms", "misses", "utility")


def emulate(
    controller: Controller, trace: Trace, loaded: bundles.Bundle, engine: Engine, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], float]:
    """Log of one run in order of frames, and the moment of the trace at which its first frame came, seconds."""
    records: list[Record] = []
    offset: list[float] = []
    with served() as server, linked(trace, server, EMULATED.rtt_s) as (address, clock):

        def started() -> None:
            clock.send(True)
            offset.append(float(clock.recv()))

        pictures = source.ahead(source.folder(options.images, engine.cnn.input_px))
        with GrpcClient(address, engine.cnn) as client, Log([records.append]) as log:
            device = Device(
                controller, loaded.table, loaded.demand, engine, client, log, paced=True, started=started, guarded=False
            )
            device.run(pictures, options.frames)
    return [r.as_json() for r in sorted(records, key=lambda r: r.frame)], offset[0]


def simulate(controller: Controller, trace: Trace, loaded: bundles.Bundle, offset_s: float, frames: int) -> History:
    """The simulator's own run of a controller on the same seconds."""
    scenario = Scenario(traces=(trace,), demands=(loaded.demand,), table=loaded.table, world=EMULATED)
    simulation = Simulation(scenario, [np.random.default_rng(0)], trace_of=np.array([0]))
    simulation.links[0].offset_s[:] = offset_s
    simulation.frames[:] = np.minimum(simulation.frames, frames)
    return play(controller, simulation)[0]


def emulated_row(lines: list[dict[str, Any]], limit_ms: float) -> dict[str, float]:
    """Figures of a run's log. ``right``: share of frames whose answer in time was the picture's class."""
    missed = np.array([line["answered_by"] == "miss" for line in lines])
    ms = np.array([limit_ms if m else line["actual_ms"]["total"] for m, line in zip(missed, lines, strict=True)])
    return {
        "mean_ms": float(ms.mean()),
        "p95_ms": float(np.percentile(ms, 95)),
        "misses": float(missed.mean()),
        "utility": float(np.mean([line["utility"] for line in lines])),
        "right": float(np.mean([line["class"] is not None and line["class"] == line["label"] for line in lines])),
        "bytes": float(np.mean([line["bytes"] for line in lines])),
        "by_device": float(np.mean([line["answered_by"] == "device" for line in lines])),
    }


def simulated_row(played: History) -> dict[str, float]:
    """The same figures of a simulated run, as far as it has them."""
    ms = 1e3 * played.latency_s
    return {
        "mean_ms": float(ms.mean()),
        "p95_ms": float(np.percentile(ms, 95)),
        "misses": float(np.mean(played.answered_by == MISS)),
        "utility": float(played.utility.mean()),
    }


class Order(NamedTuple):
    """Controllers from best to worst utility, emulated and simulated.

    ``tau`` is Kendall's: one means the same order. ``swapped`` lists the pairs in opposite order, each with its
    difference of utility, emulated and simulated.
    """

    emulated: tuple[str, ...]
    simulated: tuple[str, ...]
    tau: float
    swapped: tuple[tuple[str, str, float, float], ...]


def order(utilities: Mapping[str, tuple[float, float]], frames: int) -> Order:
    """Compare the orders by utility, emulated and simulated, of each controller.

    A difference that one answer more or less could make, one in ``frames``, counts as a tie. A tie is no swap.
    """
    real, model = (sorted(utilities, key=lambda name: -utilities[name][side]) for side in (0, 1))
    pairs = [
        (a, b, utilities[a][0] - utilities[b][0], utilities[a][1] - utilities[b][1]) for a, b in combinations(real, 2)
    ]
    signs = [
        0.0 if min(abs(emulated), abs(simulated)) < 1 / frames else np.sign(emulated * simulated)
        for _, _, emulated, simulated in pairs
    ]
    swapped = tuple(pair for pair, sign in zip(pairs, signs, strict=True) if sign < 0)
    return Order(tuple(real), tuple(model), float(np.mean(signs)) if signs else 1.0, swapped)


def tell(trace: str, found: Order) -> None:
    """Print both orders and the swapped pairs."""
    print(f"{trace}: order emulated {' > '.join(found.emulated)}")
    print(f"{trace}: order simulated {' > '.join(found.simulated)}; Kendall's tau {found.tau:.2f}")
    for a, b, emulated, simulated in found.swapped:
        print(f"    swapped: {a} over {b} by {emulated:.3f} emulated, {simulated:.3f} simulated")


def controllers_of(loaded: bundles.Bundle, names: Sequence[str], tune_on: str) -> dict[str, Controller]:
    """The controllers by name.

    Raises:
        ProfileError: a name that is neither the policy, a rule nor an operating point of the bundle.
    """
    rules: Mapping[str, Any] = {}
    if set(names) & {*RULES, VIDEO}:
        scenario = Scenario(traces=tuple(load_traces(tune_on)), demands=(loaded.demand,), table=loaded.table)
        rules = ladder.tuned_rules(scenario, ladder.Tuning())
    found: dict[str, Controller] = {}
    for name in names:
        if name == POLICY:
            found[name] = loaded.policy
        elif name in rules:
            rule = rules[name]
            found[name] = rule.controller if isinstance(rule, ladder.WithoutLink) else rule
        else:
            found[name] = Static(name, loaded.table.row(name))
    return found


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder that tidesplit train wrote")
    parser.add_argument("--images", type=Path, required=True, help="pictures, one folder per class")
    parser.add_argument("--trace", nargs="+", required=True, help="uplink traces, each played from its start")
    parser.add_argument("--tune-on", default="", help="traces that the rules are tuned on (default: the bundle's)")
    parser.add_argument("--controllers", nargs="+", default=list(CONTROLLERS), metavar="NAME", help="see above")
    parser.add_argument("--frames", type=int, default=2000, help="frames of a run")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/emulated.json"), help="file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run every controller on every trace, compare, print."""
    options = arguments().parse_args(argv)
    loaded = bundles.load(options.bundle)
    tune_on = options.tune_on or loaded.manifest["config"]["trace"]
    controllers = controllers_of(loaded, options.controllers, tune_on)
    engine = Engine(for_bundle(options.bundle), points_of(loaded.profile, loaded.table.ids))
    rows: list[dict[str, Any]] = []
    orders: dict[str, dict[str, Any]] = {}
    for trace in [trace for spec in options.trace for trace in load_traces(spec)]:
        utilities = {}
        for name, controller in controllers.items():
            lines, offset_s = emulate(controller, trace, loaded, engine, options)
            real = emulated_row(lines, 1e3 * loaded.demand.deadline_s)
            model = simulated_row(simulate(controller, trace, loaded, offset_s, options.frames))
            same = agreement(lines, trace, loaded.table, loaded.demand, offset_s)
            rows.append(
                {"trace": trace.name, "controller": name, "emulated": real, "simulated": model, "replay": asdict(same)}
            )
            utilities[name] = real["utility"], model["utility"]
            figures = "  ".join(f"{c} {real[c]:.3f} ({model[c]:.3f})" for c in COLUMNS)
            print(f"{trace.name}  {name}: {figures}  right {real['right']:.3f}", flush=True)
            print(f"    replayed decisions: error median {same.median:.1%}, p95 {same.p95:.1%}", flush=True)
        found = order(utilities, options.frames)
        tell(trace.name, found)
        orders[trace.name] = found._asdict()
    facts = {"frames": options.frames, "machine": machine_facts(1), "demand": asdict(loaded.demand)}
    write_json(options.json, {**facts, "orders": orders, "rows": rows})


if __name__ == "__main__":
    main()
