"""Two published systems as controllers of the simulated world: JMDC and CNNPC. Both plan on static tables of latency.

Each keeps the assumptions of its paper. Where one is given more than its paper has, its docstring says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidesplit.agents.rules.controllers import Static, nearest_allowed
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.belief import UNKNOWN_AGE_S
from tidesplit.envs.world.fields import HopSeen
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Floats, Ints
from tidesplit.profiling.points.table import PointTable

MATERIAL = 1.2  # JMDC solves again after a material change of bandwidth: estimates are rounded to powers of this factor
SLOWEST, FASTEST = 1e2, 1e8  # bytes a second; estimates are clipped to this range
TIE_PER_MS = 1e-4  # thousandths of accuracy that a millisecond is worth: so little that it only breaks ties


def mean_rate(traces: Sequence[Trace]) -> float:
    """Mean bandwidth over the whole time of all traces, bytes a second."""
    carried = sum(trace.mean_bps * trace.duration_s for trace in traces) / 8.0
    return carried / sum(trace.duration_s for trace in traces)


def static_latency(table: PointTable, world: World, rates: Sequence[float | Floats]) -> Floats:
    """Latency of each point by the tables, without queues and waits, seconds, ``[A]``.

    ``rates``: bandwidth of each hop, bytes a second. Rates of shape ``[B, 1]`` give latencies ``[B, A]``.
    """
    away: Floats = np.zeros(table.size)
    for number, (hop, rate) in enumerate(zip(table.hops, rates, strict=True)):
        compute_s = world.serving_s(hop.compute_s, table.light)
        crossing = compute_s + (hop.bytes_mean + world.overhead_bytes) / rate + world.usual_rtt_s(number)
        away = away + np.where(hop.sends, crossing, 0.0)
    return np.asarray(table.head_s + np.where(table.local, 0.0, away + world.serving_s(table.server_s, table.images)))


def cnnpc(table: PointTable, world: World, demand: Demand, rates: Sequence[float]) -> Static:
    """CNNPC (Yang et al., TPDS 2022): the best point by the tables at the mean bandwidth, for every frame of a run.

    The paper assumes that times and bandwidth are known constants, and that one frame is under way at a time. Each of
    its queries retrains the CNN for hours, so it cannot follow the link. The paper's search is a heuristic. Here every
    point is examined, so the result is the best that CNNPC could find.

    Objective accuracy (the paper's T0): the most accurate point within the deadline and at or above the floor.
    Objective latency (A0): the quickest point at or above the floor. Where no point qualifies: the quickest at or above
    the floor, and where none reaches the floor, the quickest of all. ``rates``: as in `static_latency`.
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
    """JMDC (Ding et al., JPDC 2023): an integer programme over static tables, solved for the last measured bandwidth.

    The programme chooses one point: the most accurate within a latency bound, or the quickest within an accuracy bound.
    See `solve`. The paper assumes that device and server take the times in the tables and that nothing queues. The link
    is assumed to stay as its monitor last saw it. ``safety`` and ``margin_s`` are not in the paper. Tuned, they make up
    for the queues and jitter that it does not model.

    Attributes:
        usual_rates: bandwidth assumed of each hop while its last measurement is too old, bytes a second.
        min_accuracy: the demand's accuracy floor.
        safety: factor on the estimated bandwidth.
        margin_s: time by which the latency bound is shorter than the deadline.
    """

    name: str
    table: PointTable
    world: World
    usual_rates: tuple[float, ...]
    min_accuracy: float = 0.0
    safety: float = 1.0
    margin_s: float = 0.0

    def predict(self, observation: Observation) -> Ints:
        """Row of the programme's point, ``[B]``; of the allowed point nearest in device time where that is masked."""
        seen = observation.seen
        rates = [self._rate(hop, usual) for hop, usual in zip(seen.hops, self.usual_rates, strict=True)]
        bound_s = np.where(seen.for_latency > 0.0, np.inf, seen.deadline_s.astype(np.float64) - self.margin_s)
        latency_s = static_latency(self.table, self.world, rates)
        return nearest_allowed(observation, solve(latency_s, self.table.accuracy, bound_s, self.min_accuracy))

    def _rate(self, hop: HopSeen, usual_rate: float) -> Floats:
        """Bandwidth assumed of a hop, rounded to a power of MATERIAL, bytes a second, ``[B, 1]``."""
        rate = np.where(hop.goodput_age_s < UNKNOWN_AGE_S, hop.goodput, usual_rate) * self.safety
        steps = np.rint(np.log(np.clip(rate, SLOWEST, FASTEST)) / np.log(MATERIAL))
        return np.asarray(MATERIAL ** steps.astype(np.float64)[:, None])


def solve(latency_s: Floats, accuracy: Floats, bound_s: Floats, floor: float) -> Ints:
    """Optimum of JMDC's integer programme, rows ``[B]``: the most accurate point within a bound on latency.

    The programme has a binary variable for each point, and their sum is one. So its optimum is a look-up: the point of
    the lowest cost among those that meet the constraints. The cost is in thousandths of accuracy and in milliseconds,
    and TIE_PER_MS of the other quantity breaks ties. Where the bound cannot be met: the quickest point at or above the
    floor. Where the floor cannot be met either: the quickest of all.

    Args:
        latency_s: latency of each point, ``[B, A]``.
        accuracy: accuracy of each point, ``[A]``.
        bound_s: longest latency allowed, ``[B]``. Infinite: the quickest point is wanted, not the most accurate.
        floor: lowest accuracy allowed.
    """
    latency_ms, thousandths = latency_s * 1e3, accuracy * 1e3
    accurate = accuracy >= floor
    in_time = accurate & (latency_s <= bound_s[:, None])
    bounded = (np.isfinite(bound_s) & in_time.any(axis=1))[:, None]
    cost = np.where(bounded, TIE_PER_MS * latency_ms - thousandths, latency_ms - TIE_PER_MS * thousandths)
    allowed = np.where(bounded, in_time, accurate | ~accurate.any())
    return np.asarray(np.where(allowed, cost, np.inf).argmin(axis=1), dtype=np.int64)
