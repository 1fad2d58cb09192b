"""Observations on fixed scales: known answers, names of the columns, the same in every form of the environment."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from stable_baselines3.common.env_checker import check_env as check_sb3

from tests.envs.three import three_tiers
from tests.profiles import synthetic_profile
from tidesplit.envs.adapters.normalised import LIMIT, FixedScales, column_names
from tidesplit.envs.adapters.sb3 import SplitInferenceVecEnv
from tidesplit.envs.adapters.split_inference import ENV_ID, SplitInference
from tidesplit.envs.adapters.vector import SplitInferenceVector
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.fields import fields_of

TRACE = Trace("waves", 0.1 * np.arange(6), 0.6, 1e6 * np.array([1.0, 4.0, 0.0, 0.0, 8.0, 2.0]))


@pytest.fixture(params=[2, 3])
def scenario(request: pytest.FixtureRequest) -> Scenario:
    if request.param == 3:
        return three_tiers(trace=[TRACE], episode_s=0.9)
    return scenario_from(trace=TRACE, profile=synthetic_profile(), episode_s=0.9)


def test_known_answers() -> None:
    table = scenario_from(trace=TRACE, profile=synthetic_profile()).table
    names = column_names(table)
    flat = np.zeros((2, len(names)), dtype=np.float32)
    given = {
        "deadline_s": (0.1, 1.0), "waited_s": (0.1, 0.0), "worker_s": (0.005, 1e9), "goodput": (99_990.0, 0.0),
        "slow_down": (2.0, 1.0), "heat_c": (75.0, 50.0), "in_flight": (4.0, 8.0), "for_latency": (1.0, 0.0),
        f"slack_s:{table.ids[0]}": (-0.1, -1e9), f"joules:{table.ids[1]}": (1.0, 0.0),
        f"accuracy:{table.ids[-1]}": (0.75, 0.5), f"reference_age:{table.ids[2]}": (64.0, 16.0),
    }  # fmt: skip
    expected = {
        "deadline_s": (-1, 0), "waited_s": (1, 0), "worker_s": (np.log(2) / np.log(21), LIMIT), "goodput": (0.5, -1.5),
        "slow_down": (1, 0), "heat_c": (1, 0), "in_flight": (0.5, 1), "for_latency": (1, 0),
        f"slack_s:{table.ids[0]}": (-1, -LIMIT), f"joules:{table.ids[1]}": (1, 0),
        f"accuracy:{table.ids[-1]}": (0.75, 0.5), f"reference_age:{table.ids[2]}": (1, 0.25),
    }  # fmt: skip
    for name, values in given.items():
        flat[:, names.index(name)] = values
    before = flat.copy()
    scaled = FixedScales(table)(flat)
    assert scaled.dtype == np.float32
    for name, values in expected.items():
        assert scaled[:, names.index(name)] == pytest.approx(values, abs=1e-6), name
    assert (flat == before).all()


def test_names_are_in_the_info_and_in_the_order_of_the_columns(scenario: Scenario) -> None:
    env = SplitInference(scenario=scenario)
    row, info = env.reset(seed=0)
    names, ids = info["columns"], scenario.table.ids
    assert len(names) == len(set(names)) == row.size
    observation = env.simulation.observation()
    state, points = fields_of(observation.hops)
    assert row[names.index(state[-1])] == observation.state[0, -1]
    assert row[names.index(f"{points[-1]}:{ids[1]}")] == observation.points[0, -1, 1]
    assert row[names.index(f"accuracy:{ids[-1]}")] == np.float32(scenario.table.accuracy[-1])


def test_every_form_gives_the_same_rows(scenario: Scenario) -> None:
    alone = SplitInference(scenario=scenario, normalise=True)
    vector, lanes = (
        form(2, scenario=scenario, normalise=True) for form in (SplitInferenceVector, SplitInferenceVecEnv)
    )
    lanes.seed(5)
    rows: list[Any] = [alone.reset(seed=5)[0]]
    firsts = vector.reset(seed=5)[0][0], lanes.reset()[0]
    assert all((first == rows[0]).all() for first in firsts)
    assert alone.columns == vector.columns == lanes.columns
    for frame in range(27):  # an episode
        point = frame % scenario.table.size
        row, _, _, truncated, _ = alone.step(np.int64(point))
        assert alone.observation_space.contains(row)
        both = np.array([point, point])
        shown, *_, infos = vector.step(both)
        seen, _, _, of_lanes = lanes.step(both)
        if truncated:
            shown, seen = infos["final_obs"], [of_lanes[0]["terminal_observation"]]
        assert (shown[0] == row).all()
        assert (seen[0] == row).all()
    assert truncated


def test_checks_pass_with_warnings_as_errors(scenario: Scenario) -> None:
    env = gymnasium.make(ENV_ID, scenario=scenario, normalise=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_gymnasium(env.unwrapped, skip_render_check=True)
        check_sb3(env)
