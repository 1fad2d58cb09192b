"""The clairvoyant bound: a dynamic programme with the whole future known. No controller can have a higher utility.

A forward pass sends every state through the kinder world of `relaxed`, by each allowed point and without the frame. A
state is dropped when another one has at least its utility and no longer queues. States whose queues end in the same
cell become one, with the highest utility and the shortest queues of them, which can only raise the bound. Where more
than ``limit`` states are left, cells are doubled until they fit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tidesplit.agents.judging.relaxed import Frontier, Relaxed
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.hop import HopQueue
from tidesplit.envs.world.queues import Queues
from tidesplit.envs.world.vocabulary import Bools, Floats, each

CELL_S = 0.0005
LIMIT = 64


def clairvoyant(
    simulation: Simulation,
    lane: int = 0,
    limit: int = LIMIT,
    report: Callable[[int, int], None] = lambda *_: None,
    cell_s: float = CELL_S,
) -> float:
    """Upper bound on the mean utility a frame, for the episode that a lane is about to begin.

    Args:
        simulation: simulation of which no frame is decided yet.
        lane: lane whose episode is bounded.
        limit: largest number of states kept after a frame. More states make the bound tighter.
        report: called with the frames done and the frames in all, every 100 frames and at the end.
        cell_s: size of the cells in which states are merged, seconds. 0: only equal states are merged.
    """
    world = Relaxed(simulation, lane)
    states = world.first()
    for k in range(world.frames):
        states = thinned(world.after(k, states), (k + 1) * world.period_s, limit, cell_s)
        if k % 100 == 99:
            report(k + 1, world.frames)
    report(world.frames, world.frames)
    return float(states.value.max()) / world.frames


def thinned(states: Frontier, arrival_s: float, limit: int, cell_s: float) -> Frontier:
    """Drop and merge states until at most ``limit`` are left. The next frame arrives at ``arrival_s``."""
    states = undominated(merged(states._replace(queues=canonical(states.queues, arrival_s)), arrival_s, cell_s))
    while len(states.value) > limit:
        cell_s = max(2.0 * cell_s, CELL_S)
        states = undominated(merged(states, arrival_s, cell_s))
    return states


def canonical(queues: Queues, arrival_s: float) -> Queues:
    """The same queues, with one form for all that the next frames cannot tell apart.

    Only times after the next frame's arrival matter. Where the worker is at a finish when foreground and runs are done,
    everything waits for it, however long it has been at it by then.
    """
    free_s = np.maximum(queues.device_free_s, arrival_s)
    worker_s = np.maximum(free_s, queues.worker_until_s)
    done, begun = queues.finish_until_s <= worker_s, queues.finish_from_s <= worker_s
    return queues._replace(
        device_free_s=free_s,
        worker_until_s=np.where(begun & ~done | (worker_s <= free_s), arrival_s, worker_s),
        finish_from_s=np.where(begun, arrival_s, queues.finish_from_s),
        finish_until_s=np.where(done, arrival_s, queues.finish_until_s),
        hops=tuple(
            HopQueue(np.maximum(hop.free_s, arrival_s), np.full_like(hop.free_s, arrival_s), hop.awake_s)
            for hop in queues.hops
        ),
    )


def _ends(queues: Queues) -> list[Floats]:
    """The times by which states differ."""
    links = [hop.free_s for hop in queues.hops]
    return [queues.device_free_s, queues.worker_until_s, *links, queues.finish_until_s, queues.finish_from_s]


def merged(states: Frontier, arrival_s: float, cell_s: float) -> Frontier:
    """One state for each cell of queue lengths, in every respect as good as the best state in the cell."""
    if not cell_s:
        return states
    queues, value = states
    ends = _ends(queues)
    cells = 6_000 if len(ends) == 5 else 1_400  # longer queues count as this many cells: the key has 63 bits
    key = np.zeros(len(value), dtype=np.int64)
    for end_s in ends:
        key = key * cells + np.minimum((end_s - arrival_s) / cell_s, cells - 1.0).astype(np.int64)
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-1) != 0)

    def shortest(column: Floats) -> Floats:
        return np.minimum.reduceat(column[order], first)

    shorter = Queues(
        device_free_s=shortest(queues.device_free_s),
        worker_until_s=shortest(queues.worker_until_s),
        finish_from_s=-shortest(-queues.finish_from_s),
        finish_until_s=shortest(queues.finish_until_s),
        heat_c=shortest(queues.heat_c),
        hops=tuple(each(shortest, hop) for hop in queues.hops),
        references=each(lambda column: column[order][first], queues.references),
    )
    return Frontier(shorter, -shortest(-value))


def undominated(states: Frontier) -> Frontier:
    """Drop each state for which another has at least its utility and no longer queue anywhere."""
    queues, value = states
    cost = np.stack(_ends(queues._replace(finish_from_s=-queues.finish_from_s)))
    kept = np.lexsort((*cost, -value))
    # The best few beat nearly all others. They go first, so that few are left for the quadratic comparison.
    for few in (8, 64, len(kept)):
        kept = kept[~_beaten(cost[:, kept], few)]
    return Frontier(queues.take(kept), value[kept])


def _beaten(cost: Floats, few: int) -> Bools:
    """True for each column of ``cost``, ``[C, L]``, that an earlier one equals or beats in every row, ``[L]``.

    Only the first ``few`` columns count as earlier ones.
    """
    few = min(few, cost.shape[1])
    as_good = (cost[:, :few, None] <= cost[:, None, :]).all(axis=0)
    earlier = np.arange(few)[:, None] < np.arange(cost.shape[1])[None, :]
    beaten: Bools = np.asarray((as_good & earlier).any(axis=0))
    return beaten
