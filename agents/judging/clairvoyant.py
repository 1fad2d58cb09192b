"""The clairvoyant dynamic programme: the best that could be done with the whole future known, bounded from above.

State space: the pipeline's queues (device free, pending finishes, link free), in continuous time. A forward pass sends
every label through the world's own ``advance`` by every point, and by leaving the frame out. A label is dropped when
another has at least its utility and no longer queues. Rounding: labels whose queues end in the same cell of CELL_S
seconds are merged into one that has the highest utility of any and the shortest queues of any; where more than
``limit`` are left, cells grow until they fit. So rounding can only raise the bound. The programme is further relaxed in
what binds the runtime: it sends no probes, has no limit on unanswered messages, and may leave a finish be that the
device would begin. A finish falls due by the true slow-down or by that of the frame before, which the device believes:
the label takes what is better of both. Where speed counts it may also begin at once. In three tiers the second link's
queue is one more of a label's, and the slow start of either link is left out: it would punish a queue for being empty.
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
LOST_FRAMES = 5.0  # a label this many frames' utility behind the best cannot catch up: so many frames drain any queue
AT_ONCE = 1e-6  # a slow-down by which a finish takes no time: where speed counts, the device then begins it at once


class Frontier(NamedTuple):
    """Alive labels after a frame, shapes ``[L]``: their queues and the utility gathered so far."""

    queues: Queues
    value: Floats


def clairvoyant(
    simulation: Simulation,
    lane: int = 0,
    limit: int = LIMIT,
    report: Callable[[int, int], None] = lambda *_: None,
) -> float:
    """Upper bound on the mean utility a frame of the episode that ``lane`` is about to begin.

    ``report(frames done, frames in all)`` is called now and then.
    """
    frames = int(simulation.frames[lane])
    demands = simulation.demands.take(np.array([lane]))
    period_s = float(demands.period_s[0])
    allowed = np.flatnonzero(simulation.observation().mask[lane])
    labels = Frontier(Queues.idle(1, len(simulation.links)), np.zeros(1))
    frame_of = _frames(simulation, lane)
    believed = simulation.slow_down[[lane]]
    for k in range(frames):
        frame = frame_of(k)
        foresight = np.full(1, AT_ONCE) if demands.for_latency[0] else frame.slow_down
        labels = _extend(simulation, lane, labels, allowed, frame, (foresight, believed))
        believed = frame.slow_down
        labels = _thin(labels, (k + 1) * period_s, limit)
        if k % 100 == 99:
            report(k + 1, frames)
    report(frames, frames)
    return float(labels.value.max()) / frames


def _frames(simulation: Simulation, lane: int) -> Callable[[int], Frame]:
    only = np.array([lane])
    return lambda k: simulation.frame_at(k, only)


def _extend(
    simulation: Simulation, lane: int, labels: Frontier, allowed: Ints, frame: Frame, beliefs: tuple[Floats, Floats]
) -> Frontier:
    """Every label by every allowed point, finished as by either belief or not at all, and by leaving the frame out."""
    table = simulation.table
    unfinished = replace(table, finish_s=np.full_like(table.finish_s, np.inf))
    world = simulation.scenario.world
    if len(simulation.links) > 1:
        world = replace(world, initial_window_bytes=np.inf)
    count = len(labels.value)
    rows, points = np.repeat(np.arange(count), len(allowed)), np.tile(allowed, count)
    never = -np.inf  # not about to come: what falls due is finished

    def after(which: Bools, table: PointTable, slow_belief: Floats, answer_s: float | None) -> tuple[Frontier, Bools]:
        chosen = rows[which]
        whose = np.full(len(chosen), lane)
        queues, outcome, _ = advance(
            labels.queues.take(chosen),
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
        return Frontier(queues, labels.value[chosen] + outcome.utility), fell

    everything = np.ones(len(rows), dtype=bool)
    finished, fell = after(everything, table, beliefs[0], never)
    believed, fell_too = after(fell, table, beliefs[1], never)
    # Too late to finish by the truth, yet begun by a device that believes itself faster than it is.
    hopeful = ~fell & (beliefs[1] < beliefs[0])
    besides, begun = after(hopeful, table, beliefs[1], never)
    extra = _rows(besides, begun[hopeful])
    if simulation.demands.for_latency[lane]:
        left_be, left = after(fell, unfinished, beliefs[0], never)
    else:  # the device lets a finish be when the answer is about to come in time, and only then that is worth something
        left_be, left = after(fell, table, beliefs[0], None)
    both = _better(_rows(finished, fell), believed, (fell_too & fell)[fell])
    if simulation.demands.for_latency[lane]:
        return _together(_rows(finished, ~fell), extra, both, left_be, labels)
    free = ~left[fell]
    merged = Frontier(
        each(lambda one, other: np.where(free, one, other), left_be.queues, both.queues),
        np.maximum(left_be.value, both.value),
    )
    return _together(_rows(finished, ~fell), extra, merged, labels)


def _better(ours: Frontier, others: Frontier, where: Bools) -> Frontier:
    """Of two ways to finish the same frames the higher utility, and ``where`` both do the least disturbing stretch."""
    queues = ours.queues._replace(
        finish_from_s=np.where(
            where, np.maximum(ours.queues.finish_from_s, others.queues.finish_from_s), ours.queues.finish_from_s
        ),
        finish_until_s=np.where(
            where, np.minimum(ours.queues.finish_until_s, others.queues.finish_until_s), ours.queues.finish_until_s
        ),
    )
    return Frontier(queues, np.maximum(ours.value, others.value))


def _rows(labels: Frontier, which: Bools) -> Frontier:
    return Frontier(labels.queues.take(np.flatnonzero(which)), labels.value[which])


def _together(*groups: Frontier) -> Frontier:
    queues = each(lambda *columns: np.concatenate(columns), *(g.queues for g in groups))
    return Frontier(queues, np.concatenate([g.value for g in groups]))


def _thin(labels: Frontier, arrival_s: float, limit: int) -> Frontier:
    """Drop what cannot matter any more and merge what is nearly the same; ``arrival_s`` is the next frame's."""
    alive = np.flatnonzero(labels.value >= labels.value.max() - LOST_FRAMES)
    labels = Frontier(_canonical(labels.queues.take(alive), arrival_s), labels.value[alive])
    cell_s = CELL_S
    labels = _undominated(_merge(labels, arrival_s, cell_s))
    while len(labels.value) > limit:
        cell_s *= 2.0
        labels = _undominated(_merge(labels, arrival_s, cell_s))
    return labels


def _canonical(queues: Queues, arrival_s: float) -> Queues:
    """Queues that end before the next frame arrives are empty, however they came to be."""
    done = queues.finish_until_s <= arrival_s
    return Queues(
        device_free_s=np.maximum(queues.device_free_s, arrival_s),
        finish_from_s=np.where(done, arrival_s, np.maximum(queues.finish_from_s, arrival_s)),
        finish_until_s=np.where(done, arrival_s, queues.finish_until_s),
        hops=tuple(
            HopQueue(np.maximum(hop.free_s, arrival_s), np.full_like(hop.free_s, arrival_s)) for hop in queues.hops
        ),
    )


def _merge(labels: Frontier, arrival_s: float, cell_s: float) -> Frontier:
    """One label a cell of queue lengths, in every respect as good as the best of its members."""
    queues, value = labels
    uplink_s, *further = (hop.free_s for hop in queues.hops)
    ends = [queues.device_free_s, uplink_s, queues.finish_until_s, queues.finish_from_s, *further]
    cells = 30_000 if len(ends) == 4 else 6_000  # a queue that is longer counts as so long: the key has 63 bits
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
        hops=tuple(each(shortest, hop) for hop in queues.hops),
    )
    return Frontier(merged, -shortest(-value))


def _undominated(labels: Frontier) -> Frontier:
    """Drop labels that one of a higher or equal utility equals or beats in every queue."""
    queues, value = labels
    first, *further = (hop.free_s for hop in queues.hops)
    columns = [queues.device_free_s, first, queues.finish_until_s, -queues.finish_from_s, *further]
    kept = np.lexsort((*columns, -value))
    cost = np.stack(columns)
    # The best few beat nearly all others, so they go first and the quadratic comparison is of the rest alone.
    for few in (8, 64, len(kept)):
        kept = kept[~_beaten(cost[:, kept], few)]
    return Frontier(queues.take(kept), value[kept])


def _beaten(cost: Floats, few: int) -> Bools:
    """Columns of ``cost`` ``[C, L]`` that an earlier one of the first ``few`` equals or beats in every row, ``[L]``."""
    few = min(few, cost.shape[1])
    as_good = (cost[:, :few, None] <= cost[:, None, :]).all(axis=0)
    earlier = np.arange(few)[:, None] < np.arange(cost.shape[1])[None, :]
    beaten: Bools = np.asarray((as_good & earlier).any(axis=0))
    return beaten
