"""The clairvoyant dynamic programme: the best that could be done with the whole future known, bounded from above.

State space: the pipeline's queues (device free, pending finishes, link free), in continuous time. A forward pass sends
every label through the world's own ``advance`` by every point, and by leaving the frame out. A label is dropped when
another has at least its utility and no longer queues. Rounding: labels whose queues end in the same cell of CELL_S
seconds are merged into one that has the highest utility of any and the shortest queues of any; where more than
``limit`` are left, cells grow until they fit. So rounding can only raise the bound. The programme is further relaxed in
what binds the runtime: it sends no probes, has no limit on unanswered messages, and may leave a finish be that the
device would begin. When a finish falls due it does not choose: that goes by the slow-down of the frame before, which
is what the device believes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from envs.pipeline import Frame, Queues, advance
from envs.simulation import Simulation
from envs.vocabulary import Bools, Floats, Ints
from profiling.table import PointTable

CELL_S = 0.0005
LIMIT = 64
LOST_FRAMES = 5.0  # a label this many frames' utility behind the best cannot catch up: so many frames drain any queue


class Labels(NamedTuple):
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
    labels = Labels(Queues.idle(1), np.zeros(1))
    frame_of = _frames(simulation, lane)
    believed = simulation.slow_down[[lane]]
    for k in range(frames):
        frame = frame_of(k)
        labels = _extend(simulation, lane, labels, allowed, frame, believed)
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
    simulation: Simulation, lane: int, labels: Labels, allowed: Ints, frame: Frame, believed: Floats
) -> Labels:
    """Every label by every allowed point, finished by the device or not, and by leaving the frame out."""
    table = simulation.table
    unfinished = replace(table, finish_s=np.full_like(table.finish_s, np.inf))
    count = len(labels.value)
    rows, points = np.repeat(np.arange(count), len(allowed)), np.tile(allowed, count)

    def after(rows: Ints, points: Ints, table: PointTable) -> tuple[Labels, Bools]:
        whose = np.full(len(rows), lane)
        queues, outcome, _ = advance(
            labels.queues.take(rows),
            points,
            Frame(*(np.repeat(column, len(rows)) for column in frame)),
            table=table,
            demands=simulation.demands.take(whose),
            world=simulation.scenario.world,
            uplink=simulation.uplink,
            lane=whose,
            slow_belief=np.repeat(believed, len(rows)),
            expected_s=np.full(len(rows), -np.inf),  # never about to come: what could be finished is
        )
        return Labels(queues, labels.value[rows] + outcome.utility), outcome.fell_back

    answered, fell = after(rows, points, table)
    left_be, _ = after(rows[fell], points[fell], unfinished)
    queues = Queues(*(np.concatenate(c) for c in zip(answered.queues, left_be.queues, labels.queues, strict=True)))
    return Labels(queues, np.concatenate([answered.value, left_be.value, labels.value]))


def _thin(labels: Labels, arrival_s: float, limit: int) -> Labels:
    """Drop what cannot matter any more and merge what is nearly the same; ``arrival_s`` is the next frame's."""
    alive = np.flatnonzero(labels.value >= labels.value.max() - LOST_FRAMES)
    labels = Labels(_canonical(labels.queues.take(alive), arrival_s), labels.value[alive])
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
        link_free_s=np.maximum(queues.link_free_s, arrival_s),
        last_sent_s=np.full_like(queues.last_sent_s, arrival_s),
    )


def _merge(labels: Labels, arrival_s: float, cell_s: float) -> Labels:
    """One label a cell of queue lengths, in every respect as good as the best of its members."""
    queues, value = labels
    ends = (queues.device_free_s, queues.link_free_s, queues.finish_until_s, queues.finish_from_s)
    key = np.zeros(len(value), dtype=np.int64)
    for end_s in ends:
        key = key * 30_000 + np.minimum((end_s - arrival_s) / cell_s, 29_999.0).astype(np.int64)
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-1) != 0)

    def shortest(column: Floats) -> Floats:
        return np.minimum.reduceat(column[order], first)

    until_s = shortest(queues.finish_until_s)
    merged = Queues(
        device_free_s=shortest(queues.device_free_s),
        finish_from_s=np.minimum(-shortest(-queues.finish_from_s), until_s),
        finish_until_s=until_s,
        link_free_s=shortest(queues.link_free_s),
        last_sent_s=shortest(queues.last_sent_s),
    )
    return Labels(merged, -shortest(-value))


def _undominated(labels: Labels) -> Labels:
    """Drop labels that one of a higher or equal utility equals or beats in every queue."""
    queues, value = labels
    columns = (queues.device_free_s, queues.link_free_s, queues.finish_until_s, -queues.finish_from_s)
    kept = np.lexsort((*columns, -value))
    cost = np.stack(columns)
    # The best few beat nearly all others, so they go first and the quadratic comparison is of the rest alone.
    for few in (8, 64, len(kept)):
        kept = kept[~_beaten(cost[:, kept], few)]
    return Labels(queues.take(kept), value[kept])


def _beaten(cost: Floats, few: int) -> Bools:
    """Columns of ``cost`` ``[C, L]`` that an earlier one of the first ``few`` equals or beats in every row, ``[L]``."""
    few = min(few, cost.shape[1])
    as_good = (cost[:, :few, None] <= cost[:, None, :]).all(axis=0)
    earlier = np.arange(few)[:, None] < np.arange(cost.shape[1])[None, :]
    beaten: Bools = np.asarray((as_good & earlier).any(axis=0))
    return beaten
