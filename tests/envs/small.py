"""SYNTHETIC: three round points and a world without chance, so that every time in a test can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tidesplit.envs.world.link import ConstantUplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame, Message, Queues, advance
from tidesplit.envs.world.vocabulary import Demand, Demands, Floats, Outcome
from tidesplit.profiling.points.table import PointTable

IMAGE, CUT, LOCAL = 0, 1, 2
TABLE = PointTable(
    ids=("image", "cut", "local"),
    partition=np.array([0, 1, 2]),
    channel_ratio=np.ones(3),
    region_ratio=np.ones(3),
    bits=np.array([90, 8, 0]),
    local=np.array([False, False, True]),
    head_s=np.array([0.010, 0.020, 0.050]),
    server_s=np.array([0.020, 0.010, 0.0]),
    finish_s=np.array([np.inf, 0.030, np.inf]),
    bytes_mean=np.array([3850.0, 850.0, 0.0]),  # with 150 bytes of overhead: 4000 and 1000
    bytes_sigma=np.zeros(3),
    accuracy=np.array([0.9, 0.8, 0.6]),
    finish_accuracy=np.array([0.0, 0.7, 0.0]),
)
WORLD = replace(World(), rtt_s=0.040, request_s=0.0, probe_after_s=1e9)  # no probes unless a test wants them
BYTES_PER_S = 100_000.0  # the image is 40 ms on the link, the cut 10 ms
IDLE = Queues.idle(1)._replace(last_sent_s=np.zeros(1))


def play(
    point: int,
    *,
    arrival_s: float = 0.0,
    queues: Queues = IDLE,
    demand: Demand | None = None,
    world: World = WORLD,
    rate: float = BYTES_PER_S,
    table: PointTable = TABLE,
    slow: float = 1.0,
    wait_s: float = 0.0,
    rtt_s: float | None = None,
    noise: float = 0.0,
    **beliefs: float,
) -> tuple[Queues, Outcome, Message]:
    """One frame of one lane through the pipeline. ``beliefs``: ``slow_belief``, ``expected_s``."""
    rtt = np.array([world.rtt_s if rtt_s is None else rtt_s])
    frame = Frame(
        np.array([arrival_s]), rtt, np.array([world.rtt_s]), np.array([slow]), np.array([wait_s]), np.array([noise])
    )
    return advance(
        queues,
        np.array([point]),
        frame,
        table=table,
        demands=Demands.of(demand or Demand()),
        world=world,
        uplink=ConstantUplink(np.array([rate])),
        lane=np.zeros(1, dtype=np.int64),
        **{name: np.array([value]) for name, value in beliefs.items()},
    )


def queued(**times: float) -> Queues:
    """Idle queues but for these times."""
    return IDLE._replace(**{name: np.array([value]) for name, value in times.items()})


def values(row: Any) -> dict[str, float]:
    """A named tuple of ``[1]`` arrays as plain numbers, without what two tiers lack."""
    return {name: column[0].item() for name, column in row._asdict().items() if column is not None}


def stacked(row: Any) -> Floats:
    """The columns of a named tuple as one array, without what two tiers lack."""
    return np.stack([column for column in row if column is not None])
