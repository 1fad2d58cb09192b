"""The MultiDiscrete view and the Discrete one name the same points."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env

from tests.envs.three import three_tiers
from tests.profiles import synthetic_profile
from tidesplit.envs.adapters.multi_discrete import KNOBS, MultiDiscretePoints
from tidesplit.envs.adapters.split_inference import SplitInference
from tidesplit.envs.traces.trace import Trace

STEADY = Trace("steady", np.zeros(1), 1.0, np.array([2e6]))


@pytest.fixture
def view() -> MultiDiscretePoints:
    return MultiDiscretePoints(SplitInference(trace=STEADY, profile=synthetic_profile()))


def test_every_point_has_its_name_in_both_views(view: MultiDiscretePoints) -> None:
    table = view.unwrapped.scenario.table
    uplink = table.hops[0]
    for row in range(table.size):
        named = view.combination(row)
        assert view.action_space.contains(named)
        assert view.action(named) == row
        *values, _ = (view.levels[k][index] for k, index in enumerate(named))
        assert values == [getattr(uplink, knob)[row] for knob in KNOBS]


# partition, channel ratio, region ratio, bits, number among the points alike -> the point meant
NEAREST = {
    (0, 1.0, 1.0, 95, 0): "jpeg95",
    (0, 1.0, 1.0, 95, 2): "jpeg95+device-w25",
    (0, 1.0, 1.0, 50, 2): "jpeg50+device-w25",
    (0, 0.25, 0.5, 95, 0): "jpeg95",
    (1, 1.0, 1.0, 95, 0): "cut1-w100-b8",
    (1, 0.25, 1.0, 0, 0): "cut1-w50-b4",
    (2, 0.25, 0.5, 8, 0): "cut2-w50-r50-b2",
    (2, 1.0, 0.5, 2, 0): "cut2-w100-b2",  # a tie
    (3, 0.25, 0.5, 95, 0): "device-w25",
    (3, 1.0, 1.0, 8, 0): "device-w100",
}


@pytest.mark.parametrize(("values", "expected"), NEAREST.items())
def test_a_combination_that_is_no_point_is_the_nearest_of_its_partition(
    view: MultiDiscretePoints, values: tuple[float, ...], expected: str
) -> None:
    indices = np.array([np.flatnonzero(level == value)[0] for level, value in zip(view.levels, values, strict=True)])
    assert view.unwrapped.scenario.table.ids[view.action(indices)] == expected


def test_both_views_play_the_same_episode(view: MultiDiscretePoints) -> None:
    plain = SplitInference(trace=STEADY, profile=synthetic_profile())
    np.testing.assert_array_equal(view.reset(seed=3)[0], plain.reset(seed=3)[0])
    for row in range(plain.scenario.table.size):
        ours, theirs = view.step(view.combination(row)), plain.step(np.int64(row))
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:4] == theirs[1:4]


def test_masks_tell_which_values_some_allowed_point_has() -> None:
    view = MultiDiscretePoints(SplitInference(trace=STEADY, profile=synthetic_profile(), min_accuracy=0.915))
    view.reset(seed=0)
    expected = {
        "partition": [0, 1, 3],
        "channel_ratio": [1.0],
        "region_ratio": [1.0],
        "bits": [0, 8, 95],
        "number": [0, 1, 2],
    }
    mask, start = view.action_masks(), 0
    for knob, level in zip((*KNOBS, "number"), view.levels, strict=True):
        assert level[mask[start : start + len(level)]].tolist() == expected[knob]
        start += len(level)
    assert start == len(mask)


def test_sb3_check_passes(view: MultiDiscretePoints) -> None:
    check_env(view)


def test_other_environments_are_refused() -> None:
    with pytest.raises(TypeError, match="got an environment of type CartPoleEnv, expected SplitInference"):
        MultiDiscretePoints(gymnasium.make("CartPole-v1"))


def test_three_tiers_have_the_second_hops_knobs_too() -> None:
    env = MultiDiscretePoints(SplitInference(scenario=three_tiers()))
    table = env.unwrapped.scenario.table  # type: ignore[attr-defined]
    assert len(env.levels) == 9
    for row, name in enumerate(table.ids):
        assert env.action(env.combination(row)) == row, name
    # The second cut of one point behind the first of another that has none: the partitions count for most.
    wanted = env.combination(table.row("jpeg50")).copy()
    wanted[4:8] = env.combination(table.row("jpeg95>cut2-w100-b2"))[4:8]
    assert table.ids[env.action(wanted)] == "jpeg95>cut2-w100-b2"
    env.reset(seed=0)
    assert env.action_masks().shape == (sum(map(len, env.levels)),)
