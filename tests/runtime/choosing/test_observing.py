"""The device's own observation equals the simulator's in every bit, whatever the situation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.deployed import points, points_of_three
from tidesplit.envs.world.observation import Situation, observe
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.radio import WIRED
from tidesplit.envs.world.vocabulary import Demand, Demands, Floats, Transfers
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.table import PointTable
from tidesplit.profiling.points.tiers import table_of
from tidesplit.runtime.choosing.observing import Observer

WORLD = World()
PROFILE = profiles.load("efficientnet_lite0")
IDS = (
    "p0-jpeg-q20", "p0-webp-q50", "p0-h264-q34", "p4-c0.50-r1.00-b2-i8-s", "p3-c0.25-r1.00-b2-i8", "device-c0.50-i8",
    "p0-jpeg-q30+device-c0.25-i8", "p0-h264-q26+device-c0.25-i8", "p5-c1.00-r1.00-b2-i8-s+finish",
)  # fmt: skip
TABLES: dict[str, PointTable] = {
    "pictures, cuts, streams, races": table_of(PROFILE, ("raspberry-pi-4", "x86-2core"), IDS),
    "no stream, no race, no energy": replace(points(4)[1], machine=table_of(PROFILE, ("x86-2core",) * 2, IDS).machine),
    "all leave the device": table_of(PROFILE, ("raspberry-pi-4", "x86-2core"), IDS[:2]),
}
WORLDS = {"LTE": WORLD, "wired": replace(WORLD, radio=WIRED), "small window": replace(WORLD, window=3)}
NOW_S = 20.0


def some(*usual: float, below: float) -> st.SearchStrategy[float]:
    """One of the usual values, or any other from zero to ``below``."""
    return st.sampled_from(usual) | st.floats(0.0, below)


MESSAGE = st.tuples(
    some(0.0, 0.033, below=12.0),  # sent so long before the next
    some(1e9, 0.07, below=12.0),  # answered so long after sending; 1e9: never
    some(150.0, 1350.0, below=50_000.0).map(lambda size: size + 64.0),
    some(0.0, below=2.0),
    some(0.06, below=2.0),
    some(0.0, below=1.0),
    some(1e9, 0.0, below=0.2).map(lambda s: s - 0.1),  # due so long after now
    some(0.0, 0.02, below=0.5),
    some(0.0, 0.008, below=0.1),
)


def transfers(messages: list[tuple[float, ...]], window: int) -> Transfers:
    """The messages, newest first."""
    made, sent_s = Transfers.none(1, window), NOW_S
    for slot, (gap_s, after_s, *values, due_s, finish_s, tail_s) in enumerate(messages[:window]):
        sent_s -= gap_s
        answered_s = np.inf if after_s > 1e6 else sent_s + after_s
        row = (sent_s, answered_s, *values, np.inf if due_s > 1e6 else NOW_S + due_s, finish_s, tail_s)
        for column, value in zip(made, row, strict=True):
            column[0, slot] = value
    return made


def one(value: float) -> Floats:
    return np.array([value])


@st.composite
def situations(draw: st.DrawFn, table: PointTable, window: int) -> Situation:
    ages = st.lists(
        some(np.inf, 1.0, below=100.0).map(np.ceil), min_size=table.streams.count, max_size=table.streams.count
    )
    return Situation(
        one(NOW_S), one(draw(some(0.0, below=0.2))), (transfers(draw(st.lists(MESSAGE, max_size=9)), window),),
        one(draw(some(1.0, below=20.0))), np.array([draw(st.integers(-1, table.size - 1))]),
        one(draw(some(0.0, below=0.2))), one(draw(some(50.0, below=90.0))),
        draw(st.none() | st.booleans().map(lambda shut: np.array([shut]))),
        draw(st.none() | ages.map(lambda known: np.array([known]))),
    )  # fmt: skip


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_it_is_equal_in_every_bit(table: PointTable, world: World, data: st.DataObject) -> None:
    demand = data.draw(st.sampled_from([Demand(), Demand(objective="latency", min_accuracy=0.8, deadline_s=0.25)]))
    observer = Observer(table, demand, world)
    for _ in range(2):  # the second one finds the arrays of the first
        now = data.draw(situations(table, world.window))
        expected, found = observe(now, table, Demands.of(demand), world), observer.observe(now)
        for theirs, ours in zip(expected, found, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def test_an_observation_stays_as_it_is_when_the_next_one_is_made() -> None:
    table = TABLES["pictures, cuts, streams, races"]
    observer = Observer(table, Demand(), WORLD)
    calm = Situation(one(1.0), one(0.0), (transfers([], WORLD.window),), one(1.0), np.array([2]), one(0.0), one(50.0))
    first = observer.observe(calm)
    kept = tuple(column.copy() for column in first)
    observer.observe(calm._replace(slow_down=one(3.0), last_point=np.array([1]), blocked=np.array([True])))
    for column, before in zip(first, kept, strict=True):
        assert np.array_equal(column, before)


def test_three_tiers_are_observed_as_the_simulator_does() -> None:
    _, table = points_of_three(3)
    idle = (transfers([], WORLD.window),) * 2
    now = Situation(one(1.0), one(0.0), idle, one(1.0), np.array([2]), one(0.0), one(50.0))
    found = Observer(table, Demand(), WORLD).observe(now)
    for ours, theirs in zip(found, observe(now, table, Demands.of(Demand()), WORLD), strict=True):
        assert np.array_equal(ours, theirs)
