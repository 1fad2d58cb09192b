"""The observation: the state when a frame's turn comes, a forecast of each point, and the mask of allowed points.

Simulator and device both build it here. So a policy sees on the device exactly what it saw in training.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.belief import UNKNOWN_AGE_S, LinkBelief, believe, with_finishes_of
from tidesplit.envs.world.fields import (
    Foreseen,
    HopSeen,
    Seen,
    fields_of,
    foreseen,
    hops_of,
    hops_of_flat,
    laid_out,
    seen,
)
from tidesplit.envs.world.foresight import foresee, points_first
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Bools, Demands, Floats, Ints, Transfers
from tidesplit.profiling.points.table import PointTable


class Situation(NamedTuple):
    """The device's knowledge when a frame's turn comes, shapes ``[B]``, seconds on each lane's clock.

    Attributes:
        now_s: moment of the frame's turn.
        waited_s: time since the frame's arrival.
        transfers: the last messages on each hop, columns ``[B, R]``.
        slow_down: factor on the device's compute times, as last measured.
        last_point: row of the previous frame's point; -1 if there is none.
        blocked: True where the device's breaker allows no sending. None: nowhere.
    """

    now_s: Floats
    waited_s: Floats
    transfers: tuple[Transfers, ...]
    slow_down: Floats
    last_point: Ints
    blocked: Bools | None = None


class Observation(NamedTuple):
    """One observation a lane, in SI units.

    Attributes:
        state: shape ``[B, S]``, columns in the order of `fields_of`.
        points: forecast of each operating point, shape ``[B, F, A]``, fields in the order of `fields_of`.
        mask: True for the points that may be chosen, shape ``[B, A]``.
    """

    state: NDArray[np.float32]
    points: NDArray[np.float32]
    mask: Bools

    @property
    def seen(self) -> Seen:
        """The state by name, columns ``[B]``."""
        return seen(self.state.T)

    @property
    def foreseen(self) -> Foreseen:
        """The points by name, columns ``[B, A]``."""
        return foreseen(self.points.swapaxes(0, 1))

    @property
    def hops(self) -> int:
        """Number of hops: 1 without and 2 with a middle server."""
        return hops_of(self.state.shape[1])

    def take(self, lanes: Ints) -> Observation:
        """The observation of these lanes."""
        return Observation(self.state[lanes], self.points[lanes], self.mask[lanes])

    def flat(self) -> NDArray[np.float32]:
        """State and points as one row a lane, ``[B, S + F * A]``, the form that Gymnasium and SB3 use."""
        lanes, fields, points = self.points.shape
        width = self.state.shape[1]
        rows = np.empty((lanes, width + fields * points), dtype=np.float32)
        rows[:, :width] = self.state
        rows[:, width:].reshape(lanes, fields, points)[:] = self.points
        return rows


class Controller(Protocol):
    """Chooses one operating point a lane from the observation only."""

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    def predict(self, observation: Observation) -> Ints:
        """Rows of the chosen points, ``[B]``. The observation's mask allows each of them."""
        ...


def unflatten(flat: NDArray[np.float32], mask: Bools) -> Observation:
    """The observation of flat rows ``[B, S + F * A]`` and their masks ``[B, A]``."""
    lanes, points = mask.shape
    fields = fields_of(hops_of_flat(flat.shape[1], points))
    split = len(fields.state)
    return Observation(flat[:, :split], flat[:, split:].reshape(lanes, len(fields.points), points), mask)


def observe(situation: Situation, table: PointTable, demands: Demands, world: World) -> Observation:
    """Build the observation of every lane.

    Args:
        situation: the device's knowledge.
        table: operating points, columns ``[A]`` for all lanes or ``[B, A]``.
        demands: of each lane.
        world: physical numbers.
    """
    links = [believe(t, situation.now_s, world.usual_rtt_s(hop)) for hop, t in enumerate(situation.transfers)]
    first = reduce(with_finishes_of, links)
    now = Seen(
        waited_s=situation.waited_s,
        deadline_s=demands.deadline_s,
        period_s=demands.period_s,
        for_latency=demands.for_latency,
        server_wait_s=first.server_wait_s,
        finish_pending_s=first.finish_pending_s,
        finish_due_s=first.finish_due_s,
        slow_down=situation.slow_down,
        hops=tuple(_hop_seen(link, situation.now_s) for link in links),
    )
    state = np.array(laid_out(now), dtype=np.float32)
    points = foresee(seen(state), table, situation.last_point, world)
    return Observation(state.T, points.transpose(2, 0, 1), allowed(situation, table, demands))


def _hop_seen(link: LinkBelief, now_s: Floats) -> HopSeen:
    return HopSeen(
        goodput=link.goodput,
        goodput_last=link.goodput_last,
        goodput_low=link.goodput_low,
        goodput_age_s=link.goodput_age_s,
        goodput_spread=link.goodput_spread,
        rtt_s=link.rtt_s,
        in_flight=link.in_flight,
        in_flight_bytes=link.in_flight_bytes,
        stalled_s=link.stalled_s,
        since_sent_s=np.maximum(link.since_sent_s, 0.0),  # a message may not have reached a further hop yet
        queue_s=np.minimum(np.maximum(link.free_s - now_s, 0.0), UNKNOWN_AGE_S),
    )


def allowed(situation: Situation, table: PointTable, demands: Demands) -> Bools:
    """Mask ``[B, A]`` of the points at or above the accuracy floor that send nothing over a blocked or full link.

    A link is full while all remembered messages are unanswered. Where every accurate point would cross such a link, all
    accurate points stay allowed, because the user wants no less accurate answer.
    """
    accurate = np.asarray(points_first(table.accuracy) >= demands.min_accuracy)  # [A, B]
    closed = [np.greater(transfers.answered_s.T, situation.now_s).all(axis=0) for transfers in situation.transfers]
    if situation.blocked is not None:
        closed[0] |= situation.blocked
    mask = accurate
    for hop, shut in zip(table.hops, closed, strict=True):
        mask = mask & ~(points_first(hop.sends) & shut)
    return np.where(mask.any(axis=0), mask, accurate).T
