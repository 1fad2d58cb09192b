"""Without points that send pictures, whatever else is offered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.agents.small import BUMPY
from tests.profiles import DEVICE, SERVER, stream_profile
from tests.runtime.deployed import points, points_of_three
from tidesplit.agents.judging.ladder import RULES, Tuning, tuned_rules
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.profiling.points.profile import ProfileError
from tidesplit.profiling.points.tiers import points_of
from tidesplit.runtime.choosing.fixed_point import fixed_point

PICTURES = ("jpeg", "p0-")


def test_neither_stills_nor_video_nor_their_races_are_offered() -> None:
    profile = stream_profile()
    for table in (
        points_of(profile.without_pictures(), (DEVICE, SERVER)), points_of(profile, (DEVICE, SERVER)).without_pictures()
    ):  # fmt: skip
        assert not [name for name in table.ids if name.startswith(PICTURES)]
        assert table.local.any()
        assert table.hops[0].sends.any()
    assert [name for name in points_of(profile, (DEVICE, SERVER)).ids if name.startswith(PICTURES)]


def test_nor_does_a_middle_server_get_any() -> None:
    _, table = points_of_three(9)
    left = table.without_pictures()
    assert set(table.ids) - set(left.ids) == {name for name in table.ids if name.startswith("p0")}


def test_a_point_that_sends_pictures_cannot_be_fixed() -> None:
    left = points(9)[1].without_pictures()
    with pytest.raises(ValueError, match="p0-jpeg-q50"):
        fixed_point(left, "p0-jpeg-q50")


def test_every_rule_gets_along() -> None:
    private = scenario_from(trace=BUMPY, profile=stream_profile().without_pictures(), episode_s=0.5)
    few = replace(private, table=private.table.take([0, 1, private.table.size - 1]))
    names = [name for name in RULES if name != "MPC, tuned"]
    assert set(tuned_rules(few, Tuning(lanes=1, episode_s=0.2), names)) == set(names)


def test_where_nothing_is_left_it_is_said() -> None:
    profile, table = points(9)
    with pytest.raises(ProfileError, match="every operating point sends pictures"):
        replace(profile, points=(replace(profile.points[0], fallback=None),)).without_pictures()
    with pytest.raises(ProfileError, match="every operating point sends pictures"):
        table.take([0]).without_pictures()
