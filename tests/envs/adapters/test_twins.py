"""The single environment and its Gymnasium and SB3 twins give the same numbers step for step, and pass the checks."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from gymnasium.vector import AutoresetMode
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.env_checker import check_env as check_sb3

import tidesplit.envs.adapters.split_inference
from tests.envs.three import three_tiers
from tests.profiles import synthetic_profile
from tidesplit.envs.adapters.sb3 import SplitInferenceVecEnv
from tidesplit.envs.adapters.split_inference import ENV_ID, SplitInference
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.vocabulary import Demand

LANES, SEED, STEPS = 7, 11, 100


def waves(name: str, mbps: list[float]) -> Trace:
    return Trace(name, np.arange(len(mbps)) * 0.1, 0.1 * len(mbps), np.array(mbps) * 1e6)


@pytest.fixture(params=["one demand", "drawn demands and tables", "three tiers"])
def scenario(request: pytest.FixtureRequest) -> Scenario:
    traces = [waves("up and down", [1, 2, 4, 8, 4, 0, 0, 1]), waves("outage", [3.0] * 5 + [0.0] * 9)]
    if request.param == "one demand":
        return scenario_from(trace=traces, profile=synthetic_profile(), episode_s=0.9)
    if request.param == "three tiers":
        return three_tiers(trace=traces, episode_s=0.9, table_spread=0.2, trace_spread=0.5)
    demands = [Demand(), Demand(fps=10, deadline_s=0.2), Demand(objective="latency", fps=20, min_accuracy=0.86)]
    return scenario_from(trace=traces, profile=synthetic_profile(), demands=demands, episode_s=0.9, table_spread=0.2)


def actions(scenario: Scenario) -> np.ndarray:
    return np.random.default_rng(0).integers(scenario.table.size, size=(STEPS, LANES))


def played_alone(scenario: Scenario, lane: int) -> list[dict[str, Any]]:
    """Every step of the single environment, begun again by hand where an episode ends."""
    env = SplitInference(scenario=scenario)
    observation, info = env.reset(seed=SEED + lane)
    rows = [{"observation": observation, "info": info}]
    for action in actions(scenario)[:, lane]:
        observation, reward, terminated, truncated, info = env.step(action)
        assert not terminated
        row = {"observation": observation, "reward": reward, "done": truncated, "info": info}
        if truncated:
            row |= {"final": observation, "final_info": info}
            row["observation"], row["info"] = env.reset()
        rows.append(row)
    return rows


def test_gymnasium_twin_equals_single_environments(scenario: Scenario) -> None:
    twin = gymnasium.make_vec(ENV_ID, num_envs=LANES, vectorization_mode="vector_entry_point", scenario=scenario)
    assert twin.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    alone = [played_alone(scenario, lane) for lane in range(LANES)]
    observations, infos = twin.reset(seed=SEED)
    assert twin.observation_space.contains(observations)
    episodes = 0
    for lane in range(LANES):
        np.testing.assert_array_equal(observations[lane], alone[lane][0]["observation"])
        assert_info(infos, alone[lane][0]["info"], lane)
    for k, chosen in enumerate(actions(scenario), start=1):
        observations, rewards, terminated, truncated, infos = twin.step(chosen)
        for lane in range(LANES):
            row = alone[lane][k]
            np.testing.assert_array_equal(observations[lane], row["observation"])
            assert_info(infos, row["info"], lane)
            assert (rewards[lane], terminated[lane], truncated[lane]) == (row["reward"], False, row["done"])
            if row["done"]:
                episodes += 1
                assert infos["_final_obs"][lane]
                np.testing.assert_array_equal(infos["final_obs"][lane], row["final"])
                assert_info(infos["final_info"], row["final_info"], lane)
    assert episodes >= 3 * LANES


def assert_info(infos: dict[str, Any], alone: dict[str, Any], lane: int) -> None:
    told = {name for name in infos if not name.startswith("_") and infos[f"_{name}"][lane]} - {
        "final_obs",
        "final_info",
    }
    assert told == set(alone) - {"columns"}  # an attribute of the vector
    for name in told:
        value = alone[name]
        np.testing.assert_array_equal(infos[name][lane], value, err_msg=name)


def test_sb3_twin_equals_single_environments(scenario: Scenario) -> None:
    twin = SplitInferenceVecEnv(LANES, scenario=scenario)
    alone = [played_alone(scenario, lane) for lane in range(LANES)]
    twin.seed(SEED)
    observations = twin.reset()
    np.testing.assert_array_equal(observations, [rows[0]["observation"] for rows in alone])
    returns = np.zeros(LANES)
    for k, chosen in enumerate(actions(scenario), start=1):
        observations, rewards, dones, infos = twin.step(chosen)
        masks = get_action_masks(twin)
        for lane in range(LANES):
            row = alone[lane][k]
            np.testing.assert_array_equal(observations[lane], row["observation"])
            np.testing.assert_array_equal(masks[lane], row["info"]["action_mask"])
            assert (rewards[lane], dones[lane]) == (np.float32(row["reward"]), row["done"])
            returns[lane] += row["reward"]
            if not row["done"]:
                assert infos[lane] == {}
                continue
            np.testing.assert_array_equal(infos[lane]["terminal_observation"], row["final"])
            assert infos[lane]["TimeLimit.truncated"] is True
            assert infos[lane]["episode"]["r"] == pytest.approx(returns[lane])
            returns[lane] = 0.0


def test_stepping_leaves_the_callers_actions_alone(scenario: Scenario) -> None:
    twin = SplitInferenceVecEnv(LANES, scenario=scenario)
    twin.reset()
    chosen = np.zeros(LANES, dtype=np.int64)
    for _ in range(40):
        twin.step(chosen)
    assert (chosen == 0).all()


def test_sb3_twin_answers_for_some_lanes(scenario: Scenario) -> None:
    twin = SplitInferenceVecEnv(LANES, scenario=scenario)
    twin.reset()
    assert is_masking_supported(twin)
    assert len(twin.env_method("action_masks", indices=[0, 2])) == 2
    assert len(twin.env_method("action_masks", indices=1)) == 1
    assert twin.get_attr("render_mode") == [None] * LANES
    assert twin.env_is_wrapped(gymnasium.Wrapper) == [False] * LANES
    with pytest.raises(AttributeError, match="'fly' was asked for"):
        twin.env_method("fly")
    with pytest.raises(NotImplementedError, match="share one simulation"):
        twin.set_attr("scenario", None)


def test_checks_pass_with_warnings_as_errors(scenario: Scenario) -> None:
    env = gymnasium.make(ENV_ID, scenario=scenario, render_mode="ansi")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_gymnasium(env.unwrapped)
        check_sb3(env)


def test_registering_again_changes_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tidesplit.envs.adapters.split_inference.register()
    assert gymnasium.spec(ENV_ID).vector_entry_point == "tidesplit.envs.adapters.vector:SplitInferenceVector"


def test_a_process_that_imported_nothing_of_ours_can_make_it() -> None:
    name = f"tidesplit.envs.adapters.split_inference:{ENV_ID}"
    code = f"import gymnasium; print(gymnasium.envs.registration._find_spec({name!r}).id)"
    root = Path(tidesplit.envs.adapters.split_inference.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ENV_ID


def test_a_frame_as_one_line(scenario: Scenario) -> None:
    env = SplitInference(scenario=scenario, render_mode="ansi")
    env.reset(seed=0)
    row = next(r for r, local in enumerate(scenario.table.local) if local)
    _, reward, _, _, info = env.step(np.int64(row))
    line = str(env.render())
    assert "\n" not in line
    assert info["point"] in line
    assert line.endswith(f"utility {reward:.3f}")
