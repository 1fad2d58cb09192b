"""The rules a learned controller is compared with, all deciding from the same observation as it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidesplit.agents.rules.lookahead import Outlook, regret
from tidesplit.envs.world.link import ConstantUplink
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame, Queues
from tidesplit.envs.world.vocabulary import Bools, Demands, Floats, Ints
from tidesplit.profiling.points.table import PointTable


class Controller(Protocol):
    """Chooses one operating point a lane. All that a controller may know of the past is in the observation."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    def predict(self, observation: Observation) -> Ints:
        """Row of the chosen point, ``[B]``, within the observation's mask."""
        ...


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
        slower = observation.of_points("payload") / observation.of("goodput")[:, None] * (1.0 / self.safety - 1.0)
        if observation.tiers == 3:
            takes = observation.of_points("onward_payload") / observation.of("onward_goodput")[:, None]
            slower = slower + takes * (1.0 / self.safety - 1.0)
        latency = observation.of_points("latency_s") + slower
        fits = latency + self.margin_s <= observation.of("deadline_s")[:, None]
        fits &= observation.of_points("head_s") <= self.device_share * observation.of("period_s")[:, None]
        fits &= mask
        return best_fitting(observation, latency, fits, mask, self.quickest)


@dataclass(frozen=True, kw_only=True)
class Mpc:
    """Model-predictive control: the best plan for the next ``horizon`` frames on a link believed constant.

    Its model is the pipeline itself. ``safety`` scales the estimated goodput, ``margin_s`` shortens the deadline that
    it plans for, ``queue_cost`` prices work left queued at the horizon, ``min_accuracy`` is the demand's. ``true_rate``
    gives it the true bandwidth of the moment in bytes a second, ``[B]``, in place of the estimate; ``true_onward_rate``
    that of the second link, in three tiers.
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
    true_rate: Callable[[], Floats] | None = None
    true_onward_rate: Callable[[], Floats] | None = None

    def predict(self, observation: Observation) -> Ints:
        """First point of the best plan, ``[B]``."""
        outlook = believed(observation, self.table, self.world, self.safety, self.margin_s, self.min_accuracy)
        if self.true_rate is not None:
            outlook = replace(outlook, uplink=ConstantUplink(self.true_rate() * self.safety))
        if self.true_onward_rate is not None:
            outlook = replace(outlook, onward=ConstantUplink(self.true_onward_rate() * self.safety))
        return _row(np.argmin(regret(outlook, self.horizon, self.width, self.queue_cost), axis=1))


def believed(
    observation: Observation,
    table: PointTable,
    world: World,
    safety: float = 1.0,
    margin_s: float = 0.0,
    min_accuracy: float = 0.0,
) -> Outlook:
    """What the observation says of the world, as if it stayed so; the clock starts at the decision."""

    def told(name: str) -> Floats:
        return observation.of(name).astype(np.float64)

    lanes = len(observation.state)
    zero = np.zeros(lanes)
    finish_from = told("finish_due_s")
    queues = Queues(
        device_free_s=zero,
        finish_from_s=finish_from,
        finish_until_s=finish_from + told("finish_pending_s"),
        link_free_s=told("link_queue_s") + told("stalled_s"),
        last_sent_s=-told("since_sent_s"),
    )
    onward, onward_rtt = None, None
    if table.onward is not None:
        onward, onward_rtt = ConstantUplink(told("onward_goodput") * safety), told("onward_rtt_s")
        taken_s = told("onward_queue_s") + told("onward_stalled_s")
        queues = queues._replace(onward_free_s=taken_s, onward_last_s=-told("onward_since_sent_s"))
    first_arrival, period = -told("waited_s"), told("period_s")
    rtt, slow, wait = told("rtt_s"), told("slow_down"), told("server_wait_s")

    def frame_ahead(h: int) -> Frame:
        return Frame(first_arrival + h * period, rtt, rtt, slow, wait, zero, onward_rtt, onward_rtt)

    demands = Demands(period, told("deadline_s") - margin_s, zero + min_accuracy, told("for_latency") > 0.0)
    uplink = ConstantUplink(told("goodput") * safety)
    return Outlook(
        queues=queues,
        frame_ahead=frame_ahead,
        table=table,
        demands=demands,
        world=world,
        uplink=uplink,
        lane=np.arange(lanes),
        mask=observation.mask,
        onward=onward,
    )


def stand_in(observation: Observation, rows: Ints) -> Ints:
    """The points ``rows`` ``[B]``; where one is masked, the allowed point nearest in device time."""
    head, lanes = observation.of_points("head_s"), np.arange(len(rows))
    away = np.where(observation.mask, np.abs(head - head[lanes, rows][:, None]), np.inf)
    away[lanes, rows] = np.where(observation.mask[lanes, rows], -1.0, np.inf)
    return _row(np.argmin(away, axis=1))


def best_fitting(
    observation: Observation, latency: NDArray[np.floating[Any]], fits: Bools, mask: Bools, quickest: bool = False
) -> Ints:
    """The most accurate of the points that fit (the quickest where speed counts), ``[B]``; if none does, the quickest.

    ``latency`` is what is expected of each point, seconds; ``mask`` what may be chosen at all; all ``[B, A]``.
    """
    by_latency = (observation.of("for_latency")[:, None] > 0.0) | quickest
    worth = np.where(by_latency, -latency, observation.of_points("accuracy").astype(np.float64) - 1e-6 * latency)
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

    In three tiers, of each pair of partitions: the widest at both.
    """
    by: list[NDArray[Any]] = [table.bits, table.region_ratio, table.channel_ratio]
    partition = table.partition
    if table.onward is not None:
        by = [table.onward.bits, table.onward.region_ratio, table.onward.channel_ratio, *by]
        partition = partition * (table.onward.partition.max() + 1) + table.onward.partition
    rank = np.lexsort(by)
    chosen = np.zeros(table.size, dtype=bool)
    for cut in np.unique(partition):
        rows = rank[partition[rank] == cut]
        chosen[rows[-1]] = True
    return chosen
