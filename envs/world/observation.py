"""The observation: what a controller sees when a frame's turn comes, and what each point would lead to.

The simulator and the device both build it here, so a policy sees on the device exactly what it saw in training.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.belief import UNKNOWN_AGE_S, LinkBelief, believe, with_finishes_of
from tidesplit.envs.world.fields import Foreseen, HopSeen, Seen, fields_of, foreseen, hops_of, laid_out, seen
from tidesplit.envs.world.foresight import foresee, points_first
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Bools, Demands, Floats, Ints, Transfers
from tidesplit.profiling.points.table import PointTable


class Situation(NamedTuple):
    """All that the device knows when a frame's turn comes, shapes ``[B]``.

    ``transfers``: the last messages on each hop. ``blocked``: True where the device's breaker lets nothing be sent.
    """

    now_s: Floats
    waited_s: Floats
    transfers: tuple[Transfers, ...]
    slow_down: Floats
    last_point: Ints
    blocked: Bools | None = None


class Observation(NamedTuple):
    """SI values: ``state`` ``[B, S]`` and ``points`` ``[B, F, A]`` in the order of `fields_of`, ``mask`` ``[B, A]``."""

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
        """Number of hops: 1 between device and server, 2 with a middle server."""
        return hops_of(self.state.shape[1])

    def take(self, lanes: Ints) -> Observation:
        """The observation of these lanes."""
        return Observation(self.state[lanes], self.points[lanes], self.mask[lanes])

    def flat(self) -> NDArray[np.float32]:
        """One row a lane, ``[B, S + F * A]``: what Gymnasium and SB3 carry."""
        lanes, fields, points = self.points.shape
        width = self.state.shape[1]
        rows = np.empty((lanes, width + fields * points), dtype=np.float32)
        rows[:, :width] = self.state
        rows[:, width:].reshape(lanes, fields, points)[:] = self.points
        return rows


class Controller(Protocol):
    """Chooses one operating point a lane. All that a controller may know of the past is in the observation."""

    @property
    def name(self) -> str:
        """Its name in tables."""
        ...

    def predict(self, observation: Observation) -> Ints:
        """Row of the chosen point, ``[B]``, within the observation's mask."""
        ...


def unflatten(flat: NDArray[np.float32], mask: Bools) -> Observation:
    """The observation in flat rows ``[B, S + F * A]`` beside their masks ``[B, A]``."""
    lanes, points = mask.shape
    fields = next(fields for fields in map(fields_of, (1, 2, 3)) if fields.width(points) == flat.shape[1])
    split = len(fields.state)
    return Observation(flat[:, :split], flat[:, split:].reshape(lanes, len(fields.points), points), mask)


def observe(situation: Situation, table: PointTable, demands: Demands, world: World) -> Observation:
    """Build the observation: the situation, the demand, and for each point what choosing it would lead to.

    ``table`` columns may be ``[A]`` for all lanes or ``[B, A]``.
    """
    links = [believe(t, situation.now_s, world.usual_rtt_s(hop)) for hop, t in enumerate(situation.transfers)]
    first = links[0]
    for further in links[1:]:
        first = with_finishes_of(first, further)
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
        since_sent_s=np.maximum(link.since_sent_s, 0.0),  # a message may still be on its way to a further hop
        queue_s=np.minimum(np.maximum(link.free_s - now_s, 0.0), UNKNOWN_AGE_S),
    )


def allowed(situation: Situation, table: PointTable, demands: Demands) -> Bools:
    """Mask ``[B, A]``: at or above the accuracy floor, and nothing more over a link with a full window unanswered.

    Where the floor and the full window leave nothing (every point above the floor crosses the link), the floor stands:
    the frame is sent nevertheless, since the user does not want a less accurate answer.
    """
    accurate = np.asarray(points_first(table.accuracy) >= demands.min_accuracy)  # [A, B]
    mask = accurate
    for hop, transfers in zip(table.hops, situation.transfers, strict=True):
        full = np.greater(transfers.answered_s.T, situation.now_s).all(axis=0)
        if hop is table.hops[0] and situation.blocked is not None:
            full |= situation.blocked
        mask = mask & ~(points_first(hop.sends) & full)
    return np.where(mask.any(axis=0), mask, accurate).T
