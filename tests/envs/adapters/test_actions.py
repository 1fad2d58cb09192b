"""Actions that are a row of the table in any usual form, and those that are none: refused before anything changes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from tests.profiles import synthetic_profile
from tidesplit.envs.adapters.actions import rows_of, whole_numbers
from tidesplit.envs.adapters.multi_discrete import MultiDiscretePoints
from tidesplit.envs.adapters.sb3 import SplitInferenceVecEnv
from tidesplit.envs.adapters.split_inference import ENV_ID, SplitInference
from tidesplit.envs.adapters.vector import SplitInferenceVector
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace

THREE = [3, np.int64(3), np.uint8(3), np.array(3), np.array([3]), np.array([[3]], dtype=np.int32), [3], torch.tensor(3)]
NO_ROW = [
    -1, 999, 10**30, 3.7, 3.0, float("nan"), float("inf"), None, "3", b"3", 3j, [], [3, 4], [[3], [4, 5]], {},
    np.array([-1]), np.array([3.0]), np.array([3, 3]), np.iinfo(np.uint64).max,
    np.datetime64(3, "s"), ...,
]  # fmt: skip


@pytest.fixture
def scenario() -> Scenario:
    trace = Trace("waves", np.arange(8) * 0.1, 0.8, np.array([1, 2, 4, 8, 4, 0, 0, 1]) * 1e6)
    return scenario_from(trace=trace, profile=synthetic_profile(), episode_s=2.0)


@pytest.mark.parametrize("action", THREE, ids=repr)
def test_an_integer_in_any_form_is_a_row(action: Any) -> None:
    assert rows_of(action, lanes=1, size=4).tolist() == [3]


@pytest.mark.parametrize(
    ("given", "levels", "sentence"),
    [
        (-1, [25], "action -1 received, a whole number from 0 to 24 expected"),
        (25, [25], "action 25 received, a whole number from 0 to 24 expected"),
        ([0, 1], [25] * 3, "action [0, 1] received, 3 whole numbers from 0 to 24 expected"),
        ([0, 2], [2, 2], "action [0, 2] received, 2 whole numbers from 0 to 1 expected"),
        ([4, 0], [4, 9], "action [4, 0] received, 2 whole numbers from 0 to at most 3, 8 expected"),
        ("x" * 100, [25], f"action '{'x' * 76}... received, a whole number from 0 to 24 expected"),
    ],
)
def test_one_sentence_says_what_came_and_what_was_expected(given: Any, levels: list[int], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        whole_numbers(given, levels)


def test_true_is_no_row() -> None:
    with pytest.raises(ValueError, match=r"^action True received"):
        rows_of(True, lanes=1, size=4)


def alone(scenario: Scenario) -> tuple[Any, Any]:
    return SplitInference(scenario=scenario), lambda action: action


def made(scenario: Scenario) -> tuple[Any, Any]:
    return gymnasium.make(ENV_ID, scenario=scenario), lambda action: action


def vector(scenario: Scenario) -> tuple[Any, Any]:
    return SplitInferenceVector(2, scenario=scenario), lambda action: [0, action]


def sb3(scenario: Scenario) -> tuple[Any, Any]:
    return SplitInferenceVecEnv(2, scenario=scenario), lambda action: [0, action]


def knobs(scenario: Scenario) -> tuple[Any, Any]:
    return MultiDiscretePoints(SplitInference(scenario=scenario)), lambda action: [0, 0, 0, action, 0]


def seeded(env: Any) -> Any:
    """First observation of an episode with seed 0."""
    if isinstance(env, SplitInferenceVecEnv):
        env.seed(0)
        return env.reset()
    return env.reset(seed=0)[0]


@pytest.mark.parametrize("kind", [alone, made, vector, sb3, knobs])
@pytest.mark.parametrize("action", NO_ROW, ids=repr)
def test_what_is_no_row_changes_nothing(
    kind: Callable[[Scenario], tuple[Any, Any]], action: Any, scenario: Scenario
) -> None:
    """The refused step leaves the episode as it was, and a reset gives a clean one."""
    (env, form), (control, _) = kind(scenario), kind(scenario)
    np.testing.assert_array_equal(seeded(env), seeded(control))
    with pytest.raises(ValueError, match=r"^action .* received, .*whole numbers? from 0 to .* expected$"):
        env.step(form(action))
    good = np.array(form(1))
    for _ in range(3):
        np.testing.assert_array_equal(env.step(good)[0], control.step(good)[0])
    np.testing.assert_array_equal(seeded(env), seeded(control))
    np.testing.assert_array_equal(env.step(good)[0], control.step(good)[0])


def test_an_array_of_one_is_the_integer(scenario: Scenario) -> None:
    env, control = SplitInference(scenario=scenario), SplitInference(scenario=scenario)
    assert env.reset(seed=0)[0].tolist() == control.reset(seed=0)[0].tolist()
    for _ in range(5):
        observation, _, _, _, info = env.step(np.array([3]))  # type: ignore[arg-type]
        assert observation.tolist() == control.step(np.int64(3))[0].tolist()
        assert info["point"] == scenario.table.ids[3]


def test_a_combination_of_no_row_is_refused(scenario: Scenario) -> None:
    with pytest.raises(ValueError, match=r"^action -1 received"):
        MultiDiscretePoints(SplitInference(scenario=scenario)).combination(-1)
