"""Every strategy of CNNPC with its latency and accuracy, computed as arrays instead of searched."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidesplit.agents.cnnpc.pruning import Drops
from tidesplit.agents.cnnpc.published_tables import TIERS, Tables
from tidesplit.envs.world.vocabulary import Bools, Floats, Ints

CONSTANT_MS = 1.66
"""Constant that CNNPC adds to every latency: 0.53 and 1.13 ms, without a reason."""
PLACEMENTS = (("end", "edge"), ("end", "cloud"), ("edge", "cloud"), ("end", "edge", "cloud"))
END_EDGE, END_CLOUD, EDGE_CLOUD, ALL_TIERS = range(len(PLACEMENTS))
NONE = -1


class Strategies(NamedTuple):
    """N strategies, in columns.

    Attributes:
        cut: indices of the two cuts, ``[N, 2]``; NONE where there is no second cut.
        removed: channels removed at each cut, ``[N, 2]``.
        placement: row of PLACEMENTS, ``[N]``.
        latency_ms: latency, milliseconds, ``[N]``.
        accuracy: expected accuracy, ``[N]``; NaN where it is unknown.
        offered: True where the accuracy is known, ``[N]``.
    """

    cut: Ints
    removed: Ints
    placement: Ints
    latency_ms: Floats
    accuracy: Floats
    offered: Bools


class _Options(NamedTuple):
    """Every cut at every rate, ``[M]``.

    ``kept``: share of the channels that is kept. ``drop``: loss of accuracy, NaN where it is unknown.
    """

    cut: Ints
    removed: Ints
    kept: Floats
    drop: Floats


def enumerate_strategies(tables: Tables, drops: Drops) -> Strategies:
    """All strategies: first those of one cut, then those of two, with rising cuts and rates.

    MobileNetV2's seven cuts have 32 + 16 + 24 + 32 + 64 + 96 + 160 = 424 (cut, rate) options. With 68,992 pairs of cuts
    these are CNNPC's 69,416 strategies. One cut can be placed in three ways, so there are 3 * 424 + 68,992 = 70,264
    rows here. Rates above a cut's largest measured one are not offered.
    """
    options = _options(tables, drops)
    first, second = np.nonzero(options.cut[:, None] < options.cut[None, :])
    one = [_of_one(tables, options, placement) for placement in (END_EDGE, END_CLOUD, EDGE_CLOUD)]
    count = len(options.cut)
    two = first.size
    drop = np.concatenate([np.tile(options.drop, 3), options.drop[first] + options.drop[second]])
    none = np.full(3 * count, NONE)
    return Strategies(
        cut=_pairs(np.tile(options.cut, 3), none, options.cut[first], options.cut[second]),
        removed=_pairs(
            np.tile(options.removed, 3), np.zeros_like(none), options.removed[first], options.removed[second]
        ),
        placement=np.repeat([END_EDGE, END_CLOUD, EDGE_CLOUD, ALL_TIERS], [count, count, count, two]),
        latency_ms=np.concatenate([*one, _of_two(tables, options, first, second)]) + CONSTANT_MS,
        accuracy=drops.base - drop,
        offered=np.isfinite(drop),
    )


def _options(tables: Tables, drops: Drops) -> _Options:
    cut = np.repeat(np.arange(len(tables.channels)), tables.channels)
    removed = np.concatenate([np.arange(n) for n in tables.channels])
    return _Options(cut, removed, 1.0 - removed / tables.channels[cut], np.concatenate(drops.of_cut))


def _of_one(tables: Tables, options: _Options, placement: int) -> Floats:
    """Latency of strategies with one cut, milliseconds, ``[M]``. From edge to cloud, the raw image crosses hop one."""
    front, back = (TIERS.index(tier) for tier in PLACEMENTS[placement])
    hops = {
        END_EDGE: tables.cross_ms[:, 0],
        END_CLOUD: tables.cross_ms.sum(axis=1),
        EDGE_CLOUD: tables.cross_ms[:, 1],
    }
    raw_ms = tables.cross_ms[0, 0] if placement == EDGE_CLOUD else 0.0
    until = np.cumsum(tables.run_ms, axis=0)
    run_ms = until[options.cut, front] + (until[-1] - until)[options.cut, back]
    return run_ms + raw_ms + hops[placement][options.cut + 1] * options.kept  # type: ignore[no-any-return]


def _of_two(tables: Tables, options: _Options, first: Ints, second: Ints) -> Floats:
    """Latency of strategies with two cuts, milliseconds, shaped like ``first`` and ``second`` (rows of ``options``).

    The end computes up to the first cut, the edge up to the second, and the cloud the rest.
    """
    until = np.cumsum(tables.run_ms, axis=0)
    near, far = options.cut[first], options.cut[second]
    end_ms, edge_ms = until[near, 0], until[far, 1] - until[near, 1]
    cloud_ms = until[-1, 2] - until[far, 2]
    crossed_ms = tables.cross_ms[near + 1, 0] * options.kept[first] + tables.cross_ms[far + 1, 1] * options.kept[second]
    return end_ms + edge_ms + cloud_ms + crossed_ms  # type: ignore[no-any-return]


def _pairs(one: Ints, none: Ints, first: Ints, second: Ints) -> Ints:
    """A column ``[N, 2]`` of strategies with one cut, then of those with two."""
    return np.stack([np.concatenate([one, first]), np.concatenate([none, second])], axis=1)
