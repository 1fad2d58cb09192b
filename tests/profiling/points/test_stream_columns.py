"""Streams of a table: their bytes by age, their rows, and which of them are offered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.profiles import CLOUD, DEVICE, SERVER, STREAMS, stream_profile, synthetic_profile, three_tier_profile
from tidesplit.profiling.points.profile import ProfileError
from tidesplit.profiling.points.stream_columns import Streams, column_of
from tidesplit.profiling.points.table import PointTable, as_keys, representative, table_for, undominated
from tidesplit.profiling.points.tiers import names, points_of, table_of

NAMES = ("p1", "p0-h264-q34")
VIDEO, WIDE, NARROW = "p0-h264-q34", "p1-c1.00-r1.00-b4-s", "p1-c0.50-r1.00-b4-s"

# age in frames -> bytes of the video, worked out by hand: linear in the logarithm between 1, 2, 4, 8, 16 and 32
BYTES: dict[float, float] = {
    1: 500.0,
    2: 1_000.0,
    3: 1_000.0 + 1_000.0 * np.log2(1.5),
    4: 2_000.0,
    6: 2_000.0 + 1_000.0 * np.log2(1.5),
    8: 3_000.0,
    12: 3_000.0 + 1_000.0 * np.log2(1.5),
    16: 4_000.0,
    24: 4_000.0 + 2_000.0 * np.log2(1.5),
    32: 6_000.0,
    33: 6_000.0,
    5_000: 6_000.0,
    np.inf: 10_000.0,
}


def table() -> PointTable:
    return table_for(stream_profile(), DEVICE, SERVER)


@pytest.mark.parametrize(("age", "size"), BYTES.items(), ids=map(str, BYTES))
def test_bytes_by_age(age: float, size: float) -> None:
    known = table()
    row = known.row(VIDEO)
    factor = known.streams.factors[row, column_of(np.array([age]))[0]]
    assert known.hops[0].bytes_mean[row] * factor == pytest.approx(size)


def test_a_reference_beyond_the_oldest_age_never_costs_more_than_a_key() -> None:
    growth = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 5.5]])
    factors = Streams(names=("p1",), of=np.array([0]), growth=growth).factors[0]
    assert (factors[0], factors[32], factors[33]) == (5.5, 6.0, 5.5)


def test_streams_of_a_profile() -> None:
    streams = table().streams
    assert streams.names == NAMES
    assert streams.of.tolist() == [-1] * 10 + [0, 0, 1]
    assert streams.growth[:10].tolist() == [[1.0] * 7] * 10
    assert streams.growth[10].tolist() == [1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 3.0]
    assert streams.smallest[9:].tolist() == [1.0] * 4


def test_a_table_without_streams_has_none() -> None:
    streams = table_for(synthetic_profile(), DEVICE, SERVER).streams
    assert (streams.names, streams.of.tolist(), streams.growth.shape) == ((), [-1] * 10, (10, 7))
    assert streams.take([3, 1]).of.tolist() == [-1, -1]


def test_taken_rows_keep_only_their_streams() -> None:
    known = table()
    taken = known.take([known.row(VIDEO), 0, known.row(VIDEO)])
    assert taken.streams.names == (VIDEO,)
    assert taken.streams.of.tolist() == [0, -1, 0]
    assert taken.streams.growth[:, -1].tolist() == [20.0, 1.0, 20.0]
    assert known.take([0]).streams.names == ()


def test_lanes_share_the_streams() -> None:
    known = table()
    lanes = known.with_columns(lambda column: np.repeat(column[:, None], 4, axis=1).T, known.ids)
    assert lanes.streams is known.streams


def test_a_race_sends_in_its_points_stream() -> None:
    ids = [VIDEO, f"{VIDEO}+device-w50", f"{WIDE}+finish", "device-w50"]
    raced = table_of(stream_profile(), (DEVICE, SERVER), ids)
    assert raced.streams.names == NAMES
    assert raced.streams.of.tolist() == [1, 1, 0, -1]
    assert raced.streams.growth[1].tolist() == raced.streams.growth[0].tolist()


# cut 1 in 600 bytes; the stream's accuracy, its bytes by age and of a key -> True where the cut stays
STATELESS_STAYS = {
    "a larger key": (0.9, (200.0,) * 6, 601.0, True),
    "larger at one age": (0.9, (200.0, 200.0, 200.0, 601.0, 200.0, 200.0), 600.0, True),
    "less accurate": (0.89, (200.0,) * 6, 600.0, True),
    "never larger": (0.9, (200.0,) * 6, 600.0, False),
}


@pytest.mark.parametrize("case", STATELESS_STAYS.values(), ids=STATELESS_STAYS)
def test_a_stream_beats_a_stateless_point_only_at_every_age(
    case: tuple[float, tuple[float, ...], float, bool],
) -> None:
    accuracy, by_age, key, stays = case
    profile = stream_profile()
    stream = profile.point(WIDE).stream
    assert stream is not None
    changed = replace(profile.point(WIDE), accuracy=accuracy, stream=replace(stream, by_age=by_age, key=key))
    profile = replace(profile, points=(profile.point("cut1-w100-b4"), changed, profile.point("device-w100")))
    assert ("cut1-w100-b4" in undominated(table_for(profile, DEVICE, SERVER)).ids) == stays


def test_offered_are_the_best_while_streams_go_on_and_the_best_of_keys() -> None:
    whole = undominated(table())
    offered = points_of(stream_profile(), (DEVICE, SERVER), races=False)
    kept = {*representative(whole).ids, *representative(as_keys(whole), 2.5, 4.0).ids}
    assert list(offered.ids) == [name for name in whole.ids if name in kept]
    assert set(STREAMS) <= set(offered.ids)
    assert "jpeg95" in offered.ids
    assert not as_keys(whole).streams.names


def test_streams_race() -> None:
    offered = points_of(stream_profile(), (DEVICE, SERVER))
    assert f"{VIDEO}+device-w50" in offered.ids
    assert any(name.endswith("-s+finish") for name in offered.ids)


def test_no_streams_with_a_middle_server() -> None:
    three = three_tier_profile()
    cloud = three.devices[CLOUD]
    timings = {**cloud.timings, **{name: cloud.timings[like] for name, (like, *_) in STREAMS.items()}}
    profile = replace(stream_profile(), chains=three.chains).with_device(CLOUD, replace(cloud, timings=timings))
    assert names(profile) == names(three)
    machines = (DEVICE, SERVER, CLOUD)
    assert points_of(profile, machines).ids == points_of(three, machines).ids
    with pytest.raises(ProfileError, match=f"operating point '{VIDEO}' is a stream, which the middle server lacks"):
        table_of(profile, machines, ["jpeg95", VIDEO])
