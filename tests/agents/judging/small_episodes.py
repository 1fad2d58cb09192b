"""SYNTHETIC: random episodes of a few frames, short enough for a brute force over all sequences of decisions."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from tests.agents.small import scenario, steps
from tidesplit.agents.judging.evaluation import simulation_of
from tidesplit.agents.judging.relaxed import Relaxed
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.physics import World
from tidesplit.profiling.points.stream_columns import KEY, Streams
from tidesplit.profiling.points.table import HopColumns, Machine, PointTable

PICTURE, CUT, LOCAL, PICTURE_RACES, CUT_RACES = range(5)
SHARES = (0.1, 0.25, 0.2, 0.3, 0.15)  # of these kinds
SEQUENCES = 256  # of points, at most: four frames if they are few enough
PI = Machine(idle_w=2.7, busy_w=6.5, threads=4)


def random_episode(seed: int) -> Scenario:
    """Three or four frames, four to six points of all kinds, a link that comes and goes, a cold or a hot device."""
    rng = np.random.default_rng(seed)
    fps, deadline_ms = (30.0, 100.0) if rng.random() < 0.6 else (10.0, 300.0)
    table = random_table(rng)
    frames = 4 if table.size**4 <= SEQUENCES else 3
    mbps = np.where(rng.random(12) < 0.3, 0.0, rng.choice([0.1, 0.5, 1.0, 3.0, 8.0], 12))
    air_c = float(rng.choice([20.0, 20.0, 65.0]))
    world = replace(
        World(),
        rtt_s=float(rng.choice([0.02, 0.06])),
        probe_after_s=float(rng.choice([0.05, 1.0])),
        mean_calm_s=0.2,
        mean_busy_s=0.1,
        coolest_c=air_c,
        warmest_c=air_c,
    )
    asked = scenario(
        steps("on and off", list(mbps), frames / fps / 12),
        fps=fps,
        deadline_ms=deadline_ms,
        objective="latency" if rng.random() < 0.5 else "accuracy",
        min_accuracy=float(rng.choice([0.0, 0.6])),
        world=world,
    )
    return replace(asked, table=table)


def random_table(rng: np.random.Generator) -> PointTable:
    """Four to six points. Half of the cuts that do not race can be finished, some better than by the server."""
    size = int(rng.integers(4, 7))
    kind = rng.choice(5, size, p=SHARES)
    races = kind >= PICTURE_RACES
    sends, light = kind != LOCAL, (kind == PICTURE) | (kind == PICTURE_RACES)
    finishes = races | ((kind == CUT) & (rng.random(size) < 0.5))
    accuracy = rng.uniform(0.6, 0.95, size)
    uplink = HopColumns(
        partition=np.where(light, 0, np.where(sends, 1, 3)),
        channel_ratio=np.ones(size),
        region_ratio=np.ones(size),
        bits=np.full(size, 8),
        sends=sends,
        relays=np.zeros(size, dtype=bool),
        compute_s=np.zeros(size),
        bytes_mean=np.where(sends, rng.choice([150.0, 600.0, 1500.0, 4000.0, 11000.0], size), 0.0),
        bytes_sigma=0.1 * sends,
    )
    head_s = np.where(sends, rng.uniform(0.008, 0.045, size), rng.uniform(0.015, 0.11, size))
    return PointTable(
        ids=tuple(f"point {number}" for number in range(size)),
        hops=(uplink,),
        head_s=np.where(light, 0.1 * head_s, head_s),
        server_s=rng.uniform(0.003, 0.012, size) * sends,
        finish_s=np.where(finishes, rng.uniform(0.01, 0.08, size), np.inf),
        accuracy=accuracy,
        finish_accuracy=np.where(finishes, accuracy - rng.uniform(-0.02, 0.2, size), 0.0),
        races=races,
        jitter=np.full(size, rng.choice([0.0, 0.03, 0.1])),
        machine=PI,
    )


def with_streams(asked: Scenario, seed: int) -> Scenario:
    """The episode with one or two streams, in which most of the points that send do so. Some of them soon break."""
    rng = np.random.default_rng([seed, 1])
    table, size = asked.table, asked.table.size
    of = np.where(~table.local & (rng.random(size) < 0.8), rng.integers(0, 2, size), -1)
    growth = np.cumprod(rng.uniform(0.9, 2.0, (size, KEY + 1)), axis=1)
    growth = np.where(of[:, None] >= 0, growth / growth[:, :1], 1.0)
    streams = Streams(names=("one", "two"), of=of, growth=growth).take(list(range(size)))
    world = replace(asked.world, answer_limit_s=float(rng.choice([0.03, 0.1, 2.0])))
    return replace(asked, table=replace(table, streams=streams), world=world)


def best_plan(asked: Scenario, seed: int, forbids: bool = False) -> float:
    """Mean utility of the best of all sequences of decisions in the true world, each played in a lane of its own.

    ``forbids``: True where a plan can also forbid the device to run a frame that it sends, frame by frame.
    """
    table, frames = asked.table, int(simulation_of(asked, seed).frames[0])
    finishes = np.flatnonzero(np.isfinite(table.finish_s)) if forbids else []
    ways = [(row, False) for row in range(table.size)] + [(int(row), True) for row in finishes]
    points, forbidden = np.array(list(product(ways, repeat=frames)), dtype=np.int64).transpose(2, 1, 0)
    lanes = points.shape[1]
    rngs = [np.random.default_rng([seed, 0]) for _ in range(lanes)]
    played = Simulation(asked, rngs, trace_of=np.zeros(lanes, dtype=np.int64))
    each_its_own = table.with_columns(lambda column: np.broadcast_to(column, (lanes, len(column))), table.ids)
    total = np.zeros(lanes)
    for chosen, stays in zip(points, forbidden, strict=True):
        if forbids:
            finish_s = np.where(stays[:, None] > 0, np.inf, table.finish_s)
            played.table = replace(each_its_own, finish_s=finish_s)
        outcome, _ = played.step(chosen)
        total += outcome.utility
    return float(total.max()) / frames


def best_in_the_kinder_world(asked: Scenario, seed: int) -> float:
    """Mean utility of the best of all sequences there: nothing is merged or dropped."""
    world = Relaxed(simulation_of(asked, seed), 0)
    states = world.first()
    for k in range(world.frames):
        states = world.after(k, states, every=True)
    return float(states.value.max()) / world.frames
