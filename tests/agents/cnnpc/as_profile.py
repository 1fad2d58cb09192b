"""CNNPC's tables as a profile, and the world in which frames take exactly the times that CNNPC computes.

Every cut at every rate becomes an operating point, whose channel ratio is the share of channels that is kept. The three
tiers become machines. T_C gives times and not bytes, so payloads are these times at the hops' nominal rates. On links
of these rates, without protocol overhead and chance, a frame takes the time in the tables.
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
from tidesplit.envs.world.heat import NO_HEAT
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Floats
from tidesplit.profiling.points import tiers
from tidesplit.profiling.points.profile import Codec, DeviceTable, OperatingPoint, Profile, Provenance, Timing
from tidesplit.profiling.points.table import PointTable

HOP_BPS = 20e6
"""Rate from end to edge in all of CNNPC's published tables. The second hop's rate follows from T_C of the raw image."""
RAW, WHOLE = "raw", "end"
UNTROUBLED = World(
    rtt_s=CONSTANT_MS / 1e3,  # the constant becomes the round trip
    request_s=0.0,
    cold=1.0,
    picture_s=0.0,
    rtt_jitter=0.0,
    overhead_bytes=0.0,
    initial_window_bytes=float("inf"),
    probe_after_s=1e9,
    jitter=0.0,
    cooling=NO_HEAT,
    calm_wait_s=0.0,
    busy_wait_s=0.0,
    wired_rtt_s=0.0,
    wired_rtt_jitter=0.0,
)


def point_id(cut: int, removed: int) -> str:
    """Id of the operating point of a cut, counted from 0, with this number of channels removed."""
    return f"cut{cut + 1}-k{removed}"


def profile_of(tables: Tables, drops: Drops, name: str = "cnnpc") -> Profile:
    """The tables as a profile of the machines end, edge and cloud. Rates without a known accuracy are left out.

    Raises:
        TableError: a feature takes no time on a hop.
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
    """Operating points of strategies.

    T_C gives the two hops independent times, so the bytes on the second hop are corrected to its own.

    Args:
        profile: from `profile_of`.
        tables: CNNPC's tables.
        ids: strategies by the ids of `name_of`, in which ``raw`` is the raw image.
    """
    table = tiers.table_of(profile, TIERS, ids)
    uplink, between = table.hops
    first, second = tables.cross_ms.T
    own = np.append(second / first / slower(tables), 1.0)[between.partition]
    return replace(table, hops=(uplink, replace(between, bytes_mean=between.bytes_mean * own)))


def name_of(strategies: Strategies, row: int) -> str:
    """Id of a strategy's operating point in three tiers."""
    (first, second), (k, also) = strategies.cut[row].tolist(), strategies.removed[row].tolist()
    one = point_id(first, k)
    return {
        END_EDGE: one,
        END_CLOUD: joined(one, PASSED_ON),
        EDGE_CLOUD: joined(RAW, one),
        ALL_TIERS: joined(one, point_id(second, also)),
    }[int(strategies.placement[row])]


def links_of(tables: Tables) -> tuple[Trace, Trace]:
    """Traces of the two hops, with constant bandwidth."""
    rates = HOP_BPS, HOP_BPS / slower(tables)
    first, second = (Trace(name, np.zeros(1), 1.0, np.array([bps])) for name, bps in zip(TIERS, rates, strict=False))
    return first, second


def slower(tables: Tables) -> float:
    """Ratio of the raw image's time on the second hop to that on the first."""
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
    """Times of a tier that runs everything before the cut, or everything after it."""
    return Timing(
        head_s=float(run_s[:partition].sum()),
        encode_s=0.0,
        decode_s=0.0,
        tail_s=float(run_s[partition:].sum()),
        finish_s=0.0,
    )
