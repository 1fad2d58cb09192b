"""The points as one device and one server see them; which are dominated, which stand for others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.profiles import DEVICE, ROWS, SERVER, synthetic_profile
from tidesplit.profiling.points.profile import ProfileError
from tidesplit.profiling.points.table import HopColumns, PointTable, above_floor, representative, table_for, undominated


def points(**columns: list[float]) -> PointTable:
    """A table of these head_s, bytes_mean, server_s and accuracy; ids are letters."""
    given = {name: np.array(column, dtype=float) for name, column in columns.items()}
    zero = np.zeros(len(next(iter(given.values()))))
    ones = np.ones_like(zero, dtype=np.int64)
    uplink = HopColumns(
        partition=ones,
        channel_ratio=zero + 1.0,
        region_ratio=zero + 1.0,
        bits=ones,
        sends=ones > 0,
        relays=ones < 0,
        compute_s=zero,
        bytes_mean=given.pop("bytes_mean", zero),
        bytes_sigma=zero,
    )
    table = PointTable(
        ids=tuple("abcdefghijklmnopqrstuvwxyz"[: zero.size]),
        hops=(uplink,),
        head_s=zero,
        server_s=zero,
        finish_s=zero,
        accuracy=zero,
        finish_accuracy=zero,
        races=ones < 0,
        jitter=zero,
    )
    return replace(table, **given)


def test_columns_come_from_the_right_machine() -> None:
    table = table_for(synthetic_profile(), DEVICE, SERVER)
    assert table.ids == tuple(ROWS)
    assert table.size == 10
    cut, image, local = table.row("cut1-w50-b4"), table.row("jpeg95"), table.row("device-w100")
    picked = [cut, image, local]
    expected = {
        "local": [False, False, True],
        "head_s": [0.016, 0.006, 0.110],
        "server_s": [0.009, 0.012, 0.0],
        "finish_s": [0.030, np.inf, np.inf],
        "accuracy": [0.87, 0.92, 0.92],
        "finish_accuracy": [0.85, 0.0, 0.0],
    }
    of_uplink = {
        "partition": [1, 0, 3],
        "bits": [4, 95, 0],
        "sends": [True, True, False],
        "relays": [False, False, False],
        "compute_s": [0.0, 0.0, 0.0],
        "bytes_mean": [300.0, 11_000.0, 0.0],
        "bytes_sigma": [0.1, 0.1, 0.0],
    }
    (uplink,) = table.hops
    for part, columns in ((table, expected), (uplink, of_uplink)):
        for name, values in columns.items():
            np.testing.assert_allclose(getattr(part, name)[picked], values, err_msg=name)


def test_encode_belongs_to_the_device_and_decode_to_the_server() -> None:
    profile = synthetic_profile()
    for label in (DEVICE, SERVER):
        slow = {i: replace(t, encode_s=1.0, decode_s=10.0) for i, t in profile.devices[label].timings.items()}
        profile = profile.with_device(label, replace(profile.devices[label], timings=slow))
    table = table_for(profile, DEVICE, SERVER)
    assert table.head_s[0] == pytest.approx(1.006)
    assert table.server_s[0] == pytest.approx(10.012)
    assert table.server_s[table.local].tolist() == [0.0] * 3


def test_machines_and_points_that_are_not_there() -> None:
    with pytest.raises(ProfileError, match="synthetic has no timings of 'moon'; it has raspberry-pi-4, x86-2core"):
        table_for(synthetic_profile(), DEVICE, "moon")
    with pytest.raises(ProfileError, match="no operating point 'x'; there are a, b"):
        points(head_s=[1, 2]).row("x")


def test_taking_rows_keeps_their_order() -> None:
    taken = points(head_s=[1, 2, 3], bytes_mean=[10, 20, 30]).take([2, 0])
    assert (taken.ids, taken.head_s.tolist()) == (("c", "a"), [3, 1])
    assert taken.hops[0].bytes_mean.tolist() == [30, 10]


# columns -> ids that stay
DOMINANCE: dict[str, tuple[dict[str, list[float]], str]] = {
    "faster and as good": ({"head_s": [1, 2], "accuracy": [0.9, 0.9]}, "a"),
    "slower but better": ({"head_s": [1, 2], "accuracy": [0.8, 0.9]}, "ab"),
    "worse in everything": ({"head_s": [2, 1], "bytes_mean": [2, 1], "accuracy": [0.8, 0.9]}, "b"),
    "fewer bytes": ({"head_s": [1, 2], "bytes_mean": [2, 1], "accuracy": [0.9, 0.9]}, "ab"),
    "faster on the server": ({"server_s": [2, 1], "accuracy": [0.9, 0.9]}, "b"),
    "equal: the first stays": ({"head_s": [1, 1, 1], "accuracy": [0.9, 0.9, 0.9]}, "a"),
    "a chain": ({"head_s": [3, 2, 1], "accuracy": [0.7, 0.8, 0.9]}, "c"),
}


@pytest.mark.parametrize("case", DOMINANCE.values(), ids=DOMINANCE)
def test_dominated_points_are_dropped(case: tuple[dict[str, list[float]], str]) -> None:
    columns, stays = case
    assert "".join(undominated(points(**columns)).ids) == stays


rows = st.lists(st.tuples(*[st.integers(0, 4)] * 4), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(rows)
def test_dominance_equals_its_definition(rows: list[tuple[int, ...]]) -> None:
    """Whatever is dropped, something that stays is as good; nothing that stays is beaten by another that does."""
    names = ("head_s", "bytes_mean", "server_s", "accuracy")
    table = points(**{name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})
    cost = {i: (*row[:3], -row[3]) for i, row in zip(table.ids, rows, strict=True)}
    kept = undominated(table).ids

    def as_good(one: str, other: str) -> bool:
        return all(a <= b for a, b in zip(cost[one], cost[other], strict=True))

    assert all(any(as_good(stays, i) for stays in kept) for i in table.ids)
    assert not any(as_good(one, other) for one in kept for other in kept if one != other)


times = st.floats(1e-3, 1.0)
sizes = st.one_of(st.just(0.0), st.floats(10.0, 1e5))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(times, sizes, st.floats(0.1, 1.0)), min_size=1, max_size=26), times, st.floats(0.0, 1e5))
def test_representatives_keep_nearly_the_best_of_every_budget(
    rows: list[tuple[float, float, float]], head_s: float, size: float
) -> None:
    """Within any budget the best point is matched by one that stays and costs at most a step of the grid more."""
    heads, bytes_mean, accuracy = (list(column) for column in zip(*rows, strict=True))
    table = points(head_s=heads, bytes_mean=bytes_mean, accuracy=accuracy)
    kept = representative(table, head_step=1.25, bytes_step=1.5)
    assert set(kept.ids) <= set(table.ids)
    fits = (table.head_s <= head_s) & (table.hops[0].bytes_mean <= size)
    if fits.any():
        nearly = (kept.head_s <= 1.25 * head_s * (1 + 1e-9)) & (kept.hops[0].bytes_mean <= 1.5 * size * (1 + 1e-9))
        assert kept.accuracy[nearly].max(initial=0.0) >= table.accuracy[fits].max()


def test_representatives_of_points_that_hardly_differ() -> None:
    heads, sizes = [0.05, 0.100, 0.101, 0.102], [50.0, 100.0, 101.0, 102.0]
    table = points(head_s=heads, bytes_mean=sizes, accuracy=[0.7, 0.90, 0.91, 0.90])
    assert representative(table, head_step=1.25, bytes_step=1.5).ids == ("a", "c")


def test_representatives_keep_the_tables_order_and_the_extremes() -> None:
    table = table_for(synthetic_profile(), DEVICE, SERVER)
    kept = representative(undominated(table))
    assert list(kept.ids) == [i for i in table.ids if i in kept.ids]
    assert kept.accuracy.max() == table.accuracy.max()
    assert kept.local.any()
    assert (~kept.local).any()


def test_floor() -> None:
    table = points(accuracy=[0.7, 0.8, 0.9])
    assert above_floor(table, 0.8).tolist() == [False, True, True]
    sentence = "an accuracy of 0.95 is asked for and no operating point reaches it; the best is c with 0.9000"
    with pytest.raises(ProfileError, match=sentence):
        above_floor(table, 0.95)
