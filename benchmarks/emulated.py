"""Every controller through the real runtime over an emulated link, beside what the simulator says of it.

    python benchmarks/emulated.py --bundle OUT --images DIR --trace T [T ...] [--frames 2000] [--json FILE]

Per trace and controller: a server process, a link process that follows the trace, and this process as the device,
paced as the bundle's device (emulated: frames, bytes, answers and fallbacks are real, missing computing time is slept).
The simulator plays the same controller on the same seconds of the trace in a world where nothing but the request's
overhead varies, and then the very decisions that the runtime took (replay). Per trace it prints whether both order the
controllers alike.
Controllers are tuned on the bundle's training traces.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import combinations
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, installed or not

from tidesplit.agents import bundle as bundles
from tidesplit.agents.judging import ladder
from tidesplit.agents.judging.evaluation import History as Played
from tidesplit.agents.judging.evaluation import play
from tidesplit.agents.judging.ladder import Blind
from tidesplit.agents.judging.replay import EMULATED, agreement
from tidesplit.agents.rules.controllers import Controller
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.envs.world.vocabulary import MISS
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.runtime.device import source
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.log import Log
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.device.record import Record
from tidesplit.runtime.emulator.proxy import Link
from tidesplit.runtime.export import for_bundle

CONTROLLERS = ("PPO", "device only", "image offload", "partition only", "look-up, tuned", "MPC, tuned")
COLUMNS = ("mean_ms", "p95_ms", "misses", "utility")


@contextmanager
def served() -> Iterator[tuple[str, int]]:
    """A server process; its address."""
    command = [sys.executable, "-m", "tidesplit.runtime.server", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "listening on" in line)
        host, port = line.split("listening on ")[1].split(",")[0].strip().rsplit(":", 1)
        yield host, int(port)
    finally:
        process.terminate()
        process.wait(10)


def link_process(trace: Trace, to: tuple[str, int], rtt_s: float, pipe: Connection) -> None:
    """The emulated link in a process of its own: tells its address, then the time on its clock whenever it is asked."""
    with Link(trace, to=to, rtt_s=rtt_s, rng=np.random.default_rng(0)) as link:
        pipe.send(link.address)
        while pipe.recv():
            pipe.send(link.now_s())


@contextmanager
def linked(trace: Trace, to: tuple[str, int], rtt_s: float) -> Iterator[tuple[str, Connection]]:
    """A link to the server: where to connect, and the pipe to its clock."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=link_process, args=(trace, to, rtt_s, theirs))
    process.start()
    try:
        host, port = ours.recv()
        yield f"{host}:{port}", ours
        ours.send(False)
    finally:
        process.join(5)
        process.kill()


def emulate(
    controller: Controller, trace: Trace, loaded: bundles.Bundle, engine: Engine, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], float]:
    """Log of one run, in order of frames, and where on the trace its first frame was."""
    records: list[Record] = []
    offset: list[float] = []
    with served() as server, linked(trace, server, EMULATED.rtt_s) as (address, clock):

        def started() -> None:
            clock.send(True)
            offset.append(float(clock.recv()))

        pictures = source.ahead(source.folder(options.images, engine.cnn.input_px))
        with GrpcClient(address, engine.cnn) as client, Log([records.append]) as log:
            device = Device(
                controller, loaded.table, loaded.demand, engine, client, log, paced=True, started=started
            )  # fmt: skip
            device.run(pictures, options.frames)
    return [r.as_json() for r in sorted(records, key=lambda r: r.frame)], offset[0]


def simulate(controller: Controller, trace: Trace, loaded: bundles.Bundle, offset_s: float, frames: int) -> Played:
    """The simulator's own run of a controller on the same seconds."""
    scenario = Scenario(traces=(trace,), demands=(loaded.demand,), table=loaded.table, world=EMULATED)
    simulation = Simulation(scenario, [np.random.default_rng(0)], trace_of=np.array([0]))
    simulation.offset_s[:] = offset_s
    simulation.frames[:] = np.minimum(simulation.frames, frames)
    return play(Blind(controller), simulation)[0]


def emulated_row(lines: list[dict[str, Any]], limit_ms: float) -> dict[str, float]:
    """What the log says. `right`: share of frames whose answer in time was the picture's class."""
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


def simulated_row(played: Played) -> dict[str, float]:
    """What the simulator says."""
    ms = 1e3 * played.latency_s
    return {
        "mean_ms": float(ms.mean()),
        "p95_ms": float(np.percentile(ms, 95)),
        "misses": float(np.mean(played.answered_by == MISS)),
        "utility": float(played.utility.mean()),
    }


class Order(NamedTuple):
    """Controllers from best to worst utility, emulated and simulated; `swapped`: pairs that the two do not order alike.

    `tau` is Kendall's (one means the same order). A swapped pair comes with both differences of utility.
    """

    emulated: tuple[str, ...]
    simulated: tuple[str, ...]
    tau: float
    swapped: tuple[tuple[str, str, float, float], ...]


def order(utilities: Mapping[str, tuple[float, float]], frames: int) -> Order:
    """Compare the orders of `controller: (emulated, simulated)` utilities. Equal in one of the two is no swap.

    What a single one of the `frames` can make, an answer more or less, is no difference.
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
    """Print both orders, and by how much swapped pairs differ."""
    print(f"{trace}: order emulated {' > '.join(found.emulated)}")
    print(f"{trace}: order simulated {' > '.join(found.simulated)}; Kendall's tau {found.tau:.2f}")
    for a, b, emulated, simulated in found.swapped:
        print(f"    swapped: {a} over {b} by {emulated:.3f} emulated, {simulated:.3f} simulated")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of train.py")
    parser.add_argument("--images", type=Path, required=True, help="pictures in a folder a class")
    parser.add_argument("--trace", nargs="+", required=True, help="uplink traces, each played from its start")
    parser.add_argument("--tune-on", default="", help="traces that the rules are tuned on (default: the bundle's)")
    parser.add_argument("--controllers", nargs="+", default=list(CONTROLLERS), choices=CONTROLLERS, metavar="NAME")
    parser.add_argument("--frames", type=int, default=2000, help="frames a run")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/emulated.json"), help="file to write")
    options = parser.parse_args()
    loaded = bundles.load(options.bundle)
    tune_on = options.tune_on or loaded.manifest["config"]["trace"]
    scenario = Scenario(traces=tuple(load_traces(tune_on)), demands=(loaded.demand,), table=loaded.table)
    rules = ladder.tuned_rules(scenario, ladder.Tuning())
    cnn = for_bundle(options.bundle)
    engine = Engine(cnn, tuple(loaded.profile.point(i) for i in loaded.table.ids))
    rows: list[dict[str, Any]] = []
    for spec in options.trace:
        for trace in load_traces(spec):
            for name in options.controllers:
                rule = rules.get(name)
                controller = rule.controller if isinstance(rule, Blind) else loaded.policy
                lines, offset_s = emulate(controller, trace, loaded, engine, options)
                real = emulated_row(lines, 1e3 * loaded.demand.deadline_s)
                model = simulated_row(simulate(controller, trace, loaded, offset_s, options.frames))
                same = agreement(lines, trace, loaded.table, loaded.demand, offset_s)
                row = {"emulated": real, "simulated": model, "replay": asdict(same)}
                rows.append({"trace": trace.name, "controller": name, **row})
                told = "  ".join(f"{c} {real[c]:.3f} ({model[c]:.3f})" for c in COLUMNS)
                print(f"{trace.name}  {name}: {told}  right {real['right']:.3f}", flush=True)
                print(f"    replayed decisions: error median {same.median:.1%}, p95 {same.p95:.1%}", flush=True)
    facts: dict[str, Any] = {
        "frames": options.frames,
        "machine": machine_facts(1),
        "demand": asdict(loaded.demand),
        "orders": {},
        "rows": rows,
    }
    for name in dict.fromkeys(row["trace"] for row in rows):
        here = {r["controller"]: r for r in rows if r["trace"] == name}
        both = {c: (r["emulated"]["utility"], r["simulated"]["utility"]) for c, r in here.items()}
        tell(name, found := order(both, options.frames))
        facts["orders"][name] = found._asdict()
    options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
