"""The rules a learned controller is compared with, all deciding from the same observation as it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.agents.rules.lookahead import Outlook, regret
from tidesplit.envs.world.hop import HopQueue, RoundTrip
from tidesplit.envs.world.link import ConstantUplink
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame, Queues
from tidesplit.envs.world.vocabulary import Bools, Demands, Floats, Ints, each
from tidesplit.profiling.points.table import PointTable


@dataclass(frozen=True)
class Static:
    """Always the same point; where the mask forbids it, the allowed point nearest in device time."""

    name: str
    row: int

    def predict(self, observation: Observation) -> Ints:
        """The point, or its stand-in where it is masked."""
        return stand_in(observation, np.full(len(observation.mask), self.row))


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """The best point by a table, should the link stay as the harmonic mean says.

    Among the points whose predicted latency, plus ``margin_s``, fits the deadline at ``safety`` times the estimated
    goodput and whose device time is at most ``device_share`` of the frame period: the most accurate one (or, when
    latency counts, the quickest). Where none fits, the quickest. ``candidates`` restricts it, ``[A]``.
    """

    name: str
    safety: float = 1.0
    margin_s: float = 0.0
    device_share: float = np.inf
    candidates: Bools | None = None
    quickest: bool = False

    def predict(self, observation: Observation) -> Ints:
        """The table's best point, ``[B]``."""
        mask = observation.mask if self.candidates is None else _within(observation.mask, self.candidates)
        seen, foreseen = observation.seen, observation.foreseen
        slower = foreseen.payload / seen.hops[0].goodput[:, None] * (1.0 / self.safety - 1.0)
        for hop, ahead in zip(seen.hops[1:], foreseen.further, strict=True):
            slower = slower + ahead.payload / hop.goodput[:, None] * (1.0 / self.safety - 1.0)
        latency = foreseen.latency_s + slower
        fits = latency + self.margin_s <= seen.deadline_s[:, None]
        fits &= foreseen.head_s <= self.device_share * seen.period_s[:, None]
        fits &= mask
        return best_fitting(observation, latency, fits, mask, self.quickest)


@dataclass(frozen=True, kw_only=True)
class Mpc:
    """Model-predictive control: the best plan for the next ``horizon`` frames on a link believed constant.

    Its model is the pipeline itself. ``safety`` scales the estimated goodput, ``margin_s`` shortens the deadline that
    it plans for, ``queue_cost`` prices work left queued at the horizon, ``min_accuracy`` is the demand's.
    ``true_rates`` replaces the estimates by the true bandwidth of each hop at the moment, bytes a second, ``[B]``.
    """

    name: str
    table: PointTable
    world: World
    horizon: int = 6
    width: int = 6
    safety: float = 1.0
    margin_s: float = 0.0
    queue_cost: float = 1.0
    min_accuracy: float = 0.0
    true_rates: Callable[[], tuple[Floats, ...]] | None = None

    def predict(self, observation: Observation) -> Ints:
        """First point of the best plan, ``[B]``."""
        outlook = believed(observation, self.table, self.world, self.safety, self.margin_s, self.min_accuracy)
        if self.true_rates is not None:
            outlook = replace(outlook, uplinks=tuple(ConstantUplink(r * self.safety) for r in self.true_rates()))
        return _row(np.argmin(regret(outlook, self.horizon, self.width, self.queue_cost), axis=1))


def believed(
    observation: Observation,
    table: PointTable,
    world: World,
    safety: float = 1.0,
    margin_s: float = 0.0,
    min_accuracy: float = 0.0,
) -> Outlook:
    """The world by the observation, as if it stayed so. The clock starts at the decision."""
    seen = each(lambda column: column.astype(np.float64), observation.seen)
    lanes = len(seen.waited_s)
    zero = np.zeros(lanes)
    queues = Queues(
        device_free_s=zero,
        finish_from_s=seen.finish_due_s,
        finish_until_s=seen.finish_due_s + seen.finish_pending_s,
        hops=tuple(HopQueue(hop.queue_s + hop.stalled_s, -hop.since_sent_s) for hop in seen.hops),
    )
    trips = tuple(RoundTrip(hop.rtt_s, hop.rtt_s) for hop in seen.hops)

    def frame_ahead(h: int) -> Frame:
        return Frame(-seen.waited_s + h * seen.period_s, seen.slow_down, seen.server_wait_s, zero, trips)

    demands = Demands(seen.period_s, seen.deadline_s - margin_s, zero + min_accuracy, seen.for_latency > 0.0)
    return Outlook(
        queues=queues,
        frame_ahead=frame_ahead,
        table=table,
        demands=demands,
        world=world,
        uplinks=tuple(ConstantUplink(hop.goodput * safety) for hop in seen.hops),
        lane=np.arange(lanes),
        mask=observation.mask,
    )


def stand_in(observation: Observation, rows: Ints) -> Ints:
    """The points ``rows`` ``[B]``; where one is masked, the allowed point nearest in device time."""
    head, lanes = observation.foreseen.head_s, np.arange(len(rows))
    away = np.where(observation.mask, np.abs(head - head[lanes, rows][:, None]), np.inf)
    away[lanes, rows] = np.where(observation.mask[lanes, rows], -1.0, np.inf)
    return _row(np.argmin(away, axis=1))


def best_fitting(
    observation: Observation, latency: NDArray[np.floating[Any]], fits: Bools, mask: Bools, quickest: bool = False
) -> Ints:
    """The most accurate of the points that fit (the quickest where speed counts), ``[B]``; if none does, the quickest.

    ``latency`` is what is expected of each point, seconds; ``mask`` what may be chosen at all; all ``[B, A]``.
    """
    by_latency = (observation.seen.for_latency[:, None] > 0.0) | quickest
    worth = np.where(by_latency, -latency, observation.foreseen.accuracy.astype(np.float64) - 1e-6 * latency)
    soonest = np.where(mask, -latency, -np.inf)
    some = fits.any(axis=1)
    return _row(np.where(some, np.where(fits, worth, -np.inf).argmax(axis=1), soonest.argmax(axis=1)))


def _row(points: Ints | np.intp) -> Ints:
    return np.asarray(points, dtype=np.int64)


def _within(mask: Bools, candidates: Bools) -> Bools:
    narrowed = mask & candidates
    return np.where(narrowed.any(axis=1, keepdims=True), narrowed, mask)


def uncompressed(table: PointTable) -> Bools:
    """The widest point with the most bits of each partition, ``[A]``: what a partitioning alone may choose from.

    With several hops: of each combination of partitions, the widest at all of them.
    """
    partition = np.zeros(table.size, dtype=np.int64)
    by: list[NDArray[Any]] = []
    for hop in table.hops:
        partition = partition * (hop.partition.max() + 1) + hop.partition
        by = [hop.bits, hop.region_ratio, hop.channel_ratio, *by]
    rank = np.lexsort(by)
    chosen = np.zeros(table.size, dtype=bool)
    for cut in np.unique(partition):
        rows = rank[partition[rank] == cut]
        chosen[rows[-1]] = True
    return chosen
