"""The ladder: every rule that the policy is compared with, tuned on the training traces before the comparison."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from tidesplit.agents.judging.evaluation import Entrant, Row, controller_of
from tidesplit.agents.rules.controllers import Lookup, Mpc, Static, nearest_allowed, uncompressed
from tidesplit.agents.rules.linucb import LinUcb
from tidesplit.agents.rules.published import Jmdc, cnnpc, mean_rate
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints
from tidesplit.profiling.points.table import PointTable

RULES = (
    "best static point",
    "device only",
    "image offload",
    "partition only",
    "JMDC",
    "CNNPC",
    "LinUCB",
    "look-up, naive",
    "look-up, tuned",
    "MPC, tuned",
)
"""Rules that decide from what the device knows, in the order of tables."""
VIDEO = "video offload"
"""The best point of a video stream for every frame. Only where the table has such points."""
TRUE_BANDWIDTH = "MPC, true bandwidth"
POLICY = "PPO"
STATICS = {"best static point", "device only", "image offload", VIDEO}
"""Rules that use one point for every frame."""

Grids = Mapping[str, tuple[float, ...]]
"""Values to try for each knob, the most important knob first."""
JMDC_GRIDS: Grids = {"margin_s": (0.0, 0.02, 0.04, 0.06), "safety": (0.5, 1.0, 2.0)}
LINUCB_GRIDS: Grids = {"margin_s": (0.0, 0.01, 0.02), "alpha": (0.0, 0.01, 0.03), "memory": (0.8, 0.9, 1.0)}
LOOKUP_GRIDS: Grids = {
    "margin_s": (0.0, 0.005, 0.010, 0.015, 0.020),
    "safety": (0.2, 0.4, 0.7, 1.0),
    "doubt": (0.0, 0.02, 0.1, 0.3),
    "device_share": (0.8, 1.0, np.inf),
}
PATIENCE: Grids = {"patience": (1.0, 8.0, np.inf)}
"""Of all rules that forecast payloads."""
KEY_COSTS: Grids = {"key_cost": (0.0, 0.02)}
"""Of the look-up."""
MPC_GRIDS: Grids = {
    "margin_s": (0.004, 0.008, 0.012, 0.018),
    "safety": (0.25, 0.5, 1.0),
    "queue_cost": (0.5, 1.0, 2.0),
    "horizon": (4, 6),
}
THOROUGH_MPC_GRIDS: Grids = {
    "margin_s": (0.002, 0.004, 0.006, 0.008, 0.010, 0.012, 0.015, 0.020),
    "safety": (0.15, 0.25, 0.35, 0.5, 0.7, 1.0),
    "queue_cost": (0.25, 0.5, 1.0, 2.0, 4.0),
    "horizon": (3, 4, 6, 9),
    "width": (6, 12),
}
Known = MutableMapping[str, Any]
"""Results of a tuning, as JSON values: a rule's knobs by its name, and the mean utility of every point as ``WORTH``."""
WORTH = "worth of every point"
Knobs = TypeVar("Knobs", Jmdc, LinUcb, Lookup, Mpc)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How the rules are tuned. Every candidate plays the same episodes.

    Attributes:
        lanes: number of episodes.
        episode_s: length of an episode, seconds.
        seed: seed of the episodes.
        thorough: tune the MPC twice over, on finer grids.
    """

    lanes: int = 16
    episode_s: float = 12.0
    seed: int = 1_000_003
    thorough: bool = False


EVERY = (*RULES, VIDEO, TRUE_BANDWIDTH)
"""Names of all rules."""


def tuned_rules(
    scenario: Scenario, tuning: Tuning, names: Collection[str] = EVERY, known: Known | None = None
) -> dict[str, Entrant]:
    """Rules by their names, tuned on the scenario's traces, which are those of training.

    ``known``: results of an earlier tuning on the same scenario, which are not looked for again. New ones are added.
    """
    found: Known = {} if known is None else known
    arena = replace(scenario, episode_s=tuning.episode_s, table_spread=0.0, trace_spread=0.0)

    def score(entrant: Entrant) -> float:
        return mean_utility(entrant, arena, tuning)

    def true_mpc(mpc: Mpc) -> float:
        return score(WithTrueBandwidth(mpc))

    def tuned(best: Knobs, *grids: Grids) -> Knobs:
        return by_knobs(score, best, grids, found)

    table, world, demand = scenario.table, scenario.world, scenario.demands[0]
    if WORTH not in found and set(names) & STATICS:
        found[WORTH] = static_utilities(arena, tuning).tolist()
    worth = np.array(found.get(WORTH, np.zeros(table.size)))
    usual = tuple(map(mean_rate, scenario.links))
    jmdc = Jmdc(name="JMDC", table=table, world=world, usual_rates=usual, min_accuracy=demand.min_accuracy)
    rounds = (THOROUGH_MPC_GRIDS,) * 2 if tuning.thorough else (MPC_GRIDS,)
    mpc_grids = [with_keys(grids, table) for grids in rounds]
    makers: dict[str, Callable[[], Entrant]] = {
        "best static point": lambda: _static("best static point", worth, np.ones(table.size, dtype=bool), table),
        "device only": lambda: _static("device only", worth, table.local, table),
        "image offload": lambda: _static("image offload", worth, whole_images(table), table),
        "partition only": lambda: Lookup(name="partition only", candidates=uncompressed(table), quickest=True),
        "look-up, naive": lambda: Lookup(name="look-up, naive"),
        "JMDC": lambda: tuned(jmdc, JMDC_GRIDS),
        "CNNPC": lambda: cnnpc(table, world, demand, usual),
        "LinUCB": lambda: tuned(LinUcb(name="LinUCB", usual_rate=usual[0]), with_keys(LINUCB_GRIDS, table)),
        "look-up, tuned": lambda: tuned(Lookup(name="look-up, tuned"), with_keys(LOOKUP_GRIDS, table, KEY_COSTS)),
        "MPC, tuned": lambda: tuned(_mpc(scenario, "MPC, tuned"), *mpc_grids),
        TRUE_BANDWIDTH: lambda: WithTrueBandwidth(by_knobs(true_mpc, _mpc(scenario, TRUE_BANDWIDTH), mpc_grids, found)),
    }
    if (video := videos(table)).any():
        makers[VIDEO] = lambda: _static(VIDEO, worth, video, table)
    return {name: make() for name, make in makers.items() if name in names}


def mean_utility(entrant: Entrant, arena: Scenario, tuning: Tuning) -> float:
    """Mean utility a frame over the tuning episodes. They are the same for every entrant."""
    return float(_utilities(entrant, arena, tuning, 1)[0])


def static_utilities(arena: Scenario, tuning: Tuning) -> Floats:
    """Mean utility of each point when every frame uses it, ``[A]``. All points play at the same time."""
    rows = np.repeat(np.arange(arena.table.size), tuning.lanes)
    return _utilities(Always("every point", rows), arena, tuning, arena.table.size)


def _utilities(entrant: Entrant, arena: Scenario, tuning: Tuning, copies: int) -> Floats:
    """Mean utility a frame in each of several copies of the tuning episodes, ``[copies]``."""
    rngs = [np.random.default_rng([tuning.seed, i]) for _ in range(copies) for i in range(tuning.lanes)]
    simulation = Simulation(arena, rngs)
    controller = controller_of(entrant, simulation)
    total, played = np.zeros(len(rngs)), np.zeros(len(rngs))
    live = np.ones(len(rngs), dtype=bool)
    while live.any():
        outcome, ended = simulation.step(controller.predict(simulation.observation()))
        total += np.where(live, outcome.utility, 0.0)
        played += live
        live &= ~ended
    return np.asarray(total.reshape(copies, -1).sum(axis=1) / played.reshape(copies, -1).sum(axis=1))


@dataclass(frozen=True)
class Always:
    """A point for each lane, which it uses for every frame. Where it is masked: the nearest in device time."""

    name: str
    rows: Ints

    def predict(self, observation: Observation) -> Ints:
        """Rows of the points, ``[B]``."""
        return nearest_allowed(observation, self.rows)


@dataclass(frozen=True)
class WithoutLink:
    """A controller that never sends. Nobody would keep a modem awake for it, so it sends no probes either."""

    controller: Static

    def __call__(self, simulation: Simulation) -> Static:
        """The controller, in a world without probes."""
        world = replace(simulation.scenario.world, probe_after_s=np.inf)
        simulation.scenario = replace(simulation.scenario, world=world)
        return self.controller


def _static(name: str, worth: Floats, among: Bools, table: PointTable) -> Static | WithoutLink:
    """The point of the highest ``worth``, ``[A]``, ``among`` these, ``[A]``. Where there is none: of all."""
    allowed = among if among.any() else np.ones_like(among)
    static = Static(name, int(np.argmax(np.where(allowed, worth, -np.inf))))
    return WithoutLink(static) if table.local[static.row] else static


def whole_images(table: PointTable) -> Bools:
    """True for the points that send each picture by itself to the machine that runs the whole CNN, ``[A]``."""
    return table.images & ~table.races & (table.streams.of < 0)


def videos(table: PointTable) -> Bools:
    """True for the points that send the pictures as a video stream, ``[A]``."""
    return table.images & ~table.races & (table.streams.of >= 0)


@dataclass(frozen=True)
class WithTrueBandwidth:
    """An MPC that is given the true bandwidth of each hop at every decision."""

    mpc: Mpc

    def __call__(self, simulation: Simulation) -> Mpc:
        """The MPC, reading the links of this simulation."""
        lanes = np.arange(simulation.lanes)

        def rates() -> tuple[Floats, ...]:
            now_s = simulation.situation().now_s
            return tuple(link.rate_at(lanes, now_s) for link in simulation.uplinks)

        return replace(self.mpc, true_rates=rates)


def by_knobs(score: Callable[[Knobs], float], best: Knobs, grids: Sequence[Grids], known: Known) -> Knobs:
    """The rule tuned by `by_knob` on each of the grids, or as an earlier tuning left it."""
    knobs = {knob: type(getattr(best, knob)) for of in grids for knob in of}
    before = known.get(best.name)
    if isinstance(before, dict) and before.keys() == knobs.keys():
        return replace(best, **{knob: knobs[knob](value) for knob, value in before.items()})
    for of in grids:
        best = by_knob(score, best, of)
    known[best.name] = {knob: getattr(best, knob) for knob in knobs}
    return best


def by_knob(score: Callable[[Knobs], float], best: Knobs, grids: Grids) -> Knobs:
    """Tune a rule one knob at a time, while the others stay. No setting is scored twice in a row.

    Args:
        score: gives the mean utility of a rule.
        best: rule to begin with.
        grids: values to try for each knob.
    """
    worth: float | None = None
    for knob, values in grids.items():
        now = getattr(best, knob)
        candidates = [replace(best, **{knob: type(now)(v)}) for v in values]
        worths = [
            worth if v == now and worth is not None else score(c) for v, c in zip(values, candidates, strict=True)
        ]
        best, worth = candidates[int(np.argmax(worths))], max(worths)
    return best


def _mpc(scenario: Scenario, name: str) -> Mpc:
    floor = scenario.demands[0].min_accuracy
    return Mpc(name=name, table=scenario.table, world=scenario.world, min_accuracy=floor)


def with_keys(grids: Grids, table: PointTable, further: Grids = MappingProxyType({})) -> Grids:
    """The grids, after those that say what a key is worth where the table has streams. ``further``: of one rule."""
    return {**PATIENCE, **further, **grids} if table.streams.count else grids


def verdict(rows: Sequence[Row]) -> str:
    """A sentence: the policy's lead over the best rule that knows neither bandwidth nor future, or the reverse."""
    names = dict.fromkeys(row.controller for row in rows)
    worth = {name: float(np.mean([row.utility for row in rows if row.controller == name])) for name in names}
    rule = max((name for name in names if name in (*RULES, VIDEO)), key=lambda name: worth[name])
    lead = worth[POLICY] - worth[rule]
    if lead > 0.0:
        return f"{POLICY} is {lead:.4f} ahead of {rule}, the best rule that does not know the bandwidth."
    return f"{rule} is {-lead:.4f} ahead of {POLICY} here. It needs no training."


def in_order(entrants: Mapping[str, Entrant]) -> dict[str, Entrant]:
    """The entrants in the order of tables: rules, the policy, the MPC with the true bandwidth, then any others."""
    after = RULES.index("image offload") + 1
    order = [*RULES[:after], VIDEO, *RULES[after:], POLICY, TRUE_BANDWIDTH]
    return {name: entrants[name] for name in dict.fromkeys([*order, *entrants]) if name in entrants}
