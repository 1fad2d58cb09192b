"""The ladder: every rule that the policy is compared with, tuned on the training traces before it is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from tidesplit.agents.judging.evaluation import Entrant
from tidesplit.agents.rules.controllers import Lookup, Mpc, Static, uncompressed
from tidesplit.agents.rules.linucb import LinUcb
from tidesplit.agents.rules.published import Jmdc, cnnpc, mean_rate
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.observation import Controller
from tidesplit.envs.world.vocabulary import Bools, Floats
from tidesplit.profiling.points.table import PointTable

BLIND = (
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
KNOWS_BANDWIDTH = "MPC, true bandwidth"
POLICY = "PPO"
CLAIRVOYANT = "clairvoyant"
JMDC_GRID = {"margin_s": (0.0, 0.02, 0.04, 0.06), "safety": (0.5, 1.0, 2.0)}
LINUCB_GRID = {"margin_s": (0.0, 0.01, 0.02), "alpha": (0.0, 0.01, 0.03), "memory": (0.8, 0.9, 1.0)}
Knobs = TypeVar("Knobs", Jmdc, LinUcb, Mpc)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How long the rules are tuned: ``lanes`` episodes of ``episode_s`` seconds a candidate, the same for all."""

    lanes: int = 16
    episode_s: float = 12.0
    seed: int = 1_000_003
    thorough: bool = False


def tuned_rules(scenario: Scenario, tuning: Tuning) -> dict[str, Entrant]:
    """Every rule by its name, at its best on the scenario's (training) traces."""
    arena = replace(scenario, episode_s=tuning.episode_s, table_spread=0.0, trace_spread=0.0)

    def score(entrant: Entrant) -> float:
        return mean_utility(entrant, arena, tuning)

    table = scenario.table
    worth = static_utilities(arena, tuning)
    rules: dict[str, Entrant] = {
        "best static point": _static("best static point", worth, np.ones(table.size, dtype=bool)),
        "device only": _static("device only", worth, table.local),
        "image offload": _static("image offload", worth, whole_images(table)),
        "partition only": Blind(Lookup(name="partition only", candidates=uncompressed(table), quickest=True)),
        "look-up, naive": Blind(Lookup(name="look-up, naive")),
    }
    rules |= _papers(score, scenario)
    rules["look-up, tuned"] = _best(score, map(Blind, _lookups()))
    rules["MPC, tuned"] = _tuned_mpc(score, scenario, "MPC, tuned", Blind, tuning.thorough)
    rules[KNOWS_BANDWIDTH] = _tuned_mpc(score, scenario, KNOWS_BANDWIDTH, Informed, tuning.thorough)
    return rules


def mean_utility(entrant: Entrant, arena: Scenario, tuning: Tuning) -> float:
    """Mean utility over the tuning episodes: the same ones for every candidate."""
    simulation = Simulation(arena, [np.random.default_rng([tuning.seed, i]) for i in range(tuning.lanes)])
    controller = entrant(simulation)
    total, played = 0.0, 0
    live = np.ones(tuning.lanes, dtype=bool)
    while live.any():
        outcome, ended = simulation.step(controller.predict(simulation.observation()))
        total += float(outcome.utility[live].sum())
        played += int(live.sum())
        live &= ~ended
    return total / played


def static_utilities(arena: Scenario, tuning: Tuning) -> Floats:
    """Mean utility of always choosing each point, ``[A]``."""
    return np.array([mean_utility(Blind(Static("", row)), arena, tuning) for row in range(arena.table.size)])


def _static(name: str, worth: Floats, among: Bools) -> Entrant:
    allowed = among if among.any() else np.ones_like(among)
    return Blind(Static(name, int(np.argmax(np.where(allowed, worth, -np.inf)))))


def whole_images(table: PointTable) -> Bools:
    """Points that send the picture to where the whole CNN then runs, ``[A]``."""
    images = np.asarray(table.hops[0].partition == 0)
    for hop in table.hops[1:]:
        images = images & (hop.compute_s == 0.0)
    return images


@dataclass(frozen=True)
class Blind:
    """An entrant that is told nothing beyond its observation."""

    controller: Controller

    def __call__(self, simulation: Simulation) -> Controller:  # noqa: ARG002  # told nothing of it
        """The controller as it is."""
        return self.controller


@dataclass(frozen=True)
class Informed:
    """An MPC that is told the true bandwidth of each hop at the moment."""

    mpc: Mpc

    def __call__(self, simulation: Simulation) -> Controller:
        """The MPC, bound to the simulation's true links."""
        lanes = np.arange(simulation.lanes)

        def rates() -> tuple[Floats, ...]:
            now_s = simulation.situation().now_s
            return tuple(link.rate_at(lanes, now_s) for link in simulation.uplinks)

        return replace(self.mpc, true_rates=rates)


def _lookups() -> Iterable[Lookup]:
    for safety in (0.2, 0.4, 0.7, 1.0):
        for margin_s in (0.0, 0.005, 0.010, 0.015, 0.020):
            for share in (0.8, 1.0, np.inf):
                yield Lookup(name="look-up, tuned", safety=safety, margin_s=margin_s, device_share=share)


def _papers(score: Callable[[Entrant], float], scenario: Scenario) -> dict[str, Entrant]:
    """Published methods, told the mean bandwidth of the training traces."""
    table, world, demand = scenario.table, scenario.world, scenario.demands[0]
    usual = tuple(map(mean_rate, scenario.links))
    jmdc = Jmdc(
        name="JMDC",
        table=table,
        world=world,
        usual_rates=usual,
        min_accuracy=demand.min_accuracy,
    )
    bandit = LinUcb(name="LinUCB", usual_rate=usual[0])
    return {
        "JMDC": Blind(by_knob(lambda c: score(Blind(c)), jmdc, JMDC_GRID)),
        "CNNPC": Blind(cnnpc(table, world, demand, usual)),
        "LinUCB": by_knob(score, bandit, LINUCB_GRID),
    }


def by_knob(score: Callable[[Knobs], float], best: Knobs, grids: Mapping[str, tuple[float, ...]]) -> Knobs:
    """One knob after the other, each at its best while the others stay. Nothing is played twice."""
    worth: float | None = None
    for knob, values in grids.items():
        now = getattr(best, knob)
        candidates = [replace(best, **{knob: type(now)(v)}) for v in values]
        worths = [
            worth if v == now and worth is not None else score(c) for v, c in zip(values, candidates, strict=True)
        ]
        best, worth = candidates[int(np.argmax(worths))], max(worths)
    return best


def _tuned_mpc(
    score: Callable[[Entrant], float],
    scenario: Scenario,
    name: str,
    enter: type[Blind] | type[Informed],
    thorough: bool,
) -> Entrant:
    """One knob after the other, the one that matters most first; ``thorough`` goes round twice, on finer grids."""
    floor = scenario.demands[0].min_accuracy
    best = Mpc(name=name, table=scenario.table, world=scenario.world, min_accuracy=floor)
    grids: dict[str, tuple[float, ...]] = {
        "margin_s": (0.004, 0.008, 0.012, 0.018),
        "safety": (0.25, 0.5, 1.0),
        "queue_cost": (0.5, 1.0, 2.0),
        "horizon": (4, 6),
    }
    if thorough:
        grids = {
            "margin_s": (0.002, 0.004, 0.006, 0.008, 0.010, 0.012, 0.015, 0.020),
            "safety": (0.15, 0.25, 0.35, 0.5, 0.7, 1.0),
            "queue_cost": (0.25, 0.5, 1.0, 2.0, 4.0),
            "horizon": (3, 4, 6, 9),
            "width": (6, 12),
        }
    for _ in range(2 if thorough else 1):
        best = by_knob(lambda mpc: score(enter(mpc)), best, grids)
    return enter(best)


def _best(score: Callable[[Entrant], float], entrants: Iterable[Entrant]) -> Entrant:
    listed = list(entrants)
    return listed[int(np.argmax([score(e) for e in listed]))]


def in_order(entrants: Mapping[str, Entrant]) -> dict[str, Entrant]:
    """Blind rules, the policy, those who know more."""
    order = [*BLIND, POLICY, KNOWS_BANDWIDTH]
    return {name: entrants[name] for name in order if name in entrants}
