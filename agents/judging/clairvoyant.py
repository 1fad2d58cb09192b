"""The clairvoyant bound: a dynamic programme with the whole future known. No controller can have a higher utility.

A state is the pipeline's queues, in continuous time. A forward pass sends every state through the world's own
`advance`: once by each allowed point, and once without the frame. A state is dropped when another one has at least its
utility and no longer queues. Two things are approximated, and both can only raise the bound.

Merging: states whose queues end in the same cell of CELL_S seconds become one, with the highest utility and the
shortest queues of them. Where more than ``limit`` states are left, cells are doubled until they fit.

Relaxation: the programme sends no probes and has no limit on unanswered messages. It may skip a finish that the device
would begin. A finish is planned with the true slow-down or with that of the frame before, which the device assumes, and
the better of both counts. For the objective latency a finish may also begin at once. With several hops no link has a
slow start, because a slow start favours states with longer queues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.hop import HopQueue
from tidesplit.envs.world.pipeline import Frame, Queues, advance
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints, each
from tidesplit.profiling.points.table import PointTable

CELL_S = 0.0005
LIMIT = 64
LOST_FRAMES = 5.0  # a state this far behind the best in utility cannot catch up: so many skipped frames drain any queue
AT_ONCE = 1e-6  # assumed slow-down by which a finish takes no time: for the objective latency it then begins at once


class Frontier(NamedTuple):
    """States after a frame, shapes ``[L]``: their queues and the utility gained so far."""

    queues: Queues
    value: Floats


def clairvoyant(
    simulation: Simulation,
    lane: int = 0,
    limit: int = LIMIT,
    report: Callable[[int, int], None] = lambda *_: None,
) -> float:
    """Upper bound on the mean utility a frame, for the episode that a lane is about to begin.

    Args:
        simulation: simulation of which no frame is decided yet.
        lane: lane whose episode is bounded.
        limit: largest number of states kept after a frame. More states make the bound tighter.
        report: called with the frames done and the frames in all, every 100 frames and at the end.
    """
    frames = int(simulation.frames[lane])
    demands = simulation.demands.take(np.array([lane]))
    period_s = float(demands.period_s[0])
    allowed = np.flatnonzero(simulation.observation().mask[lane])
    states = Frontier(Queues.idle(1, len(simulation.links)), np.zeros(1))
    believed = simulation.slow_down[[lane]]
    for k in range(frames):
        frame = simulation.frame_at(k, np.array([lane]))
        foresight = np.full(1, AT_ONCE) if demands.for_latency[0] else frame.slow_down
        states = _extend(simulation, lane, states, allowed, frame, (foresight, believed))
        believed = frame.slow_down
        states = _thin(states, (k + 1) * period_s, limit)
        if k % 100 == 99:
            report(k + 1, frames)
    report(frames, frames)
    return float(states.value.max()) / frames


def _extend(
    simulation: Simulation, lane: int, states: Frontier, allowed: Ints, frame: Frame, beliefs: tuple[Floats, Floats]
) -> Frontier:
    """States after a frame: each state by each allowed point, and each state without the frame.

    A fallback is planned with either of the two ``beliefs`` about the slow-down, or skipped.
    """
    table = simulation.table
    unfinished = replace(table, finish_s=np.full_like(table.finish_s, np.inf))
    world = simulation.scenario.world
    if len(simulation.links) > 1:
        world = replace(world, initial_window_bytes=np.inf)
    count = len(states.value)
    rows, points = np.repeat(np.arange(count), len(allowed)), np.tile(allowed, count)
    never = -np.inf  # an answer that is never about to come, so the device begins every finish that falls due

    def after(which: Bools, table: PointTable, slow_belief: Floats, answer_s: float | None) -> tuple[Frontier, Bools]:
        chosen = rows[which]
        whose = np.full(len(chosen), lane)
        queues, outcome, _ = advance(
            states.queues.take(chosen),
            points[which],
            each(lambda column: np.repeat(column, len(chosen)), frame),
            table=table,
            demands=simulation.demands.take(whose),
            world=world,
            uplinks=simulation.uplinks,
            lane=whose,
            slow_belief=np.repeat(slow_belief, len(chosen)),
            expected_s=None if answer_s is None else np.full(len(chosen), answer_s),
        )
        fell = np.zeros(len(rows), dtype=bool)
        fell[which] = outcome.fell_back
        return Frontier(queues, states.value[chosen] + outcome.utility), fell

    everything = np.ones(len(rows), dtype=bool)
    finished, fell = after(everything, table, beliefs[0], never)
    believed, fell_too = after(fell, table, beliefs[1], never)
    # A device that assumes too small a slow-down begins finishes for which it is in truth too late.
    hopeful = ~fell & (beliefs[1] < beliefs[0])
    too_late, begun = after(hopeful, table, beliefs[1], never)
    extra = _rows(too_late, begun[hopeful])
    if simulation.demands.for_latency[lane]:
        skipped, begun = after(fell, unfinished, beliefs[0], never)
    else:  # the device skips a finish when the answer is about to come in time, and skipping pays only then
        skipped, begun = after(fell, table, beliefs[0], None)
    both = _better(_rows(finished, fell), believed, (fell_too & fell)[fell])
    if simulation.demands.for_latency[lane]:
        return _together(_rows(finished, ~fell), extra, both, skipped, states)
    free = ~begun[fell]
    merged = Frontier(
        each(lambda one, other: np.where(free, one, other), skipped.queues, both.queues),
        np.maximum(skipped.value, both.value),
    )
    return _together(_rows(finished, ~fell), extra, merged, states)


def _better(ours: Frontier, others: Frontier, where: Bools) -> Frontier:
    """Merge two ways to finish the same frames, with the higher utility of both.

    ``where`` both finish, ``[L]``, the merged stretch is the part that they share.
    """
    one, other = ours.queues, others.queues
    queues = one._replace(
        finish_from_s=np.where(where, np.maximum(one.finish_from_s, other.finish_from_s), one.finish_from_s),
        finish_until_s=np.where(where, np.minimum(one.finish_until_s, other.finish_until_s), one.finish_until_s),
    )
    return Frontier(queues, np.maximum(ours.value, others.value))


def _rows(states: Frontier, which: Bools) -> Frontier:
    return Frontier(states.queues.take(np.flatnonzero(which)), states.value[which])


def _together(*groups: Frontier) -> Frontier:
    queues = each(lambda *columns: np.concatenate(columns), *(g.queues for g in groups))
    return Frontier(queues, np.concatenate([g.value for g in groups]))


def _thin(states: Frontier, arrival_s: float, limit: int) -> Frontier:
    """Drop and merge states until at most ``limit`` are left. The next frame arrives at ``arrival_s``."""
    alive = np.flatnonzero(states.value >= states.value.max() - LOST_FRAMES)
    states = Frontier(_canonical(states.queues.take(alive), arrival_s), states.value[alive])
    cell_s = CELL_S
    states = _undominated(_merge(states, arrival_s, cell_s))
    while len(states.value) > limit:
        cell_s *= 2.0
        states = _undominated(_merge(states, arrival_s, cell_s))
    return states


def _canonical(queues: Queues, arrival_s: float) -> Queues:
    """The same queues, with one form for all that end before the next frame arrives at ``arrival_s``."""
    done = queues.finish_until_s <= arrival_s
    return Queues(
        device_free_s=np.maximum(queues.device_free_s, arrival_s),
        finish_from_s=np.where(done, arrival_s, np.maximum(queues.finish_from_s, arrival_s)),
        finish_until_s=np.where(done, arrival_s, queues.finish_until_s),
        heat_c=queues.heat_c,
        hops=tuple(
            HopQueue(np.maximum(hop.free_s, arrival_s), np.full_like(hop.free_s, arrival_s), hop.awake_s)
            for hop in queues.hops
        ),
    )


def _merge(states: Frontier, arrival_s: float, cell_s: float) -> Frontier:
    """One state for each cell of queue lengths, in every respect as good as the best state in the cell."""
    queues, value = states
    uplink_s, *further = (hop.free_s for hop in queues.hops)
    ends = [queues.device_free_s, uplink_s, queues.finish_until_s, queues.finish_from_s, *further]
    cells = 30_000 if len(ends) == 4 else 6_000  # longer queues count as this many cells: the key has 63 bits
    key = np.zeros(len(value), dtype=np.int64)
    for end_s in ends:
        key = key * cells + np.minimum((end_s - arrival_s) / cell_s, cells - 1.0).astype(np.int64)
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-1) != 0)

    def shortest(column: Floats) -> Floats:
        return np.minimum.reduceat(column[order], first)

    until_s = shortest(queues.finish_until_s)
    merged = Queues(
        device_free_s=shortest(queues.device_free_s),
        finish_from_s=np.minimum(-shortest(-queues.finish_from_s), until_s),
        finish_until_s=until_s,
        heat_c=shortest(queues.heat_c),
        hops=tuple(each(shortest, hop) for hop in queues.hops),
    )
    return Frontier(merged, -shortest(-value))


def _undominated(states: Frontier) -> Frontier:
    """Drop each state for which another has at least its utility and no longer queue anywhere."""
    queues, value = states
    first, *further = (hop.free_s for hop in queues.hops)
    columns = [queues.device_free_s, first, queues.finish_until_s, -queues.finish_from_s, *further]
    kept = np.lexsort((*columns, -value))
    cost = np.stack(columns)
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
