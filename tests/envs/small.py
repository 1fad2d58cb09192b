"""SYNTHETIC: three round points and a world without chance, so that every time in a test can be worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tidesplit.envs.world.heat import NO_HEAT
from tidesplit.envs.world.hop import Crossing, RoundTrip
from tidesplit.envs.world.link import ConstantUplink
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame, advance
from tidesplit.envs.world.queues import Queues
from tidesplit.envs.world.vocabulary import Demand, Demands, Floats, Outcome
from tidesplit.profiling.points.table import HopColumns, PointTable

IMAGE, CUT, LOCAL = 0, 1, 2
UPLINK = HopColumns(
    partition=np.array([0, 1, 2]),
    channel_ratio=np.ones(3),
    region_ratio=np.ones(3),
    bits=np.array([90, 8, 0]),
    sends=np.array([True, True, False]),
    relays=np.zeros(3, dtype=bool),
    compute_s=np.zeros(3),
    bytes_mean=np.array([3850.0, 850.0, 0.0]),  # with 150 bytes of overhead: 4000 and 1000
    bytes_sigma=np.zeros(3),
)
TABLE = PointTable(
    ids=("image", "cut", "local"),
    hops=(UPLINK,),
    head_s=np.array([0.010, 0.020, 0.050]),
    server_s=np.array([0.020, 0.010, 0.0]),
    finish_s=np.array([np.inf, 0.030, np.inf]),
    accuracy=np.array([0.9, 0.8, 0.6]),
    finish_accuracy=np.array([0.0, 0.7, 0.0]),
    races=np.zeros(3, dtype=bool),
    jitter=np.zeros(3),
)
# No probes and no heat unless a test wants them.
WORLD = replace(World(), rtt_s=0.040, request_s=0.0, cold=1.0, picture_s=0.0, probe_after_s=1e9, cooling=NO_HEAT)
BYTES_PER_S = 100_000.0  # the image is 40 ms on the link, the cut 10 ms


def play(
    point: int,
    *,
    arrival_s: float = 0.0,
    queues: Queues | None = None,
    demand: Demand | None = None,
    world: World = WORLD,
    rate: float = BYTES_PER_S,
    table: PointTable = TABLE,
    slow: float = 1.0,
    wait_s: float = 0.0,
    rtt_s: float | None = None,
    noise: float = 0.0,
    compute_noise: float = 0.0,
    ambient_c: float = 20.0,
    further: tuple[tuple[float, float], ...] = (),
    **beliefs: float,
) -> tuple[Queues, Outcome, tuple[Crossing, ...]]:
    """One frame of one lane through the pipeline.

    ``further``: bytes a second and round trip of each hop beyond the first. ``beliefs``: ``slow_belief``,
    ``expected_s``, ``worker_s``.
    """
    first = RoundTrip(np.array([world.rtt_s if rtt_s is None else rtt_s]), np.array([world.rtt_s]))
    trips = (first, *(RoundTrip(np.array([own_s]), np.array([own_s])) for _, own_s in further))
    rates = (rate, *(bytes_per_s for bytes_per_s, _ in further))
    return advance(
        queues or idle(len(trips)),
        np.array([point]),
        frame(
            arrival_s, trips, slow=slow, wait_s=wait_s, noise=noise, compute_noise=compute_noise, ambient_c=ambient_c
        ),
        table=table,
        demands=Demands.of(demand or Demand()),
        world=world,
        uplinks=tuple(ConstantUplink(np.array([bytes_per_s])) for bytes_per_s in rates),
        lane=np.zeros(1, dtype=np.int64),
        **{name: np.array([value]) for name, value in beliefs.items()},
    )


def frame(arrival_s: float, trips: tuple[RoundTrip, ...], **other: float) -> Frame:
    """A frame of one lane. ``other``: slow, compute_noise, wait_s, noise, ambient_c, and motion (default 1)."""
    one = {name: np.array([value]) for name, value in other.items()}
    return Frame(
        arrival_s=np.array([arrival_s]),
        slow_down=one["slow"],
        compute_noise=one["compute_noise"],
        server_wait_s=one["wait_s"],
        byte_noise=one["noise"],
        ambient_c=one["ambient_c"],
        motion=one.get("motion", np.ones(1)),
        hops=trips,
    )


def idle(hops: int = 1) -> Queues:
    """Queues of one lane with nothing under way, over whose links something was sent at 0 s."""
    queues = Queues.idle(1, hops)
    return queues._replace(hops=tuple(hop._replace(last_sent_s=np.zeros(1)) for hop in queues.hops))


def queued(hops: int = 1, **times: float) -> Queues:
    """Idle queues but for these times. Those of a link are named as `values` names them."""
    queues, columns = idle(hops), {name: np.array([value]) for name, value in times.items()}
    links = tuple(
        hop._replace(**{f: columns.pop(name) for f in hop._fields if (name := _of_hop(number, f)) in columns})
        for number, hop in enumerate(queues.hops, start=1)
    )
    return queues._replace(hops=links, **columns)


def _of_hop(number: int, name: str) -> str:
    """Name of a hop's column: ``link_free_s`` and ``last_sent_s`` of the first hop, ``hop2_free_s`` of the second."""
    return f"hop{number}_{name}" if number > 1 else {"free_s": "link_free_s"}.get(name, name)


def values(row: Any) -> dict[str, float]:
    """A named tuple of ``[1]`` arrays as plain numbers, the columns of its hops among them, but not its streams."""
    columns = row._asdict()
    columns.pop("references", None)
    for number, hop in enumerate(columns.pop("hops", ()), start=1):
        columns |= {_of_hop(number, name): column for name, column in hop._asdict().items()}
    return {name: column[0].item() for name, column in columns.items()}


def stacked(row: Any) -> Floats:
    """The columns of a named tuple, those of its hops too, as one array."""
    return np.stack(list(_columns(row)))


def _columns(row: Any) -> Iterator[Floats]:
    for column in row:
        yield from _columns(column) if isinstance(column, tuple) else np.atleast_2d(column.T)


def with_uplink(table: PointTable, **columns: Any) -> PointTable:
    """The table with these columns of its first hop in place of its own."""
    first, *further = table.hops
    return replace(table, hops=(replace(first, **columns), *further))
