"""The observation: the state when a frame's turn comes, a forecast of each point, and the mask of allowed points.

Simulator and device both build it here. So a policy sees on the device exactly what it saw in training.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.belief import believe, with_finishes_of
from tidesplit.envs.world.fields import Foreseen, Seen, fields_of, foreseen, hops_of, hops_of_flat, laid_out, seen
from tidesplit.envs.world.foresight import foresee, points_first
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Bools, Demands, Floats, Ints, Transfers
from tidesplit.profiling.points.table import PointTable


class Situation(NamedTuple):
    """The device's knowledge when a frame's turn comes, shapes ``[B]``, seconds on each lane's clock."""

    now_s: Floats  # moment of the decision
    waited_s: Floats  # time since the frame's arrival
    transfers: tuple[Transfers, ...]  # the last messages on each hop, columns [B, R]
    slow_down: Floats  # factor on compute times, as last measured
    last_point: Ints  # row of the previous frame's point; -1 if there is none
    worker_s: Floats  # time until the worker has done the runs that it was given
    heat_c: Floats  # temperature of the processor
    blocked: Bools | None = None  # True where the breaker allows no sending; None: nowhere
    # Frames since the reference of each of the table's streams, [B, S]; infinity where the next payload would be a key.
    # None: all would be.
    reference_age: Floats | None = None
    motion: Floats | None = None  # of the scene, as believed of each stream, [B, S]. None: the profile's


class Observation(NamedTuple):
    """One observation a lane, in SI units."""

    state: NDArray[np.float32]  # `[B, S]`, columns in the order of `fields_of`
    points: NDArray[np.float32]  # forecast of each point, `[B, F, A]`, fields in the order of `fields_of`
    mask: Bools  # True for the points that may be chosen, `[B, A]`

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

    The columns of ``table`` are ``[A]`` for all lanes or ``[B, A]``.
    """
    links = [believe(t, situation.now_s, world.usual_rtt_s(hop)) for hop, t in enumerate(situation.transfers)]
    first = reduce(with_finishes_of, links)
    now = Seen(
        waited_s=situation.waited_s,
        deadline_s=demands.deadline_s,
        period_s=demands.period_s,
        for_latency=demands.for_latency,
        joule_price=demands.joule_price,
        byte_price=demands.byte_price,
        server_wait_s=first.server_wait_s,
        finish_pending_s=first.finish_pending_s,
        finish_due_s=first.finish_due_s,
        slow_down=situation.slow_down,
        worker_s=situation.worker_s,
        heat_c=situation.heat_c,
        awake_s=_awake_s(situation, world),
        hops=tuple(link.hop for link in links),
    )
    state = np.array(laid_out(now), dtype=np.float32)
    points = foresee(seen(state), table, situation.last_point, world, situation.reference_age, situation.motion)
    return Observation(state.T, points.transpose(2, 0, 1), allowed(situation, table, demands))


def _awake_s(situation: Situation, world: World) -> Floats:
    """Time for which the radio stays awake, ``[B]``. The clock began with a greeting, so it was awake then."""
    sent_s = np.maximum(situation.transfers[0].sent_s[:, 0], 0.0)
    return np.clip(sent_s + world.radio.tail_s - situation.now_s, 0.0, world.radio.tail_s)


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
