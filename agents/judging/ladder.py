"""The ladder: every rule that the policy is compared with, tuned on the training traces before the comparison."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from tidesplit.agents.judging.budgeted import (
    FORESIGHT,
    MIXTURE,
    THRESHOLD,
    Budgeted,
    EverySetting,
    affordable,
    at_prices,
    settled,
    share_spent,
    statics,
    thresholds,
    usual_prices,
)
from tidesplit.agents.judging.evaluation import Entrant, Row, controller_of
from tidesplit.agents.judging.seer import Foresight
from tidesplit.agents.rules.controllers import Lookup, Mpc, Static, uncompressed
from tidesplit.agents.rules.family import Family, Setting, Spent
from tidesplit.agents.rules.linucb import LinUcb
from tidesplit.agents.rules.published import Jmdc, cnnpc, mean_rate
from tidesplit.envs.budget.prices import WITHIN, Prices
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.vocabulary import Bools, Demand, Floats, byte_rate_of, gb_per_month
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
FAMILIES = (MIXTURE, THRESHOLD)
STATICS = {"best static point", "device only", "image offload", VIDEO}
"""Rules that use one point for every frame."""

SETTLING_LANES = 16
"""Episodes in which the prices of a rule settle."""
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
"""Results of a tuning, as JSON values: a rule's knobs by its name, and the means of every point as ``SPENT``."""
SPENT = "means of every point"


class BudgetError(ValueError):
    """A budget that no choice of points can meet. The message has the budget, and the least that is needed."""


Knobs = TypeVar("Knobs", Jmdc, LinUcb, Lookup, Mpc)
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How the rules are tuned. Every candidate plays the same episodes.

    Attributes:
        lanes: number of episodes.
        episode_s: length of an episode, seconds.
        seed: seed of the episodes.
        thorough: tune the MPC twice over, on finer grids.
    """

    lanes: int = 24
    episode_s: float = 8.0
    seed: int = 1_000_003
    thorough: bool = False


EVERY = (*RULES, VIDEO, *FAMILIES, TRUE_BANDWIDTH, FORESIGHT)
"""Names of all rules."""
FOR_BUDGETS = {*FAMILIES, FORESIGHT}
"""Those that are only of use under budgets."""
KNOWS_MORE = {TRUE_BANDWIDTH, FORESIGHT}
"""Those that know what no device does."""


def tuned_rules(
    scenario: Scenario, tuning: Tuning, names: Collection[str] = EVERY, known: Known | None = None
) -> dict[str, Entrant]:
    """Rules by their names, tuned on the scenario's traces, which are those of training.

    ``known``: results of an earlier tuning on the same scenario, which are not looked for again. New ones are added.
    """
    found: Known = {} if known is None else known
    table, world, demand = scenario.table, scenario.world, scenario.demands[0]
    free = replace(scenario.unvaried, episode_s=tuning.episode_s, price_draw=None)
    wanted = [name for name in names if demand.budgeted or name not in FOR_BUDGETS]
    spent, prices, arena = Spent(*np.zeros((3, table.size))), Prices.of(0.0, 0.0), free
    if demand.budgeted or set(wanted) & STATICS:
        if SPENT not in found:
            found[SPENT] = np.stack(means_of(statics(table), free, tuning)).tolist()
        spent = Spent(*np.array(found[SPENT]))
    if demand.budgeted:
        prices = usual_prices(spent, demand)
        arena = at_prices(free, prices)

    def score(entrant: Entrant) -> float:
        return mean_utility(entrant, arena, tuning)

    def true_mpc(mpc: Mpc) -> float:
        return score(WithTrueBandwidth(mpc))

    def tuned(best: Knobs, *grids: Grids) -> Knobs:
        return by_knobs(score, best, grids, found)

    def static(name: str, among: Bools) -> Static | WithoutProbes:
        return _static(name, spent, among, table, demand)

    def threshold() -> Family:
        settings = thresholds(table, spent, prices)
        if THRESHOLD not in found:
            found[THRESHOLD] = np.stack(means_of(settings, free, tuning)).tolist()
        return Family(name=THRESHOLD, settings=settings, spent=Spent(*np.array(found[THRESHOLD])))

    usual = tuple(map(mean_rate, scenario.links))
    jmdc = Jmdc(name="JMDC", table=table, world=world, usual_rates=usual, min_accuracy=demand.min_accuracy)
    mpc = THOROUGH_MPC_GRIDS if tuning.thorough else MPC_GRIDS
    mpc_grids = (with_keys(mpc, table),) * (2 if tuning.thorough else 1)
    makers: dict[str, Callable[[], Entrant]] = {
        "best static point": lambda: static("best static point", np.ones(table.size, dtype=bool)),
        "device only": lambda: static("device only", table.local),
        "image offload": lambda: static("image offload", whole_images(table)),
        "partition only": lambda: Lookup(name="partition only", candidates=uncompressed(table), quickest=True),
        "look-up, naive": lambda: Lookup(name="look-up, naive"),
        "JMDC": lambda: tuned(jmdc, JMDC_GRIDS),
        "CNNPC": lambda: cnnpc(table, world, demand, usual),
        "LinUCB": lambda: tuned(LinUcb(name="LinUCB", usual_rate=usual[0]), with_keys(LINUCB_GRIDS, table)),
        "look-up, tuned": lambda: tuned(Lookup(name="look-up, tuned"), with_keys(LOOKUP_GRIDS, table, KEY_COSTS)),
        "MPC, tuned": lambda: tuned(_mpc(scenario, "MPC, tuned"), *mpc_grids),
        MIXTURE: lambda: Family(name=MIXTURE, settings=statics(table), spent=spent),
        THRESHOLD: threshold,
        TRUE_BANDWIDTH: lambda: WithTrueBandwidth(by_knobs(true_mpc, _mpc(scenario, TRUE_BANDWIDTH), mpc_grids, found)),
        FORESIGHT: lambda: Foresight(FORESIGHT),
    }
    if (video := videos(table)).any():
        makers[VIDEO] = lambda: static(VIDEO, video)
    made = {name: quiet(make(), demand) for name, make in makers.items() if name in wanted}
    return made if not demand.budgeted else {name: _begun(name, of, free, prices, tuning) for name, of in made.items()}


def _begun(name: str, entrant: Entrant, arena: Scenario, prices: Prices, tuning: Tuning) -> Budgeted:
    """The entrant, beginning at the prices to which it settles. Those that ignore prices, and the seer, do not."""
    if name in STATICS or name == FORESIGHT:
        return Budgeted(entrant, (float(prices.joule[0]), float(prices.byte[0])))
    return settled(entrant, arena, prices, SETTLING_LANES, tuning.seed)


def point_means(scenario: Scenario, tuning: Tuning) -> Spent:
    """Means of a frame of each point if all frames use it, ``[A]``."""
    free = replace(scenario.unvaried, episode_s=tuning.episode_s, price_draw=None)
    return means_of(statics(scenario.table), free, tuning)


def mixture_prices(scenario: Scenario, tuning: Tuning) -> Prices:
    """Prices at which the best mixture of points meets the demand's budgets.

    Raises:
        BudgetError: every point needs more energy, or more data, than the budget has.
    """
    spent, demand = point_means(scenario, tuning), scenario.demands[0]
    least_w, least_rate = (float(means.min()) * demand.fps for means in (spent.joules, spent.sent_bytes))
    if demand.max_watts is not None and least_w > demand.max_watts:
        least, asked = f"{least_w:.2f} W", f"{demand.max_watts:g} W"
    elif demand.max_gb_month is not None and least_rate > byte_rate_of(demand.max_gb_month):
        least, asked = f"{gb_per_month(least_rate, 1.0):.1f} GB a month", f"{demand.max_gb_month:g} GB"
    else:
        return usual_prices(spent, demand)
    raise BudgetError(
        f"{asked} received, but every point needs at least {least} on these traces; fewer --fps need less"
    )


def mean_utility(entrant: Entrant, arena: Scenario, tuning: Tuning) -> float:
    """Mean utility a frame less its cost over the tuning episodes. They are the same for every entrant."""
    return float(_played(entrant, arena, tuning, 1)[0][0])


def static_utilities(arena: Scenario, tuning: Tuning) -> Floats:
    """Mean utility of each point when every frame uses it, ``[A]``."""
    return means_of(statics(arena.table), arena, tuning).utility


def means_of(settings: Sequence[Setting], arena: Scenario, tuning: Tuning) -> Spent:
    """Means of a frame of each fixed rule, ``[K]``. All play at the same time."""
    chosen = np.repeat(np.arange(len(settings)), tuning.lanes)
    return Spent(*_played(EverySetting("every setting", settings, chosen), arena, tuning, len(settings))[1:])


def _played(entrant: Entrant, arena: Scenario, tuning: Tuning, copies: int) -> Sequence[Any]:
    """Means a frame in each of several copies of the tuning episodes: utility less cost, then `Spent`, ``[copies]``."""
    rngs = [np.random.default_rng([tuning.seed, i]) for _ in range(copies) for i in range(tuning.lanes)]
    simulation = Simulation(arena, rngs)
    controller = controller_of(entrant, simulation)
    total, played = np.zeros((4, len(rngs))), np.zeros(len(rngs))
    live = np.ones(len(rngs), dtype=bool)
    while live.any():
        outcome, ended = simulation.step(controller.predict(simulation.observation()))
        utility, joules = outcome.utility, outcome.device_j + outcome.radio_j
        total += np.where(live, np.stack([utility - outcome.cost, utility, joules, outcome.hops[0].sent_bytes]), 0.0)
        played += live
        live &= ~ended
    return list(total.reshape(4, copies, -1).sum(axis=2) / played.reshape(copies, -1).sum(axis=1))


@dataclass(frozen=True)
class WithoutProbes:
    """A rule that needs no probes: one that never sends, or one that finds back to a link by itself.

    Nobody would keep a modem awake for the first. Under a budget of energy the second loses by probes, see `quiet`.
    """

    controller: Static | Family | Lookup

    def __call__(self, simulation: Simulation) -> Static | Family | Lookup:
        """The rule, in a world without probes."""
        world = replace(simulation.scenario.world, probe_after_s=np.inf)
        simulation.scenario = replace(simulation.scenario, world=world)
        return self.controller


def quiet(entrant: Entrant, demand: Demand) -> Entrant:
    """The entrant; a rule without probes where the only budget is one of energy.

    Rules are as good without them at 30 frames a second, and up to 0.01 better at 10, where they stay on the device for
    long. A policy needs them: after a minute without the link one stayed on the device for good.
    """
    spares = demand.max_watts is not None and demand.max_gb_month is None
    return WithoutProbes(entrant) if spares and isinstance(entrant, Family | Lookup) else entrant


def _static(name: str, spent: Spent, among: Bools, table: PointTable, demand: Demand) -> Static | WithoutProbes:
    """The point of the highest utility ``among`` these, ``[A]``, that meets the budgets.

    Where none does, the one that needs the least energy and data. Where there is none among them: of all.
    """
    allowed = among if among.any() else np.ones_like(among)
    meets = allowed & affordable(spent, demand)
    worth = spent.utility if meets.any() else -spent.joules - 1e-5 * spent.sent_bytes
    row = int(np.argmax(np.where(meets if meets.any() else allowed, worth, -np.inf)))
    return WithoutProbes(Static(name, row)) if table.local[row] else Static(name, row)


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


def verdict(rows: Sequence[Row], demand: Demand) -> str:
    """A sentence: the policy's lead over the best rule that knows neither bandwidth nor future, or the reverse.

    Rules that do not meet the demand's budgets do not count.
    """
    names = dict.fromkeys(row.controller for row in rows)
    of = {name: [row for row in rows if row.controller == name] for name in names}
    worth = {name: float(np.mean([row.utility for row in found])) for name, found in of.items()}
    rules = [name for name in names if name in (*RULES, VIDEO, *FAMILIES) and meets(of[name], demand)]
    if not meets(of[POLICY], demand):
        return (
            f"{POLICY} overspends by {100 * (_spent(of[POLICY], demand) - 1):.0f} % here. Budgets hold in the mean "
            "over minutes: benchmarks/budgets.py plays ten."
        )
    if not rules:
        return f"No rule meets the budgets, {POLICY} does."
    rule = max(rules, key=lambda name: worth[name])
    lead, which = worth[POLICY] - worth[rule], " within the budgets" if demand.budgeted else ""
    ours, theirs = (float(np.mean([row.watts for row in of[name]])) for name in (POLICY, rule))
    energy = "" if demand.max_watts is None else f" It draws {ours:.2f} W, {rule} {theirs:.2f} W."
    if lead > 0.0:
        return f"{POLICY} is {lead:.4f} ahead of {rule}, the best rule{which} that does not know the bandwidth.{energy}"
    return f"{rule} is {-lead:.4f} ahead of {POLICY} here. It needs no training.{energy.replace('It', POLICY)}"


def meets(rows: Sequence[Row], demand: Demand) -> bool:
    """True where a controller's rows meet the demand's budgets in the mean."""
    return _spent(rows, demand) <= WITHIN


def _spent(rows: Sequence[Row], demand: Demand) -> float:
    watts, gb = (float(np.mean([getattr(row, name) for row in rows])) for name in ("watts", "gb_per_month"))
    return share_spent(watts, gb, demand)


def in_order(by_name: Mapping[str, Value]) -> dict[str, Value]:
    """The same by controller in the order of tables: rules, policy, MPC with the true bandwidth, then any others."""
    after = RULES.index("image offload") + 1
    order = [*RULES[:after], VIDEO, *RULES[after:], *FAMILIES, POLICY, TRUE_BANDWIDTH, FORESIGHT]
    return {name: by_name[name] for name in dict.fromkeys([*order, *by_name]) if name in by_name}
