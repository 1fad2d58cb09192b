"""Races: two points of a profile as one, their columns, their identifiers, and those worth choosing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.profiles import CLOUD, DEVICE, SERVER, synthetic_profile, three_tier_profile
from tidesplit.compression.codec.knobs import sender, split, split_race
from tidesplit.profiling.points.profile import ProfileError, load
from tidesplit.profiling.points.races import races_of, without_race
from tidesplit.profiling.points.tiers import points_of, table_of

TWO, THREE = (DEVICE, SERVER), (DEVICE, SERVER, CLOUD)

# race -> its sender, seconds and accuracy of the device's run, accuracy of the server's answer
COLUMNS = {
    "jpeg95+device-w25": ("jpeg95", 0.028, 0.75, 0.92),
    "jpeg95+device-w50": ("jpeg95", 0.046, 0.85, 0.92),
    "cut1-w50-b4+finish": ("cut1-w50-b4", 0.030, 0.85, 0.87),
    "cut1-w50-b4+device-w25": ("cut1-w50-b4", 0.028, 0.75, 0.87),
}


@pytest.mark.parametrize(("name", "expected"), COLUMNS.items(), ids=COLUMNS)
def test_columns_of_a_race(name: str, expected: tuple[str, float, float, float]) -> None:
    table = table_of(synthetic_profile(), TWO, [name, expected[0]])
    assert table.ids == (name, expected[0])
    assert table.races.tolist() == [True, False]
    assert (table.finish_s[0], table.finish_accuracy[0], table.accuracy[0]) == expected[1:]
    for column in ("head_s", "server_s", "accuracy", "jitter"):  # the rest is the sender's
        assert getattr(table, column)[0] == getattr(table, column)[1]
    assert table.hops[0].bytes_mean[0] == table.hops[0].bytes_mean[1]
    assert table.take([1, 0]).races.tolist() == [False, True]


# identifiers -> the error's sentence
WRONG = {
    "jpeg95+cut1-w50-b4": "a point on the device expected after the '\\+', 'cut1-w50-b4' received",
    "jpeg95+device-w75": "no operating point 'device-w75'",
    "jpeg95+finish": "race 'jpeg95\\+finish': the device cannot finish it",
    "jpeg96+device-w25": "no operating point 'jpeg96'",
}


@pytest.mark.parametrize(("name", "sentence"), WRONG.items(), ids=WRONG)
def test_races_that_make_no_sense(name: str, sentence: str) -> None:
    with pytest.raises(ProfileError, match=sentence):
        table_of(synthetic_profile(), TWO, ["jpeg95", name])


@pytest.mark.parametrize("machines", [TWO, THREE])
def test_those_worth_choosing(machines: tuple[str, ...]) -> None:
    """Every picture races every less accurate CNN on the device, and a few cuts race their own finishes."""
    profile = synthetic_profile() if len(machines) == 2 else three_tier_profile()
    single = points_of(profile, machines, races=False)
    table = points_of(profile, machines)
    assert table.ids[: single.size] == single.ids
    assert table.ids[single.size :] == tuple(races_of(single))
    assert (table.races == [("+" in name) for name in table.ids]).all()
    assert {sender(name) for name in table.ids} == {sender(name) for name in single.ids}
    nets = {name: single.accuracy[single.row(name)] for name in single.ids if single.local[single.row(name)]}
    for name in np.array(single.ids)[single.light]:
        raced = {split_race(split(i)[0])[1] for i in table.ids if "+" in i and without_race(i) == name}
        assert raced == {net for net, accuracy in nets.items() if accuracy < single.accuracy[single.row(name)]}
    assert any(name.endswith("+finish") for name in table.ids)


def test_a_race_of_three_tiers() -> None:
    """The second hop is the sender's: the middle server passes the picture on, or cuts again."""
    names = ["jpeg95+device-w25>cloud", "jpeg95>cloud", "jpeg95+device-w25>cut2-w100-b2", "jpeg95>cut2-w100-b2"]
    table = table_of(three_tier_profile(), THREE, names)
    assert table.races.tolist() == [True, False, True, False]
    assert table.finish_s.tolist() == [0.028, np.inf, 0.028, np.inf]
    for raced, plain in ((0, 1), (2, 3)):
        for column in ("server_s", "accuracy", "head_s"):
            assert getattr(table, column)[raced] == getattr(table, column)[plain]
        assert table.hops[1].bytes_mean[raced] == table.hops[1].bytes_mean[plain]
        assert table.hops[1].compute_s[raced] == table.hops[1].compute_s[plain]


def test_a_table_without_races_has_none() -> None:
    table = table_of(synthetic_profile(), TWO, ["jpeg95", "cut1-w50-b4", "device-w50"])
    assert not table.races.any()
    assert table.finish_s.tolist() == [np.inf, 0.030, np.inf]


def test_the_bundled_profile_has_dozens_of_points() -> None:
    profile = load("efficientnet_lite0")
    table = points_of(profile, (DEVICE, SERVER))
    assert 10 <= table.races.sum() <= 40
    assert table.size <= 90
