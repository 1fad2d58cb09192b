"""Look-ahead: a search over the world's own pipeline for what each point loses over the next frames.

The search serves three users: the MPC, the MPC with the true bandwidth, and the teacher of imitation, which knows the
future. They differ only in the `Outlook` that they hand in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tidesplit.envs.world.link import Uplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame, advance
from tidesplit.envs.world.queues import Queues, References
from tidesplit.envs.world.vocabulary import Bools, Demands, Floats, Ints, each
from tidesplit.profiling.points.table import PointTable

CELL_S = 0.004  # of plans whose queues agree to this, and that sent in the same stream last, only the best is kept


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """The present of N lanes, and the future that a search assumes.

    Attributes:
        queues: each lane's queues before the frame to decide, ``[N]``.
        frame_ahead: gives each lane's frame h, ``[N]``. Frame 0 is the one to decide.
        table: operating points.
        demands: each lane's demand, ``[N]``.
        world: physical numbers.
        uplinks: the link of each hop.
        lane: number of each lane in ``uplinks`` and ``table``, ``[N]``.
        mask: points that are allowed at every frame, ``[N, A]``.
        expected_s: latency that the device will expect of the frame to decide, seconds, ``[N, A]``. The device plans
            its fallback by it. None: the searched latency.
        slow_belief: slow-down that the device will assume for the frame to decide, ``[N]``. None: the frame's own.
    """

    queues: Queues
    frame_ahead: Callable[[int], Frame]
    table: PointTable
    demands: Demands
    world: World
    uplinks: tuple[Uplink, ...]
    lane: Ints
    mask: Bools
    expected_s: Floats | None = None
    slow_belief: Floats | None = None


def regret(
    outlook: Outlook,
    horizon: int,
    width: int,
    queue_cost: float = 1.0,
    later_points: int = 0,
    every_first: bool = False,
) -> Floats:
    """Utility that each first point loses against the best one over the next frames.

    A beam search extends plans frame by frame. Plans are ranked by utility less the cost of the work left queued.
    A first point whose last plan leaves the beam keeps the loss that it had then. That is enough to find the best first
    point, but makes those that keep the device busy look worse than they are.

    Args:
        outlook: what is assumed of N lanes.
        horizon: number of frames searched.
        width: plans that are kept after a frame, of each lane, or with ``every_first`` of each first point.
        queue_cost: utility that a frame period of queued work costs.
        later_points: if above 0, frames after the first use only so many points, those that are best at the first one.
            A plan also goes on in the stream in which it began. Otherwise a key would never pay.
        every_first: search the plans of every first point to the end.

    Returns:
        Shape ``[N, A]``: 0 for the best point, infinity for masked ones.
    """
    lanes, size = outlook.mask.shape
    queues, owner, mask = outlook.queues, np.arange(lanes), outlook.mask
    value, first = np.zeros(lanes), np.full(lanes, -1)
    deficit = np.full((lanes, size), np.inf)
    for h in range(horizon):
        may = mask[owner]
        if h and outlook.table.streams.count:
            may = may | (_of_one_stream(outlook.table)[first] & outlook.mask[owner])
        rows, points = np.nonzero(may)
        queues, gained, backlog_s = _expand(outlook, queues.take(rows), owner[rows], points, h)
        owner, value = owner[rows], value[rows] + gained
        first = points if h == 0 else first[rows]
        score = value - queue_cost * backlog_s / outlook.demands.period_s[owner]
        reached = np.full((lanes, size), -np.inf)
        np.maximum.at(reached, (owner, first), score)
        behind = reached.max(axis=1, keepdims=True) - reached
        deficit = np.where(np.isfinite(behind), behind, deficit)
        if h == 0 and 0 < later_points < size:
            mask = mask & (reached >= np.partition(reached, -later_points, axis=1)[:, [-later_points]])
        if h < horizon - 1:
            group = owner * size + first if every_first else owner
            keep = _beam(group, score, queues, outlook.frame_ahead(h + 1).arrival_s[owner], width)
            queues, owner, value, first = queues.take(keep), owner[keep], value[keep], first[keep]
    return deficit


def _expand(outlook: Outlook, queues: Queues, owner: Ints, points: Ints, h: int) -> tuple[Queues, Floats, Floats]:
    """Extend each plan by frame h: its new queues, the utility gained less its cost, and the seconds of work queued.

    Work counts as queued where it goes on after the next frame's arrival. ``owner``: the lane of each plan.
    """
    demands, frame = outlook.demands.take(owner), outlook.frame_ahead(h)
    known = h > 0
    later, outcome, _ = advance(
        queues,
        points,
        each(lambda column: column[owner], frame),
        table=outlook.table,
        demands=demands,
        world=outlook.world,
        uplinks=outlook.uplinks,
        lane=outlook.lane[owner],
        slow_belief=None if known or outlook.slow_belief is None else outlook.slow_belief[owner],
        expected_s=None if known or outlook.expected_s is None else outlook.expected_s[owner, points],
    )
    next_arrival = frame.arrival_s[owner] + demands.period_s
    pending = np.maximum(later.finish_until_s - np.maximum(later.finish_from_s, next_arrival), 0.0)
    device = (
        sum(np.maximum(end_s - next_arrival, 0.0) for end_s in (later.device_free_s, later.worker_until_s)) + pending
    )
    queued, reached_s = np.zeros_like(device), next_arrival
    for queue, trip in zip(later.hops, frame.hops, strict=True):  # how long the next message will wait for each link
        queued = queued + np.clip(queue.free_s - reached_s, 0.0, demands.deadline_s)
        reached_s = np.maximum(reached_s, queue.free_s) + 0.5 * trip.rtt_s[owner]
    return later, outcome.utility - outcome.cost, device + queued


def _of_one_stream(table: PointTable) -> Bools:
    """True where two points send in the same stream, ``[A, A]``."""
    of = table.streams.of
    same: Bools = (of[:, None] == of) & (of >= 0)
    return same


def _last_stream(references: References) -> Ints:
    """The stream in which each plan sent last, counted from 1. 0 where it sent in none."""
    arrival_s = references.arrival_s
    return np.where(arrival_s.max(axis=1) > -np.inf, arrival_s.argmax(axis=1) + 1, 0)


def _beam(group: Ints, score: Floats, queues: Queues, next_arrival_s: Floats, width: int) -> Ints:
    """Rows of the best ``width`` plans of each group, at most one for each cell of queue lengths and last stream.

    The plans of a group are neighbours.
    """
    if width == 1 and (best := _best(group, score)).size < len(group):
        return best[_beam(group[best], score[best], queues.take(best), next_arrival_s[best], width)]
    cells = np.zeros(len(group), dtype=np.int64)
    first, *further = (hop.free_s for hop in queues.hops)
    for until_s in (queues.device_free_s, queues.worker_until_s, first, queues.finish_until_s, *further):
        cells = cells * 512 + (np.clip((until_s - next_arrival_s) / CELL_S, 0.0, 511.0)).astype(np.int64)
    if streams := queues.references.arrival_s.shape[1]:
        cells = cells * (streams + 1) + _last_stream(queues.references)
    order = np.lexsort((-score, cells, group))
    best_of_cell = np.ones(len(order), dtype=bool)
    best_of_cell[1:] = (np.diff(group[order]) != 0) | (np.diff(cells[order]) != 0)
    order = order[best_of_cell]
    order = order[np.lexsort((-score[order], group[order]))]
    rank = np.arange(len(order)) - np.searchsorted(group[order], group[order], side="left")
    kept: Ints = order[rank < width]
    return kept


def _best(group: Ints, score: Floats) -> Ints:
    """Rows of the plans with the highest score of their group. The plans of a group are neighbours."""
    begin = np.flatnonzero(np.diff(group, prepend=-1))
    highest = np.maximum.reduceat(score, begin)
    rows: Ints = np.flatnonzero(score == np.repeat(highest, np.diff(begin, append=len(group))))
    return rows
