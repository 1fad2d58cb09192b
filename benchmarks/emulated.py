"""Every controller through the real runtime over an emulated link, and the simulator's account of the same.

    python benchmarks/emulated.py --bundle OUT --images DIR --trace T [T ...] [--clips NAME ...] [--frames 2000]

Each run has a server process, a link process that follows the trace, and this process as the device, paced as the
bundle's device. Frames, bytes, answers and fallbacks are real; the computing time that this machine lacks is slept.
The simulator plays the same controller on the same seconds of the trace, in a world where only the request's overhead
varies, and scenes move as these did in the mean. It then replays the decisions that the runtime took. Per trace, the
two orders of the controllers are compared. A controller is the policy, a rule, or the identifier of an operating point,
which then every frame uses. Rules are tuned on the bundle's training traces. Under budgets, prices begin where each
settles on the trace itself, in runtime and simulator: a short run is then one of a device long under way.

--clips makes the frames consecutive: of clips that a camera model (static, handheld, vehicle) makes of --images, or of
folders of real clips. They are made before the first run. --servers adds runs with faults, which are not simulated:

    steady       one server
    restarted    one server, which is killed and started again after each third of the run
    round-robin  two servers behind HAProxy, which sends each request to the next one
    by-device    the same, but HAProxy keeps a device at one server

Each row is written to the JSON file when it is done. Rows that are there already are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from tidesplit.agents import bundle as bundles
from tidesplit.agents.judging import ladder
from tidesplit.agents.judging.budgeted import Budgeted, policy_of, settled
from tidesplit.agents.judging.evaluation import Entrant, History, play
from tidesplit.agents.judging.ladder import FAMILIES, POLICY, RULES, VIDEO
from tidesplit.agents.judging.replay import EMULATED, agreement
from tidesplit.agents.rules.controllers import Static
from tidesplit.benchmarks.asked_budgets import add_budgets, with_budgets
from tidesplit.benchmarks.clip_pictures import clip_pictures
from tidesplit.benchmarks.processes import Address, Restarts, balanced, linked, serving
from tidesplit.benchmarks.results import write_json
from tidesplit.benchmarks.run_figures import (
    Line,
    Witness,
    answered_once,
    break_row,
    emulated_row,
    sent_row,
    simulated_row,
)
from tidesplit.envs.budget.prices import USUAL_PRICES, Prices
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.trace import Trace, load_traces
from tidesplit.envs.world.observation import Controller
from tidesplit.envs.world.physics import USUAL
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.runtime.camera import source
from tidesplit.runtime.camera.picture import Picture
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.device.engine import Engine, points_of
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.export import cached_server, for_bundle
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.log.writer import Log

CONTROLLERS = (POLICY, "best static point", "look-up, tuned", "MPC, tuned")
STEADY, RESTARTED, ROUND_ROBIN, BY_DEVICE = SERVERS = ("steady", "restarted", "round-robin", "by-device")
COLUMNS = ("mean_ms", "p95_ms", "misses", "utility", "watts")
KEYS = ("trace", "pictures", "servers", "controller")  # name a row


@dataclass(frozen=True)
class Stage:
    """What all runs share."""

    loaded: bundles.Bundle
    engine: Engine
    images: Path
    clips: tuple[Picture, ...]  # empty: the pictures of `images`
    frames: int

    def pictures(self) -> Iterator[Picture]:
        """Pictures of a run from its beginning."""
        return iter(self.clips) if self.clips else source.ahead(source.folder(self.images, self.engine.cnn.input_px))

    @property
    def length_s(self) -> float:
        """Seconds of a run."""
        return self.frames * self.loaded.demand.period_s


class Emulated(NamedTuple):
    """A run: its log in order of frames, the moment of the trace at which its first frame came, and its figures."""

    lines: list[Line]
    offset_s: float
    figures: dict[str, Any]


@contextmanager
def standing(servers: str, stage: Stage) -> Iterator[tuple[Address, Restarts]]:
    """Address of servers of a kind, see `SERVERS`, and the restarts to begin with the first frame."""
    count = 2 if servers in (ROUND_ROBIN, BY_DEVICE) else 1
    at_s = [stage.length_s * third / 3 for third in (1, 2)] if servers == RESTARTED else []
    with ExitStack() as stack:
        made = [stack.enter_context(serving("--profile", stage.loaded.profile.name)) for _ in range(count)]
        restarts = Restarts(made[0], at_s)
        stack.callback(restarts.end)
        addresses = [server.address for server in made]
        yield addresses[0] if count == 1 else stack.enter_context(balanced(addresses, servers == BY_DEVICE)), restarts


def acting(entrant: Entrant) -> tuple[Controller, tuple[float, float]]:
    """The controller itself, and the prices of a joule and of a byte at which it begins."""
    if isinstance(entrant, Budgeted):
        return acting(entrant.entrant)[0], entrant.prices
    inner = entrant.controller if isinstance(entrant, ladder.WithoutProbes) else entrant
    if not hasattr(inner, "predict"):
        raise SystemExit(f"{getattr(entrant, 'name', entrant)} needs the simulator, and cannot run on a device")
    return cast(Controller, inner), USUAL_PRICES


def emulate(entrant: Entrant, trace: Trace, servers: str, stage: Stage) -> Emulated:
    """One run through the runtime."""
    controller, prices = acting(entrant)
    records: list[Record] = []
    offset: list[float] = []
    loaded, engine = stage.loaded, stage.engine
    with standing(servers, stage) as (at, restarts), linked(trace, at, EMULATED.rtt_s) as link:

        def started() -> None:
            offset.append(float(link.call("now_s")))
            restarts.begin()

        client = Witness(link.address, engine.cnn)
        with client, Log([records.append]) as log:
            device = Device(
                controller, loaded.table, loaded.demand, engine, client, log, USUAL.under(loaded.demand),
                paced=True, started=started, guarded=False, first_prices=prices,
                rests=isinstance(entrant, Budgeted) and entrant.rests,
            )  # fmt: skip
            device.run(stage.pictures(), stage.frames)
            epoch_s = time.perf_counter() - device.now_s()
            failures = client.failures(epoch_s)  # before the client's end, which fails what is under way
    lines = [r.as_json() for r in sorted(records, key=lambda r: r.frame)]
    figures = {
        "once": answered_once(lines, stage.frames),
        **emulated_row(lines, 1e3 * loaded.demand.deadline_s, loaded.demand.period_s),
        **sent_row(lines, loaded.table),
        **break_row(lines, failures, {r.frame: r.placed_s for r in records}),
        "down_s": restarts.down_s,
        "spending": lines[-1]["spending"],
    }
    return Emulated(lines, offset[0], figures)


def simulate(
    entrant: Entrant, trace: Trace, loaded: bundles.Bundle, offset_s: float, frames: int, motion: float
) -> History:
    """The simulator's own run of a controller on the same seconds, in scenes of the same ``motion``."""
    world = replace(EMULATED, motion=motion).under(loaded.demand)
    scenario = Scenario(traces=(trace,), demands=(loaded.demand,), table=loaded.table, world=world)
    simulation = Simulation(scenario, [np.random.default_rng(0)], trace_of=np.array([0]))
    simulation.links[0].offset_s[:] = offset_s
    simulation.frames[:] = np.minimum(simulation.frames, frames)
    return play(entrant, simulation)[0]


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


def controllers_of(loaded: bundles.Bundle, names: Sequence[str], tune_on: str) -> dict[str, Entrant]:
    """The controllers by name.

    Raises:
        ProfileError: a name that is neither the policy, a rule nor an operating point of the bundle.
    """
    rules: Mapping[str, Any] = {}
    demand = loaded.demand
    if asked := set(names) & {*RULES, VIDEO, *FAMILIES}:
        scenario = Scenario(
            traces=tuple(load_traces(tune_on)), demands=(demand,), table=loaded.table, world=USUAL.under(demand)
        )
        rules = ladder.tuned_rules(scenario, ladder.Tuning(), asked)
    found: dict[str, Entrant] = {}
    for name in names:
        if name == POLICY:
            found[name] = policy_of(loaded, demand)
        elif name in rules:
            rule = rules[name]
            found[name] = rule.controller if isinstance(rule, ladder.WithoutProbes) else rule
        else:
            found[name] = Static(name, loaded.table.row(name))
    return found


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder that tidesplit train wrote")
    parser.add_argument("--images", type=Path, required=True, help="pictures, one folder per class")
    parser.add_argument(
        "--clips", nargs="+", default=[], metavar="NAME", help="cameras, or folders of clips; see above"
    )
    parser.add_argument("--trace", nargs="+", required=True, help="uplink traces, each played from its start")
    parser.add_argument("--tune-on", default="", help="traces that the rules are tuned on (default: the bundle's)")
    parser.add_argument("--controllers", nargs="+", default=list(CONTROLLERS), metavar="NAME", help="see above")
    parser.add_argument("--servers", nargs="+", default=[STEADY], choices=SERVERS, help="see above (default: steady)")
    parser.add_argument("--motion", type=float, default=1.0, help="of the scenes, to settle prices by (default: 1)")
    add_budgets(parser)
    parser.add_argument("--frames", type=int, default=2000, help="frames of a run")
    parser.add_argument(
        "--json", type=Path, default=Path("benchmarks/emulated.json"), help="file to write or go on with"
    )
    return parser


def begun(file: Path, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the file so far.

    Raises:
        SystemExit: they are rows of another kind of run.
    """
    if not file.exists():
        return []
    document = json.loads(file.read_text(encoding="utf-8"))
    for name in ("frames", "bundle", "demand", "settled_in_motion"):
        if document.get(name) != facts[name]:
            raise SystemExit(f"{file} has rows of other runs: {name} {document.get(name)}, not {facts[name]}")
    rows: list[dict[str, Any]] = document["rows"]
    return rows


def under_way(entrant: Entrant, trace: Trace, loaded: bundles.Bundle, motion: float) -> Entrant:
    """The controller with the prices to which it settles on this trace, in scenes of this ``motion``."""
    if not isinstance(entrant, Budgeted):
        return entrant
    world = replace(EMULATED, motion=motion).under(loaded.demand)
    arena = Scenario(traces=(trace,), demands=(loaded.demand,), table=loaded.table, world=world)
    begun = settled(entrant.entrant, arena, Prices.of(*entrant.prices), ladder.SETTLING_LANES, 0)
    return replace(begun, rests=entrant.rests)


def run_row(entrant: Entrant, trace: Trace, servers: str, stage: Stage) -> dict[str, Any]:
    """Figures of a run; of one with steady servers, also the simulator's."""
    run = emulate(entrant, trace, servers, stage)
    if servers != STEADY:
        return {"emulated": run.figures}
    loaded = stage.loaded
    history = simulate(entrant, trace, loaded, run.offset_s, stage.frames, run.figures["motion"])
    model = simulated_row(history, loaded.demand.period_s)
    same = agreement(run.lines, trace, loaded.table, loaded.demand, run.offset_s)
    return {"emulated": run.figures, "simulated": model, "replay": asdict(same)}


def tell_row(row: Mapping[str, Any]) -> None:
    """Print a row."""
    real, model = row["emulated"], row.get("simulated", {})
    figures = "  ".join(f"{c} {real[c]:.3f}" + (f" ({model[c]:.3f})" if model else "") for c in COLUMNS)
    print(f"{row['trace']}  {row['servers']}  {row['controller']}: {figures}  right {real['right']:.3f}")
    print(
        f"    {'each frame once' if real['once'] else 'FRAMES LOST OR TWICE'}; {real['sent']} sent with "
        f"{real['sent_bytes']:.0f} bytes (listed {real['listed_bytes']:.0f}), {real['in_streams']} in streams, "
        f"{real['keys']} keys ({real['lost_keys']} lost); {real['breaks']} breaks, at most {real['keys_a_break']} keys "
        f"each; {real['unknown']} references unknown ({real['unknown_misses']} misses); near breaks "
        f"{real['near_misses']} misses of {real['near']} frames"
    )
    if same := row.get("replay"):
        print(f"    replayed decisions: error median {same['median']:.1%}, p95 {same['p95']:.1%}")


def orders_of(rows: Sequence[Mapping[str, Any]], frames: int) -> dict[str, Order]:
    """Orders of the controllers by trace and pictures."""
    utilities: dict[str, dict[str, tuple[float, float]]] = {}
    for row in rows:
        if row["servers"] == STEADY:
            pair = row["emulated"]["utility"], row["simulated"]["utility"]
            utilities.setdefault(f"{row['trace']}, {row['pictures']}", {})[row["controller"]] = pair
    return {place: order(found, frames) for place, found in utilities.items()}


def _tables(cnn: Cnn) -> dict[tuple[int, int], int]:
    return {cut: tables.tag for cut, tables in cnn.codec.changes.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Run every controller on every trace, compare, print."""
    options = arguments().parse_args(argv)
    trained = bundles.load(options.bundle)
    loaded = replace(trained, demand=with_budgets(trained.demand, options))
    facts = {
        "frames": options.frames,
        "machine": machine_facts(1),
        "demand": asdict(loaded.demand),
        "settled_in_motion": options.motion,
        "bundle": bundles.sha256(options.bundle / bundles.MANIFEST),
    }
    rows = begun(options.json, facts)
    controllers = controllers_of(loaded, options.controllers, options.tune_on or loaded.manifest["config"]["trace"])
    engine = Engine(for_bundle(options.bundle), points_of(loaded.profile, loaded.table.ids))
    server = cached_server(loaded.profile.name)
    if _tables(engine.cnn) != _tables(server):
        raise SystemExit(f"{engine.cnn.folder} has other tables of streams than the server's CNN: remove it")
    clips = tuple(clip_pictures(options.clips, options.images, server, options.frames)) if options.clips else ()
    stage = Stage(loaded, engine, options.images, clips, options.frames)
    pictures = " ".join(Path(name).name for name in options.clips) or options.images.name
    traces = [trace for spec in options.trace for trace in load_traces(spec)]
    for trace, servers, name in product(traces, options.servers, controllers):
        place = dict(zip(KEYS, (trace.name, pictures, servers, name), strict=True))
        if any(place.items() <= row.items() for row in rows):
            continue
        entrant = under_way(controllers[name], trace, loaded, options.motion)
        rows.append({**place, **run_row(entrant, trace, servers, stage)})
        orders = orders_of(rows, options.frames)
        write_json(options.json, {**facts, "orders": {k: v._asdict() for k, v in orders.items()}, "rows": rows})
        tell_row(rows[-1])
    for where, found in orders_of(rows, options.frames).items():
        tell(where, found)


if __name__ == "__main__":
    main()
