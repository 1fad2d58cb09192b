"""Search over the pipeline itself: what would each point lead to over the next frames, if the world were as believed?

One engine serves the MPC (a believed constant link), the MPC with the true bandwidth, and the teacher of the imitation
phase (the true future): they differ in the ``Outlook`` handed in, never in the search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tidesplit.envs.world.link import Uplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame, Queues, advance
from tidesplit.envs.world.vocabulary import Bools, Demands, Floats, Ints, each
from tidesplit.profiling.points.table import PointTable

CELL_S = 0.004  # labels whose queues agree to this are one label: the better stays


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a search believes of N states. ``frame_ahead(h)`` gives frame h of each (h = 0: the one to decide), ``[N]``.

    ``expected_s`` ``[N, A]`` and ``slow_belief`` ``[N]`` are what the device itself will believe about the frame to
    decide, where that differs from what the search knows: its fallback goes by them. ``uplinks``: the link of each hop.
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


def regret(outlook: Outlook, horizon: int, width: int, queue_cost: float = 1.0) -> Floats:
    """How much each first point loses against the best one over ``horizon`` frames, ``[N, A]``, 0 for the best.

    Beam search: after each frame at most ``width`` labels a state stay, those of the highest utility less
    ``queue_cost`` for each frame period of work left queued. A first point whose last label is dropped keeps the
    deficit that it had then. Points not in the mask: infinity.
    """
    states, size = outlook.mask.shape
    queues, owner = outlook.queues, np.arange(states)
    value, first = np.zeros(states), np.full(states, -1)
    deficit = np.full((states, size), np.inf)
    for h in range(horizon):
        rows, points = np.nonzero(outlook.mask[owner])
        queues, gained, backlog_s = _expand(outlook, queues.take(rows), owner[rows], points, h)
        owner, value = owner[rows], value[rows] + gained
        first = points if h == 0 else first[rows]
        score = value - queue_cost * backlog_s / outlook.demands.period_s[owner]
        reached = np.full((states, size), -np.inf)
        np.maximum.at(reached, (owner, first), score)
        behind = reached.max(axis=1, keepdims=True) - reached
        deficit = np.where(np.isfinite(behind), behind, deficit)
        if h < horizon - 1:
            keep = _beam(owner, score, queues, outlook.frame_ahead(h + 1).arrival_s[owner], width)
            queues, owner, value, first = queues.take(keep), owner[keep], value[keep], first[keep]
    return deficit


def _expand(outlook: Outlook, queues: Queues, owner: Ints, points: Ints, h: int) -> tuple[Queues, Floats, Floats]:
    """Past frame h: new queues, utility gained, and seconds of work queued beyond the next frame's arrival."""
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
    device = np.maximum(later.device_free_s - next_arrival, 0.0) + pending
    queued, reached_s = np.zeros_like(device), next_arrival
    for queue, trip in zip(later.hops, frame.hops, strict=True):  # as far as the next message will find the link taken
        queued = queued + np.clip(queue.free_s - reached_s, 0.0, demands.deadline_s)
        reached_s = np.maximum(reached_s, queue.free_s) + 0.5 * trip.rtt_s[owner]
    return later, outcome.utility, device + queued


def _beam(owner: Ints, score: Floats, queues: Queues, next_arrival_s: Floats, width: int) -> Ints:
    """Rows of the best ``width`` labels a state, one for each cell of queue lengths."""
    cells = np.zeros(len(owner), dtype=np.int64)
    first, *further = (hop.free_s for hop in queues.hops)
    for until_s in (queues.device_free_s, first, queues.finish_until_s, *further):
        cells = cells * 512 + (np.clip((until_s - next_arrival_s) / CELL_S, 0.0, 511.0)).astype(np.int64)
    order = np.lexsort((-score, cells, owner))
    best_of_cell = np.ones(len(order), dtype=bool)
    best_of_cell[1:] = (np.diff(owner[order]) != 0) | (np.diff(cells[order]) != 0)
    order = order[best_of_cell]
    order = order[np.lexsort((-score[order], owner[order]))]
    rank = np.arange(len(order)) - np.searchsorted(owner[order], owner[order], side="left")
    kept: Ints = order[rank < width]
    return kept
