"""The policy: blind to the order of points, saved and loaded whole, its actor still while the critic learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO

from tests.agents.small import BUMPY, DEAD, scenario
from tidesplit.agents.learning import training
from tidesplit.agents.learning.imitation import ImitationConfig
from tidesplit.agents.learning.monitor import Learner
from tidesplit.agents.learning.policy import PointPolicy, greedy
from tidesplit.agents.learning.privileged import COLUMNS
from tidesplit.agents.learning.training import PpoConfig, Recipe, learn_by_imitation, learn_by_ppo, new_model, policy_of
from tidesplit.envs.adapters.sb3 import SplitInferenceVecEnv
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.observation import Observation, unflatten
from tidesplit.envs.world.vocabulary import Ints

TINY = Recipe(
    imitation=ImitationConfig(rounds=3, labels_per_round=192, epochs_per_round=8, last_epochs=12),
    ppo=PpoConfig(steps=512, critic_steps=256, lanes=16, rollout=16, batch=128, epochs=2),
)


@pytest.fixture(scope="module")
def asked() -> Scenario:
    return scenario(BUMPY, DEAD, episode_s=2.0)


@pytest.fixture(scope="module")
def imitated(asked: Scenario) -> tuple[MaskablePPO, list[float]]:
    """A model after imitation, and the expected regret after each round. Not to be changed."""
    model = new_model(asked, TINY)
    return model, learn_by_imitation(model, [asked], TINY, lambda *_: None)


@pytest.fixture
def model(asked: Scenario, imitated: tuple[MaskablePPO, list[float]]) -> MaskablePPO:
    """A copy of it, to be changed."""
    fresh = new_model(asked, TINY)
    fresh.policy.load_state_dict(imitated[0].policy.state_dict())
    return fresh


def met(asked: Scenario, frames: int = 40, seed: int = 0) -> Observation:
    """Observations of a random controller, with random masks on top."""
    rng = np.random.default_rng(seed)
    simulation = Simulation(asked, [np.random.default_rng([seed, lane]) for lane in range(8)])
    rows, masks = [], []
    for _ in range(frames):
        observation = simulation.observation()
        rows.append(observation.flat())
        masks.append(observation.mask & (rng.random(observation.mask.shape) < 0.7))
        simulation.step(rng.integers(asked.table.size, size=8))
    mask = np.concatenate(masks)
    mask[~mask.any(axis=1), -1] = True
    return unflatten(np.concatenate(rows), mask)


def logits(policy: PointPolicy, observation: Observation) -> np.ndarray:
    with torch.no_grad():
        features = policy.features(torch.from_numpy(observation.state), torch.from_numpy(observation.points))
        return policy.actor(*features).numpy()


def weights(model: MaskablePPO, part: str) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.policy.state_dict().items() if k.startswith(part)}


def same(ours: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == others.keys() and all(torch.equal(v, others[k]) for k, v in ours.items())


def test_imitation_lowers_the_regret_to_be_expected(imitated: tuple[MaskablePPO, list[float]], asked: Scenario) -> None:
    model, losses = imitated
    assert len(losses) == TINY.imitation.rounds
    assert losses[-1] < 0.6 * losses[0] or losses[-1] < 0.05
    rng, learner = np.random.default_rng(0), Learner(policy_of(model))
    by_chance = utility(asked, lambda seen: rng.integers(asked.table.size, size=len(seen.mask)))
    # A new net is no measure: it happens to mix points that go well together.
    assert utility(asked, learner.predict) > by_chance + 0.1


def utility(asked: Scenario, choose: Callable[[Observation], Ints]) -> float:
    """Mean utility a frame."""
    simulation = Simulation(asked, [np.random.default_rng([9, lane]) for lane in range(8)])
    return float(np.mean([simulation.step(choose(simulation.observation()))[0].utility for _ in range(60)]))


def test_permuted_points_get_permuted_logits(model: MaskablePPO, asked: Scenario) -> None:
    observation, order = met(asked), np.random.default_rng(3).permutation(asked.table.size)
    permuted = observation._replace(points=observation.points[:, :, order])
    expected = logits(policy_of(model), observation)[:, order]
    np.testing.assert_allclose(logits(policy_of(model), permuted), expected, atol=1e-5)


def test_a_point_listed_twice_changes_no_logit(model: MaskablePPO, asked: Scenario) -> None:
    observation = met(asked)
    doubled = observation._replace(points=np.concatenate([observation.points] * 2, axis=2))
    expected = np.tile(logits(policy_of(model), observation), 2)
    np.testing.assert_allclose(logits(policy_of(model), doubled), expected, atol=1e-5)


def test_it_serves_a_profile_that_it_never_saw(model: MaskablePPO, asked: Scenario) -> None:
    fewer = replace(asked, table=asked.table.take([0, 2, 3, 5, 9]))
    other = new_model(fewer, TINY)
    other.policy.load_state_dict(model.policy.state_dict())
    imitated, new = (utility(fewer, Learner(policy_of(one)).predict) for one in (other, new_model(fewer, TINY)))
    assert imitated > new


def test_greedy_is_sb3s_deterministic_decision(model: MaskablePPO, asked: Scenario) -> None:
    observation = met(asked)
    ours = greedy(policy_of(model), observation.flat(), observation.mask)
    theirs, _ = model.predict(beside(observation), action_masks=observation.mask, deterministic=True)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(Learner(policy_of(model)).predict(observation), ours)
    assert observation.mask[np.arange(len(ours)), ours].all()


def beside(observation: Observation) -> np.ndarray:
    """The rows as the model in training gets them: hindsight columns, of which the actor must see nothing, follow."""
    rows = observation.flat()
    return np.concatenate([rows, np.full((len(rows), COLUMNS), 5.0, np.float32)], axis=1)


def test_the_actor_is_bit_identical_while_the_critic_learns(model: MaskablePPO) -> None:
    actor, critic = weights(model, "actor"), weights(model, "critic")
    features = weights(model, "features")
    learn_by_ppo(model, replace(TINY, ppo=replace(TINY.ppo, steps=0)), None, lambda *_: None)
    assert model.num_timesteps == 256
    assert same(weights(model, "actor"), actor)
    assert same(weights(model, "features"), features)
    assert not same(weights(model, "critic"), critic)
    learn_by_ppo(model, TINY, None, lambda *_: None)
    assert model.num_timesteps == 768
    assert not same(weights(model, "actor"), actor)
    assert same(weights(model, "features"), features)  # the normaliser is fitted once


def test_progress_counts_each_phase_to_its_end(model: MaskablePPO) -> None:
    told: list[tuple[str, int, int]] = []
    learn_by_ppo(model, TINY, None, lambda *done: told.append(done))
    assert told == [("critic", 256, 256), ("PPO", 256, 512), ("PPO", 512, 512)]


def test_sb3s_zip_goes_on_where_it_was(model: MaskablePPO, asked: Scenario, tmp_path: Path) -> None:
    left_out = ["env", "logger", "lr_schedule", "clip_range", "learning_rate"]
    model.save(tmp_path / "policy.zip", exclude=left_out)
    loaded = MaskablePPO.load(tmp_path / "policy.zip", device="cpu")
    assert same(weights(loaded, ""), weights(model, ""))
    observation = met(asked)
    np.testing.assert_array_equal(
        loaded.predict(beside(observation), action_masks=observation.mask, deterministic=True)[0],
        model.predict(beside(observation), action_masks=observation.mask, deterministic=True)[0],
    )
    loaded.set_env(new_model(asked, TINY).get_env())
    loaded.learn(64, reset_num_timesteps=False)


def test_a_checkpoint_holds_weights_optimiser_and_steps(model: MaskablePPO, asked: Scenario, tmp_path: Path) -> None:
    learn_by_ppo(model, TINY, None, lambda *_: None)
    training.save_checkpoint(model, tmp_path / "checkpoint.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    fresh = new_model(asked, TINY)
    training.load_checkpoint(fresh, tmp_path / "checkpoint.safetensors")
    assert same(weights(fresh, ""), weights(model, ""))
    assert fresh.num_timesteps == model.num_timesteps == 768
    ours, theirs = (m.policy.optimizer.state_dict()["state"] for m in (fresh, model))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[i][k], theirs[i][k]) for i in theirs for k in theirs[i])
    learn_by_ppo(fresh, replace(TINY, ppo=replace(TINY.ppo, steps=768)), None, lambda *_: None)
    assert fresh.num_timesteps == 1024


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_foreign_checkpoint_is_refused(content: bytes, asked: Scenario, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no checkpoint of this policy"):
        training.load_checkpoint(new_model(asked, TINY), path)


def test_the_same_seed_trains_the_same_policy(asked: Scenario) -> None:
    trained = []
    for seed in (4, 4, 5):
        recipe = replace(TINY, imitation=replace(TINY.imitation, rounds=1), seed=seed)
        model = new_model(asked, recipe)
        learn_by_imitation(model, [asked], recipe, lambda *_: None)
        learn_by_ppo(model, recipe, None, lambda *_: None)
        trained.append(weights(model, ""))
    assert same(trained[0], trained[1])
    assert not same(trained[0], trained[2])


def test_training_steps_the_environment_that_users_get(asked: Scenario) -> None:
    assert isinstance(new_model(asked, TINY).get_env(), SplitInferenceVecEnv)
