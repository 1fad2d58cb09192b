"""The clairvoyant dynamic programme: the best that could have been done with the whole future known, bounded from above.

State space: the pipeline's queues (device free, link free, pending finishes, last send), continuous. A forward pass
extends every label by every point through the world's own ``advance``; a label is dropped when another of the same frame
has at least its utility and no longer queues. Nothing is rounded until more than ``limit`` labels are alive; then labels
of one cell of CELL_S seconds are merged into their best: the highest utility of one with the shortest queues of all, so
that rounding can only raise the bound. It is further relaxed in what the runtime must obey: no probes, no limit on
unanswered messages, and what to finish by itself it knows beforehand. So no controller can do better, up to one thing:
pending finishes are kept as one stretch, as in the world.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from envs.pipeline import Queues
from envs.vocabulary import Bools, Floats, Ints

CELL_S = 0.001
LOST_FRAMES = 4.0  # a label this many whole frames of utility behind the best can never catch up


class Labels(NamedTuple):
    """Alive labels of one frame, shapes ``[L]``."""

    queues: Queues
    value: Floats


def undominated_labels(labels: Labels, arrival_s: float, deadline_s: float, limit: int) -> Labels:
    """Drop what cannot matter; merge optimistically where more than ``limit`` labels are left.

    ``arrival_s``: of the next frame, before which queues count for nothing.
    """
    value = labels.value
    alive = np.flatnonzero(value >= value.max() - LOST_FRAMES)
    queues, value = labels.queues.take(alive), value[alive]
    queues = _canonical(queues, arrival_s, deadline_s)
    cost = np.stack([queues.device_free_s, queues.link_free_s, queues.finish_until_s, -queues.finish_from_s, -value])
    _, unique = np.unique(cost, axis=1, return_index=True)
    order = unique[np.argsort(-value[unique], kind="stable")]
    if len(order) > limit:
        return _merge(Labels(queues.take(order), value[order]), arrival_s)
    cost = cost[:, order]
    beaten = _beaten(cost)
    kept = order[~beaten]
    return Labels(queues.take(kept), value[kept])


def _canonical(queues: Queues, arrival_s: float, deadline_s: float) -> Queues:
    """Queues that end before the next frame arrives are empty, however they came to be."""
    no_finish = queues.finish_until_s <= arrival_s
    return Queues(
        device_free_s=np.maximum(queues.device_free_s, arrival_s),
        # A message behind a queue longer than the deadline is late whatever the queue's length.
        link_free_s=np.clip(queues.link_free_s, arrival_s, None),
        finish_from_s=np.where(no_finish, arrival_s, np.maximum(queues.finish_from_s, arrival_s)),
        finish_until_s=np.where(no_finish, arrival_s, queues.finish_until_s),
        last_sent_s=np.full_like(queues.last_sent_s, arrival_s),
    )


def _beaten(cost: Floats) -> Bools:
    """Columns of ``cost`` ``[C, L]``, best value first, that an earlier one equals or beats in every row."""
    as_good = (cost[:, :, None] <= cost[:, None, :]).all(axis=0)
    earlier: Bools = np.triu(as_good, k=1)
    out: Bools = earlier.any(axis=0)
    return out


def _merge(labels: Labels, arrival_s: float) -> Labels:
    """One label a cell of queue lengths, as good as the best of them in every respect."""
    queues, value = labels
    parts = (queues.device_free_s, queues.link_free_s, queues.finish_until_s, queues.finish_from_s)
    cells = np.stack([np.minimum((p - arrival_s) / CELL_S, 1e6).astype(np.int64) for p in parts])
    _, cell = np.unique(cells, axis=1, return_inverse=True)
    count = int(cell.max()) + 1

    def best(of: Floats, sign: float) -> Floats:
        out = np.full(count, np.inf)
        np.minimum.at(out, cell, sign * of)
        return sign * out

    merged = Queues(
        device_free_s=best(queues.device_free_s, 1.0),
        finish_from_s=best(queues.finish_from_s, -1.0),
        finish_until_s=best(queues.finish_until_s, 1.0),
        link_free_s=best(queues.link_free_s, 1.0),
        last_sent_s=np.full(count, arrival_s),
    )
    shorter = np.minimum(merged.finish_from_s, merged.finish_until_s)
    return Labels(merged._replace(finish_from_s=shorter), best(value, -1.0))


def best_points(parents: list[Ints], points: list[Ints], last: int) -> Ints:
    """Walk back from label ``last`` of the final frame: the points chosen, shape ``[N]``."""
    chosen = np.empty(len(points), dtype=np.int64)
    for k in range(len(points) - 1, -1, -1):
        chosen[k] = points[k][last]
        last = int(parents[k][last])
    return chosen
