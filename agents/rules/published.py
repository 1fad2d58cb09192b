"""JMDC and CNNPC as controllers of the world: both plan on static tables, each with the assumptions of its paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from tidesplit.agents.rules.controllers import Static, stand_in
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.belief import UNKNOWN_AGE_S
from tidesplit.envs.world.fields import HopSeen
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Floats, Ints
from tidesplit.profiling.points.table import PointTable

MATERIAL = 1.2  # a bandwidth estimate that is off by less than this factor is not solved for anew
SLOWEST, FASTEST = 1e2, 1e8  # bytes a second that estimates are held between, so that few programmes are ever solved
TIE_PER_MS = 1e-4  # thousandths of accuracy that a millisecond is worth: decides between equally accurate points alone


def mean_rate(traces: Sequence[Trace]) -> float:
    """Mean bandwidth of the traces over all their time, bytes a second."""
    carried = sum(trace.mean_bps * trace.duration_s for trace in traces) / 8.0
    return carried / sum(trace.duration_s for trace in traces)


def static_latency(table: PointTable, world: World, rates: Sequence[float]) -> Floats:
    """Latency of each point by the tables, ``[A]``: hops of ``rates`` bytes a second, nothing queued, nobody waits."""
    away = np.zeros(table.size)
    for number, (hop, rate) in enumerate(zip(table.hops, rates, strict=True)):
        crossing = hop.compute_s + (hop.bytes_mean + world.overhead_bytes) / rate + world.usual_rtt_s(number)
        away = away + np.where(hop.sends, crossing, 0.0)
    return np.asarray(table.head_s + np.where(table.local, 0.0, away + table.server_s))


def cnnpc(table: PointTable, world: World, demand: Demand, rates: Sequence[float]) -> Static:
    """CNNPC (Yang et al., TPDS 2022): the point that is best by the tables at a mean rate, kept for the whole run.

    Its assumptions: times and bandwidth are constants known before, one frame is under way at a time, and the search
    is done offline (each of its queries retrains for hours), so it cannot follow the link. Its search is a heuristic;
    here all points are looked at, so this is the best that CNNPC could find. T0 (objective accuracy): most accurate
    within the deadline; A0 (latency): quickest at or above the floor. Where nothing fits: the quickest above the floor.
    """
    latency = static_latency(table, world, rates)
    accurate = table.accuracy >= demand.min_accuracy
    fits = accurate & (latency <= demand.deadline_s)
    if demand.objective == "latency" or not fits.any():
        best = np.lexsort((-table.accuracy, latency, ~accurate))[0]
    else:
        best = np.lexsort((latency, -table.accuracy, ~fits))[0]
    return Static("CNNPC", int(best))


@dataclass(frozen=True, kw_only=True)
class Jmdc:
    """JMDC (Ding et al., JPDC 2023): an integer programme over static tables, solved anew when the bandwidth changes.

    Its assumptions: device and server take what the tables say, nothing queues, and the link stays as its monitor last
    saw it. The programme chooses one point (a binary each, their sum one): highest accuracy within a latency bound, or
    lowest latency within an accuracy bound. ``usual_rate``, bytes a second: believed while nothing was measured for
    long. ``safety`` and ``margin_s`` are not the paper's: they scale the estimate and shorten the bound, so that tuning
    can make up for the queues and spreads that it does not model. Solutions are kept, by bandwidth in steps of
    MATERIAL. In three tiers it is told of the second link likewise, ``usual_onward_rate`` while nothing was measured.
    """

    name: str
    table: PointTable
    world: World
    usual_rates: tuple[float, ...]
    min_accuracy: float = 0.0
    safety: float = 1.0
    margin_s: float = 0.0
    _solved: dict[tuple[tuple[int, ...], float, bool], int] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def predict(self, observation: Observation) -> Ints:
        """The programme's point at the bandwidth that is believed, ``[B]``; its stand-in where that is masked."""
        seen = observation.seen
        steps = [self._step(hop, usual) for hop, usual in zip(seen.hops, self.usual_rates, strict=True)]
        deadline, for_latency = seen.deadline_s.tolist(), (seen.for_latency > 0.0).tolist()
        asked = zip(np.stack(steps, axis=1).tolist(), deadline, for_latency, strict=True)
        return stand_in(observation, np.array([self._row(tuple(s), *rest) for s, *rest in asked], dtype=np.int64))

    def _step(self, hop: HopSeen, usual_rate: float) -> Ints:
        """The bandwidth believed of a hop, in steps of MATERIAL, ``[B]``."""
        rate = np.where(hop.goodput_age_s < UNKNOWN_AGE_S, hop.goodput, usual_rate) * self.safety
        return np.rint(np.log(np.clip(rate, SLOWEST, FASTEST)) / np.log(MATERIAL)).astype(np.int64)  # type: ignore[no-any-return]

    def _row(self, steps: tuple[int, ...], deadline_s: float, for_latency: bool) -> int:
        key = (steps, deadline_s, for_latency)
        if key not in self._solved:
            latency = static_latency(self.table, self.world, [MATERIAL**step for step in steps])
            bound_s = np.inf if for_latency else deadline_s - self.margin_s
            self._solved[key] = solve(latency, self.table.accuracy, bound_s, self.min_accuracy)
        return self._solved[key]


def solve(latency_s: Floats, accuracy: Floats, bound_s: float, floor: float) -> int:
    """Row of the most accurate point within ``bound_s`` (infinite: of the quickest), at or above the floor, ``[A]``.

    Solved as an integer programme by HiGHS, in milliseconds and thousandths, since its tolerances are absolute. Where
    the bound cannot be met: the quickest above the floor; where the floor cannot either: the quickest of all.
    """
    latency_ms, thousandths = latency_s * 1e3, accuracy * 1e3
    in_time = LinearConstraint(latency_ms, ub=bound_s * 1e3)
    accurate = LinearConstraint(thousandths, lb=floor * 1e3)
    most_accurate, quickest = TIE_PER_MS * latency_ms - thousandths, latency_ms - TIE_PER_MS * thousandths
    programmes = [] if np.isinf(bound_s) else [(most_accurate, [in_time, accurate])]
    programmes += [(quickest, [accurate]), (quickest, [])]
    one = LinearConstraint(np.ones(len(accuracy)), lb=1, ub=1)
    for cost, bounded in programmes:
        found = milp(
            cost, integrality=np.ones(len(cost)), bounds=Bounds(0, 1), constraints=[one, *bounded],
            options={"mip_rel_gap": 0.0},
        )  # fmt: skip
        if found.x is not None:
            return int(np.argmax(found.x))
    raise AssertionError("one point of all can always be chosen")
