"""The device's own observation equals the simulator's in every bit, whatever the situation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.deployed import points, points_of_three
from tidesplit.envs.world.observation import observe
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.radio import WIRED
from tidesplit.envs.world.vocabulary import Demand, Demands
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.table import PointTable
from tidesplit.profiling.points.tiers import table_of
from tidesplit.runtime.choosing.device_situation import DeviceSituation
from tidesplit.runtime.choosing.observing import Observer
from tidesplit.runtime.wire.estimator import UNUSED

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


JOULE_PRICE, BYTE_PRICE = some(0.0, 3.0, below=1e3), some(0.0, 1e-4, below=1.0)
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


def rows(messages: list[tuple[float, ...]], window: int) -> list[tuple[float, ...]]:
    """The messages, newest first."""
    made, sent_s = [], NOW_S
    for gap_s, after_s, *values, due_s, finish_s, tail_s in messages[:window]:
        sent_s -= gap_s
        answered_s = np.inf if after_s > 1e6 else sent_s + after_s
        made.append((sent_s, answered_s, *values, np.inf if due_s > 1e6 else NOW_S + due_s, finish_s, tail_s))
    return made + [UNUSED] * (window - len(made))


@st.composite
def situations(draw: st.DrawFn, table: PointTable, window: int) -> DeviceSituation:
    ages = st.lists(
        some(np.inf, 1.0, below=100.0).map(np.ceil), min_size=table.streams.count, max_size=table.streams.count
    )
    return DeviceSituation(
        NOW_S, draw(some(0.0, below=0.2)), (rows(draw(st.lists(MESSAGE, max_size=9)), window),),
        draw(some(1.0, below=20.0)), draw(st.integers(-1, table.size - 1)), draw(some(0.0, below=0.2)),
        draw(some(50.0, below=90.0)), draw(st.booleans()), draw(st.none() | ages),
        draw(st.none() | st.lists(
            some(1.0, 0.1, below=8.0), min_size=table.streams.count, max_size=table.streams.count
        )),
    )  # fmt: skip


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_it_is_equal_in_every_bit(table: PointTable, world: World, data: st.DataObject) -> None:
    demand = data.draw(st.sampled_from([Demand(), Demand(objective="latency", min_accuracy=0.8, deadline_s=0.25)]))
    observer, demands = Observer(table, demand, world), Demands.of(demand)
    for _ in range(2):  # the second one finds the arrays of the first
        now, prices = data.draw(situations(table, world.window)), (data.draw(JOULE_PRICE), data.draw(BYTE_PRICE))
        demands.joule_price[:], demands.byte_price[:] = prices
        observer.charge(*prices)
        expected, found = observe(now.as_lane(), table, demands, world), observer.observe(now)
        for theirs, ours in zip(expected, found, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def test_an_observation_stays_as_it_is_when_the_next_one_is_made() -> None:
    table = TABLES["pictures, cuts, streams, races"]
    observer = Observer(table, Demand(), WORLD)
    calm = DeviceSituation(1.0, 0.0, (rows([], WORLD.window),), 1.0, 2, 0.0, 50.0)
    first = observer.observe(calm)
    kept = tuple(column.copy() for column in first)
    observer.observe(calm._replace(slow_down=3.0, last_point=1, blocked=True))
    for column, before in zip(first, kept, strict=True):
        assert np.array_equal(column, before)


def test_three_tiers_are_observed_as_the_simulator_does() -> None:
    _, table = points_of_three(3)
    now = DeviceSituation(1.0, 0.0, (rows([], WORLD.window),) * 2, 1.0, 2, 0.0, 50.0)
    found = Observer(table, Demand(), WORLD).observe(now)
    for ours, theirs in zip(found, observe(now.as_lane(), table, Demands.of(Demand()), WORLD), strict=True):
        assert np.array_equal(ours, theirs)
