"""CNNPC's tables as a profile of ours, and the world in which its arithmetic is the truth.

Every cut at every rate becomes an operating point, its channel ratio the share that is kept, and the three tiers become
machines. T_C says how long a whole feature takes on either hop, so payloads are that time at the hops' nominal rates;
with links of these rates, no protocol and no chance, a frame takes what the table says.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tidesplit.agents.cnnpc.pruning import Drops
from tidesplit.agents.cnnpc.published_tables import TIERS, TableError, Tables
from tidesplit.agents.cnnpc.strategies import (
    ALL_TIERS,
    CONSTANT_MS,
    EDGE_CLOUD,
    END_CLOUD,
    END_EDGE,
    Strategies,
)
from tidesplit.compression.codec.knobs import PASSED_ON, joined
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Floats
from tidesplit.profiling.points import tiers
from tidesplit.profiling.points.profile import Codec, DeviceTable, OperatingPoint, Profile, Provenance, Timing
from tidesplit.profiling.points.table import PointTable

HOP_BPS = 20e6
"""Between end and edge, as in all of CNNPC's published tables. The second hop is as much slower as its raw image is."""
RAW, WHOLE = "raw", "end"
UNTROUBLED = World(
    rtt_s=CONSTANT_MS / 1e3,  # CNNPC gives no reason for its constant
    request_s=0.0,
    rtt_jitter=0.0,
    overhead_bytes=0.0,
    initial_window_bytes=float("inf"),
    probe_after_s=1e9,
    throttled_slowdown=1.0,
    compute_jitter=0.0,
    calm_wait_s=0.0,
    busy_wait_s=0.0,
    wired_rtt_s=0.0,
    wired_rtt_jitter=0.0,
)


def point_id(cut: int, removed: int) -> str:
    """The operating point of a cut, counted from 0, with so many channels removed."""
    return f"cut{cut + 1}-k{removed}"


def profile_of(tables: Tables, drops: Drops, name: str = "cnnpc") -> Profile:
    """The tables as a profile: machines end, edge and cloud; rates whose accuracy is not known are left out.

    Raises:
        TableError: a feature that takes no time.
    """
    if not (tables.cross_ms > 0.0).all():
        raise TableError("T_C: a hop that takes no time received, more than 0 ms expected")
    cuts = len(tables.channels)
    made = Provenance(kind="measured", source="CNNPC (Yang et al., TPDS 2022), T_R.npy, T_C.npy and accuracies")
    at: dict[str, tuple[int, int, float, Codec]] = {RAW: (0, 0, 0.0, "jpeg"), WHOLE: (cuts + 1, 0, 0.0, "none")}
    at |= {
        point_id(cut, k): (cut + 1, k, drop, "feature")
        for cut in range(cuts)
        for k, drop in enumerate(drops.of_cut[cut].tolist())
        if np.isfinite(drop)
    }
    points = tuple(_point(i, *about, tables, drops.base) for i, about in at.items())
    devices = {
        tier: DeviceTable(
            provenance=made,
            timings={i: _timing(tables.run_ms[:, column] / 1e3, partition) for i, (partition, _, _, _) in at.items()},
        )
        for column, tier in enumerate(TIERS)
    }
    return Profile(name=name, partitions=cuts + 1, points=points, accuracy_provenance=made, devices=devices)


def table_of(profile: Profile, tables: Tables, ids: list[str]) -> PointTable:
    """The columns of strategies, named as in `profiling.points.tiers`: ``raw`` is the image as it is.

    A feature's time on the second hop is its own, even where it is not in proportion to that on the first.
    """
    table = tiers.table_of(profile, TIERS, ids)
    uplink, between = table.hops
    first, second = tables.cross_ms.T
    own = np.append(second / first / slower(tables), 1.0)[between.partition]
    return replace(table, hops=(uplink, replace(between, bytes_mean=between.bytes_mean * own)))


def name_of(strategies: Strategies, row: int) -> str:
    """A strategy's name as a point of three tiers."""
    (first, second), (k, also) = strategies.cut[row].tolist(), strategies.removed[row].tolist()
    one = point_id(first, k)
    return {
        END_EDGE: one,
        END_CLOUD: joined(one, PASSED_ON),
        EDGE_CLOUD: joined(RAW, one),
        ALL_TIERS: joined(one, point_id(second, also)),
    }[int(strategies.placement[row])]


def links_of(tables: Tables) -> tuple[Trace, Trace]:
    """The two hops, constant."""
    rates = HOP_BPS, HOP_BPS / slower(tables)
    first, second = (Trace(name, np.zeros(1), 1.0, np.array([bps])) for name, bps in zip(TIERS, rates, strict=False))
    return first, second


def slower(tables: Tables) -> float:
    """How many times slower the second hop is than the first, for the raw image."""
    return float(tables.cross_ms[0, 1] / tables.cross_ms[0, 0])


def _point(
    name: str, partition: int, removed: int, drop: float, codec: Codec, tables: Tables, base: float
) -> OperatingPoint:
    inner = codec == "feature"
    kept = 1.0 - removed / int(tables.channels[partition - 1]) if inner else 1.0
    whole_s = 0.0 if codec == "none" else float(tables.cross_ms[partition, 0]) / 1e3
    return OperatingPoint(
        id=name,
        partition=partition,
        channel_ratio=kept,
        region_ratio=1.0,
        bits=8 if inner else 0,
        codec=codec,
        accuracy=base - drop,
        accuracy_ci95=(0.0, 1.0),
        bytes_mean=whole_s * kept * HOP_BPS / 8.0,
        n=0,
    )


def _timing(run_s: Floats, partition: int) -> Timing:
    """A tier that runs all before the cut, or all behind it."""
    return Timing(
        head_s=float(run_s[:partition].sum()),
        encode_s=0.0,
        decode_s=0.0,
        tail_s=float(run_s[partition:].sum()),
        finish_s=0.0,
    )
