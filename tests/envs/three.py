"""SYNTHETIC: round points of three tiers, for the world of `tests.envs.small` with a second link."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.envs import small
from tests.profiles import CLOUD, SERVER, three_tier_profile
from tidesplit.envs.simulation.scenario import ScenarioOptions, scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.link import ConstantUplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame, Message, Queues, advance
from tidesplit.envs.world.vocabulary import Demand, Demands, Outcome
from tidesplit.profiling.points.table import Onward, PointTable

IMAGE, IMAGE_ON, IMAGE_CUT, CUT, CUT_ON, CUT_CUT, LOCAL = range(7)
AGAIN = [False, False, True, False, False, True, False]
GOES_ON = [False, True, True, False, True, True, False]
FROM = [0, 0, 0, 1, 1, 1, 2]  # rows of the two tiers' table
TABLE: PointTable = replace(
    small.TABLE.take(FROM),
    ids=("image", "image>cloud", "image>late", "cut", "cut>cloud", "cut>late", "local"),
    partition=np.array([0, 0, 0, 1, 1, 1, 3]),
    server_s=np.array([0.020, 0.005, 0.002, 0.010, 0.004, 0.002, 0.0]),
    accuracy=np.array([0.9, 0.9, 0.85, 0.8, 0.8, 0.75, 0.6]),
    onward=Onward(
        partition=np.array([3, 0, 2, 3, 1, 2, 3]),
        channel_ratio=np.ones(7),
        region_ratio=np.ones(7),
        bits=np.full(7, 8),
        sends=np.array(GOES_ON),
        relays=np.array(GOES_ON) & ~np.array(AGAIN),
        middle_s=np.array([0.0, 0.0, 0.015, 0.0, 0.0, 0.008, 0.0]),
        # with 150 bytes of overhead: what came, or 500
        bytes_mean=np.array([0.0, 3850.0, 350.0, 0.0, 850.0, 350.0, 0.0]),
        bytes_sigma=np.zeros(7),
    ),
)
WORLD = replace(small.WORLD, onward_rtt_s=0.010)
ONWARD_BYTES_PER_S = 200_000.0  # the image is 20 ms on the second link, the cut 5 ms, the second cut 2.5 ms
IDLE = Queues.idle(1, tiers=3)._replace(last_sent_s=np.zeros(1), onward_last_s=np.zeros(1))


def play(
    point: int,
    *,
    arrival_s: float = 0.0,
    queues: Queues = IDLE,
    demand: Demand | None = None,
    world: World = WORLD,
    rate: float = small.BYTES_PER_S,
    onward_rate: float = ONWARD_BYTES_PER_S,
    table: PointTable = TABLE,
    wait_s: float = 0.0,
    onward_rtt_s: float | None = None,
    **beliefs: float,
) -> tuple[Queues, Outcome, Message]:
    """One frame of one lane through the pipeline. ``beliefs``: ``slow_belief``, ``expected_s``."""
    rtt, onward_rtt = np.array([world.rtt_s]), np.array([world.onward_rtt_s if onward_rtt_s is None else onward_rtt_s])
    frame = Frame(np.array([arrival_s]), rtt, rtt, np.ones(1), np.array([wait_s]), np.zeros(1), onward_rtt, onward_rtt)
    return advance(
        queues,
        np.array([point]),
        frame,
        table=table,
        demands=Demands.of(demand or Demand(deadline_s=0.2)),
        world=world,
        uplink=ConstantUplink(np.array([rate])),
        lane=np.zeros(1, dtype=np.int64),
        onward=ConstantUplink(np.array([onward_rate])),
        **{name: np.array([value]) for name, value in beliefs.items()},
    )


def three_tiers(**options: Any) -> Scenario:
    """Episodes of three tiers, over a second link that comes and goes, with any argument of `scenario_from`."""
    mbps = np.array([2.0, 8.0, 0.5, 0.0, 4.0])
    second = Trace("second", np.arange(5) * 0.11, 0.55, mbps * 1e6)
    about: ScenarioOptions = {
        "profile": three_tier_profile(), "tiers": 3, "server": SERVER, "cloud": CLOUD, "onward_trace": second,
        **options,  # type: ignore[typeddict-item]
    }  # fmt: skip
    return scenario_from(**about)


def queued(**times: Any) -> Queues:
    """Idle queues but for these times."""
    return IDLE._replace(**{name: np.array([value]) for name, value in times.items()})
