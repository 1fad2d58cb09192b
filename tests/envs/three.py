"""SYNTHETIC: round points of three tiers, for the world of `tests.envs.small` with a second hop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.envs import small
from tests.profiles import CLOUD, SERVER, three_tier_profile
from tidesplit.envs.simulation.scenario import ScenarioOptions, scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.hop import Crossing
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.queues import Queues
from tidesplit.envs.world.vocabulary import Demand, Outcome
from tidesplit.profiling.points.table import HopColumns, PointTable

IMAGE, IMAGE_ON, IMAGE_CUT, CUT, CUT_ON, CUT_CUT, LOCAL = range(7)
AGAIN = [False, False, True, False, False, True, False]
GOES_ON = [False, True, True, False, True, True, False]
FROM = [0, 0, 0, 1, 1, 1, 2]  # rows of the two tiers' table
BETWEEN = HopColumns(
    partition=np.array([3, 0, 2, 3, 1, 2, 3]),
    channel_ratio=np.ones(7),
    region_ratio=np.ones(7),
    bits=np.full(7, 8),
    sends=np.array(GOES_ON),
    relays=np.array(GOES_ON) & ~np.array(AGAIN),
    compute_s=np.array([0.0, 0.0, 0.015, 0.0, 0.0, 0.008, 0.0]),
    # with 150 bytes of overhead: what came, or 500
    bytes_mean=np.array([0.0, 3850.0, 350.0, 0.0, 850.0, 350.0, 0.0]),
    bytes_sigma=np.zeros(7),
)
OF_TWO = small.with_uplink(small.TABLE.take(FROM), partition=np.array([0, 0, 0, 1, 1, 1, 3]))
TABLE: PointTable = replace(
    OF_TWO,
    ids=("image", "image>cloud", "image>late", "cut", "cut>cloud", "cut>late", "local"),
    hops=(*OF_TWO.hops, BETWEEN),
    server_s=np.array([0.020, 0.005, 0.002, 0.010, 0.004, 0.002, 0.0]),
    accuracy=np.array([0.9, 0.9, 0.85, 0.8, 0.8, 0.75, 0.6]),
)
WORLD = replace(small.WORLD, wired_rtt_s=0.010)
HOP2_BYTES_PER_S = 200_000.0  # the image is 20 ms on the second hop, the cut 5 ms, the second cut 2.5 ms


def play(
    point: int,
    *,
    demand: Demand | None = None,
    world: World = WORLD,
    table: PointTable = TABLE,
    hop2_rate: float = HOP2_BYTES_PER_S,
    hop2_rtt_s: float | None = None,
    **about: Any,
) -> tuple[Queues, Outcome, tuple[Crossing, ...]]:
    """One frame of one lane through the pipeline, within 200 ms. ``about``: as in `tests.envs.small`."""
    hop2 = (hop2_rate, world.wired_rtt_s if hop2_rtt_s is None else hop2_rtt_s)
    asked = demand or Demand(deadline_s=0.2)
    return small.play(point, demand=asked, world=world, table=table, further=(hop2,), **about)


def three_tiers(**options: Any) -> Scenario:
    """Episodes of three tiers, over a second hop that comes and goes, with any argument of `scenario_from`."""
    mbps = np.array([2.0, 8.0, 0.5, 0.0, 4.0])
    second = Trace("second", np.arange(5) * 0.11, 0.55, mbps * 1e6)
    about: ScenarioOptions = {
        "profile": three_tier_profile(), "tiers": 3, "server": SERVER, "cloud": CLOUD, "second_trace": second,
        **options,  # type: ignore[typeddict-item]
    }  # fmt: skip
    return scenario_from(**about)


def queued(**times: float) -> Queues:
    """Idle queues of two hops but for these times."""
    return small.queued(2, **times)


def with_hop2(table: PointTable, **columns: Any) -> PointTable:
    """The table with these columns of its second hop in place of its own."""
    first, second = table.hops
    return replace(table, hops=(first, replace(second, **columns)))
