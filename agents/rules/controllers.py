"""Rules that a learned controller is compared with. All of them decide from the observation that the policy sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.agents.rules.lookahead import Outlook, regret
from tidesplit.envs.world.fields import NEEDS_KEY
from tidesplit.envs.world.hop import HopQueue, RoundTrip
from tidesplit.envs.world.link import ConstantUplink
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame
from tidesplit.envs.world.queues import Queues, References
from tidesplit.envs.world.vocabulary import Bools, Demands, Floats, Ints, each
from tidesplit.profiling.points.stream_columns import KEY
from tidesplit.profiling.points.table import PointTable


@dataclass(frozen=True)
class Static:
    """The same point for every frame. Where it is masked: the allowed point nearest in device time."""

    name: str
    row: int

    def predict(self, observation: Observation) -> Ints:
        """Row of the point, or of its substitute, ``[B]``."""
        return nearest_allowed(observation, np.full(len(observation.mask), self.row))


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """The best point by predicted latency, if the link keeps the bandwidth of the last measurements.

    A point fits if its predicted latency and its device time are short enough. The point of the highest expected
    accuracy is chosen, or the quickest fitting one for the objective latency, see `best_fitting`. Where none is worth
    anything, the quickest of all is chosen.

    Attributes:
        safety: factor on the estimated bandwidth (the harmonic mean of the last messages).
        margin_s: time by which a prediction has to be shorter than the deadline, seconds.
        device_share: longest device time of a fitting point, as a share of the frame period.
        doubt: probability with which the answer to a fitting point is late all the same. A race then has the device's.
        patience: frames over which the additional bytes of a key are spread, see `spread_keys`.
        key_cost: accuracy that another point must gain before a stream is begun for it.
        candidates: points to choose from where one of them is allowed, ``[A]``. None: all.
        quickest: choose the quickest fitting point whatever the objective.
    """

    name: str
    safety: float = 1.0
    margin_s: float = 0.0
    device_share: float = np.inf
    doubt: float = 0.0
    patience: float = 1.0
    key_cost: float = 0.0
    candidates: Bools | None = None
    quickest: bool = False

    def predict(self, observation: Observation) -> Ints:
        """Row of the chosen point, ``[B]``."""
        seen, foreseen, mask = observation.seen, observation.foreseen, observation.mask
        if self.candidates is not None:
            among = mask & self.candidates
            mask = np.where(among.any(axis=1, keepdims=True), among, mask)
        latency_s, payload = spread_keys(observation, self.patience)
        payloads = (payload, *(hop.payload for hop in foreseen.further))
        slower = sum(
            payload / hop.goodput[:, None] * (1.0 / self.safety - 1.0)
            for payload, hop in zip(payloads, seen.hops, strict=True)
        )
        latency, longest_s = latency_s + slower, self.device_share * seen.period_s[:, None]
        fits = (latency + self.margin_s <= seen.deadline_s[:, None]) & (foreseen.head_s <= longest_s) & mask
        saves = (foreseen.races > 0.0) & (foreseen.finish_slack_s >= seen.worker_s[:, None])
        saves &= (foreseen.finish_s <= longest_s) & mask
        by_server = np.where(fits, np.where(foreseen.local > 0.0, 1.0, 1.0 - self.doubt), 0.0)
        worth = by_server * foreseen.accuracy + (1.0 - by_server) * np.where(saves, foreseen.finish_accuracy, 0.0)
        worth -= self.key_cost * (foreseen.reference_age >= NEEDS_KEY)
        return best_fitting(observation, latency, fits | saves, mask, self.quickest, worth)


@dataclass(frozen=True, kw_only=True)
class Mpc:
    """Model-predictive control: the first point of the best plan for the next frames.

    The model is the simulator's own pipeline, with links whose bandwidth stays constant.

    Attributes:
        horizon: number of frames planned.
        width: partial plans kept after each frame.
        later_points: points that plans may use after their first frame, those that are best there. 0: all.
        safety: factor on the bandwidth.
        margin_s: time by which the planned deadline is shorter than the demand's, seconds.
        queue_cost: utility that a frame period of queued work costs at the end of the plan.
        patience: frames over which the additional bytes of a key are spread. A stream lasts longer than a plan.
        min_accuracy: the demand's accuracy floor.
        true_rates: gives the current bandwidth of each hop, bytes a second, ``[B]``. None: the estimate is used.
    """

    name: str
    table: PointTable
    world: World
    horizon: int = 6
    width: int = 6
    later_points: int = 8
    safety: float = 1.0
    margin_s: float = 0.0
    queue_cost: float = 1.0
    patience: float = 1.0
    min_accuracy: float = 0.0
    true_rates: Callable[[], tuple[Floats, ...]] | None = None

    def predict(self, observation: Observation) -> Ints:
        """Row of the best plan's first point, ``[B]``."""
        outlook = self.outlook(observation)
        return _rows(np.argmin(regret(outlook, self.horizon, self.width, self.queue_cost, self.later_points), axis=1))

    def outlook(self, observation: Observation) -> Outlook:
        """The observed situation, continued without change. Its clock starts at the decision."""
        seen = each(lambda column: column.astype(np.float64), observation.seen)
        zero = np.zeros(len(seen.waited_s))
        trips = tuple(RoundTrip(hop.rtt_s, hop.rtt_s) for hop in seen.hops)
        motion = self._motion(observation)
        rates = tuple(hop.goodput for hop in seen.hops) if self.true_rates is None else self.true_rates()

        def frame_ahead(h: int) -> Frame:
            arrival_s = -seen.waited_s + h * seen.period_s
            return Frame(arrival_s, seen.slow_down, zero, seen.server_wait_s, zero, zero, motion, trips)

        return Outlook(
            queues=Queues(
                device_free_s=zero,
                worker_until_s=seen.worker_s,
                finish_from_s=seen.finish_due_s,
                finish_until_s=seen.finish_due_s + seen.finish_pending_s,
                heat_c=zero,  # the measured slow-down has the heat in it
                hops=tuple(HopQueue(hop.queue_s + hop.stalled_s, -hop.since_sent_s, seen.awake_s) for hop in seen.hops),
                references=self._references(observation, -seen.waited_s, seen.period_s),
            ),
            frame_ahead=frame_ahead,
            table=self._planned_with,
            demands=Demands(
                period_s=seen.period_s,
                deadline_s=seen.deadline_s - self.margin_s,
                min_accuracy=zero + self.min_accuracy,
                for_latency=seen.for_latency > 0.0,
                joule_price=seen.joule_price,
                byte_price=seen.byte_price,
            ),
            world=self.world,
            uplinks=tuple(ConstantUplink(rate * self.safety) for rate in rates),
            lane=np.arange(len(zero)),
            mask=observation.mask,
        )

    @cached_property
    def _planned_with(self) -> PointTable:
        """The table, with cheaper keys if there is patience."""
        streams = self.table.streams
        if not streams.count or self.patience == 1.0:
            return self.table
        growth = streams.growth.copy()
        growth[:, KEY] = 1.0 + (growth[:, KEY] - 1.0) / self.patience
        return replace(self.table, streams=replace(streams, growth=growth, most=streams.cap))

    def _motion(self, observation: Observation) -> Floats:
        """The believed motion of each stream's scene, ``[B, S]``, which shows in the steady payloads.

        Where each lane has a table of its own, it holds the lane's size of payloads too.
        """
        streams, mean = self.table.streams, self.table.hops[0].bytes_mean
        _, first = np.unique(streams.of[streams.rows], return_index=True)
        rows = streams.rows[first]
        body = observation.foreseen.steady_payload[:, rows].astype(np.float64) - self.world.overhead_bytes
        return np.asarray(body / (mean[rows] if mean.ndim == 1 else mean[:, rows]))

    def _references(self, observation: Observation, arrival_s: Floats, period_s: Floats) -> References:
        """The streams as they are when the frame has arrived at ``arrival_s``, ``[B]``."""
        streams = self.table.streams
        known = References.none(len(arrival_s), streams.count)
        if streams.count:
            _, first = np.unique(streams.of[streams.rows], return_index=True)  # points of a stream share the reference
            age = observation.foreseen.reference_age[:, streams.rows[first]]
            known.arrival_s[:] = np.where(age < NEEDS_KEY, arrival_s[:, None] - age * period_s[:, None], -np.inf)
        return known


def spread_keys(observation: Observation, frames: float) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Latency in seconds and payload in bytes of each point, ``[B, A]``, where streams are judged over several frames.

    The bytes that a key, or a payload with an old reference, has more than a steady one are divided by ``frames``.
    With 1 they all count now, so a stream whose key does not fit is never begun. With infinity none count.
    """
    foreseen, share = observation.foreseen, 1.0 - 1.0 / frames
    later = share * (foreseen.payload - foreseen.steady_payload)
    return foreseen.latency_s - later / observation.seen.hops[0].goodput[:, None], foreseen.payload - later


def nearest_allowed(observation: Observation, rows: Ints) -> Ints:
    """The points ``rows``, ``[B]``. Where one is masked: the allowed point nearest to it in device time."""
    head, lanes = observation.foreseen.head_s, np.arange(len(rows))
    away = np.where(observation.mask, np.abs(head - head[lanes, rows][:, None]), np.inf)
    away[lanes, rows] = np.where(observation.mask[lanes, rows], -1.0, np.inf)
    return _rows(np.argmin(away, axis=1))


def best_fitting(
    observation: Observation,
    latency: NDArray[np.floating[Any]],
    fits: Bools,
    mask: Bools,
    quickest: bool = False,
    accuracy: NDArray[np.floating[Any]] | None = None,
) -> Ints:
    """The most accurate fitting point of each lane, or the quickest one for the objective latency, each less its cost.

    Where joules or bytes have a price, a point that does not fit can be the best: worth nothing, but it may cost less.

    Args:
        observation: gives each lane's objective and each point's accuracy.
        latency: predicted latency of each point, seconds, ``[B, A]``. It also breaks ties of accuracy.
        fits: points that fit, ``[B, A]``.
        mask: points to choose from where none fits, ``[B, A]``. The quickest of them is then chosen.
        quickest: choose the quickest fitting point whatever the objective.
        accuracy: expected accuracy of each point, ``[B, A]``. None: that of its own answer.

    Returns:
        Rows, ``[B]``.
    """
    by_latency = (observation.seen.for_latency[:, None] > 0.0) | quickest
    expected = observation.foreseen.accuracy if accuracy is None else accuracy
    left = 1.0 - latency / observation.seen.deadline_s[:, None]
    worth = np.where(fits, np.where(by_latency, left, expected.astype(np.float64) - 1e-6 * latency), 0.0)
    priced = (observation.seen.joule_price > 0.0) | (observation.seen.byte_price > 0.0)
    among = fits | (mask & priced[:, None])
    best = np.where(among, worth - observation.foreseen.cost, -np.inf).argmax(axis=1)
    soonest = np.where(mask, -latency, -np.inf)
    return _rows(np.where(among.any(axis=1), best, soonest.argmax(axis=1)))


def _rows(points: Ints | np.intp) -> Ints:
    return np.asarray(points, dtype=np.int64)


def uncompressed(table: PointTable) -> Bools:
    """True for the widest point with the most bits at each partition, ``[A]``. With these, only the cut is chosen.

    With several hops: the widest point of each combination of partitions. Races and streams are not among them.
    """
    partition = np.zeros(table.size, dtype=np.int64)
    by: list[NDArray[Any]] = []
    for hop in table.hops:
        partition = partition * (hop.partition.max() + 1) + hop.partition
        by = [hop.bits, hop.region_ratio, hop.channel_ratio, *by]
    rank = np.lexsort(by)
    chosen = np.zeros(table.size, dtype=bool)
    for cut in np.unique(partition):
        rows = rank[(partition[rank] == cut) & ~table.races[rank] & (table.streams.of[rank] < 0)]
        chosen[rows[-1:]] = True
    return chosen
