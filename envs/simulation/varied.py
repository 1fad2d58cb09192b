"""Devices and CNNs about those of a table: what an episode draws where its scenario has a table spread."""

from __future__ import annotations

import numpy as np

from tidesplit.envs.world.vocabulary import Bools, Floats
from tidesplit.profiling.points.table import PointTable


def spread_out(table: PointTable, lanes: int) -> PointTable:
    """The table with a writeable copy of every column for each lane, ``[B, A]``. A point's lanes are neighbours."""
    return table.with_columns(lambda column: np.repeat(column[:, None], lanes, axis=1).T, table.ids)


def vary(out: PointTable, table: PointTable, lane: int, spread: float, rng: np.random.Generator) -> None:
    """Draw a lane's device, servers and CNN about those of the table, all log-normal.

    The device's times, the servers' and all payloads have the whole spread. So have the payloads of cuts, and the
    accuracy that codes of pictures, codes of cuts, and nets on the device lose. Half of it have the accuracy of the
    best point, which only falls, and the place of the cuts in the CNN. A whole CNN takes longer or shorter than its two
    parts by a third of it.
    """
    device, server, size, codes, *losses = np.exp(spread * rng.standard_normal(7))
    level = np.exp(-0.5 * spread * abs(rng.standard_normal()))
    place, whole = np.exp(spread * rng.standard_normal(2) / (2.0, 3.0))
    cuts = table.hops[0].sends & ~table.light
    out.head_s[lane], out.finish_s[lane] = _times(table, cuts, place, whole)
    out.head_s[lane] *= device
    out.finish_s[lane] *= device
    out.server_s[lane] = table.server_s * server
    out.accuracy[lane], out.finish_accuracy[lane] = _accuracies(table, cuts, level, losses)
    for varied, hop in zip(out.hops, table.hops, strict=True):
        varied.compute_s[lane] = hop.compute_s * server
        varied.bytes_mean[lane] = hop.bytes_mean * size * np.where(cuts, codes, 1.0)


def _times(table: PointTable, cuts: Bools, place: float, whole: float) -> tuple[Floats, Floats]:
    """Times of head and finish, ``[A]``, of cuts elsewhere in the same CNN. Whole CNNs take ``whole`` times as long."""
    head_s = np.where(table.local, whole, 1.0) * table.head_s
    finish_s = np.where(table.light, whole, 1.0) * table.finish_s
    parted = cuts & np.isfinite(table.finish_s)
    both_s = np.where(parted, table.head_s + table.finish_s, 1.0)
    moved_s = both_s * (table.head_s / both_s) ** place
    return np.where(parted, moved_s, head_s), np.where(parted, both_s - moved_s, finish_s)


def _accuracies(table: PointTable, cuts: Bools, level: float, losses: list[float]) -> tuple[Floats, Floats]:
    """Accuracy of the points, and of their finish, ``[A]``, where each kind of them loses so many times as much."""
    of_picture, of_cut, of_net = losses
    best = table.accuracy.max()
    loss = np.where(table.local, of_net, np.where(cuts, of_cut, of_picture))
    accuracy = np.maximum(best - loss * (best - table.accuracy), 0.0)
    finish = np.maximum(best - of_net * (best - table.finish_accuracy), 0.0)
    return level * accuracy, level * np.where(np.isfinite(table.finish_s), finish, 0.0)
