"""A training that starts from a bundle begins with that policy's decisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.agents.small import BUMPY, scenario
from tests.profiles import DEVICE, SERVER, synthetic_profile
from tidesplit.agents.bundle import BundleError, load
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.agents.learning.policy import PointPolicy, greedy
from tidesplit.agents.learning.training import PpoConfig, Recipe, hidden_of, new_model, policy_of, start_from
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.vocabulary import Demand

torch.set_num_threads(1)


def fresh(asked: Scenario, seed: int, hidden: int = 48) -> PointPolicy:
    torch.manual_seed(seed)
    return policy_of(new_model(asked, Recipe(ppo=PpoConfig(lanes=4, rollout=8, batch=32, hidden=hidden))))


@pytest.fixture
def asked() -> Scenario:
    return scenario(BUMPY)


@pytest.fixture
def folder(asked: Scenario, tmp_path: Path) -> Path:
    """A bundle of a policy whose normaliser was fitted."""
    policy = fresh(asked, seed=1)
    policy.fit_normaliser(torch.from_numpy(seen(asked)[0]))
    return written(policy, asked, tmp_path)


def written(policy: PointPolicy, asked: Scenario, folder: Path) -> Path:
    machines, profile = (DEVICE, SERVER), synthetic_profile()
    write_bundle(folder, policy, profile=profile, table=asked.table, machines=machines, demand=Demand(), config={})
    return folder


def seen(asked: Scenario) -> tuple[np.ndarray, np.ndarray]:
    """Flat observations of some lanes and their masks."""
    simulation = Simulation(asked, [np.random.default_rng([5, lane]) for lane in range(24)])
    for frame in range(15):
        simulation.step(np.full(24, frame % asked.table.size))
    return simulation.observation().flat(), simulation.observation().mask


def test_it_decides_as_the_bundle_does(asked: Scenario, folder: Path) -> None:
    policy = fresh(asked, seed=2)
    start_from(policy, folder)
    assert hidden_of(folder) == policy.hidden
    flat, mask = seen(asked)
    simulation = Simulation(asked, [np.random.default_rng([5, lane]) for lane in range(24)])
    for frame in range(15):
        simulation.step(np.full(24, frame % asked.table.size))
    np.testing.assert_array_equal(greedy(policy, flat, mask), load(folder).policy.predict(simulation.observation()))


def test_of_several_bundles_the_mean_weights_are_the_start(asked: Scenario, folder: Path, tmp_path: Path) -> None:
    first, second, mean = (fresh(asked, seed) for seed in (2, 3, 4))
    start_from(first, folder)
    second.features.load_state_dict(first.features.state_dict())
    start_from(mean, folder, written(second, asked, tmp_path / "second"))
    ours, others = first.actor.state_dict(), second.actor.state_dict()
    for name, weights in mean.actor.state_dict().items():
        torch.testing.assert_close(weights, 0.5 * (ours[name] + others[name]))


def test_bundles_of_several_starts_have_no_mean(asked: Scenario, folder: Path, tmp_path: Path) -> None:
    other = written(fresh(asked, seed=3), asked, tmp_path / "other")
    with pytest.raises(BundleError, match="had another start"):
        start_from(fresh(asked, seed=4), folder, other)


def test_a_bundle_of_another_shape_is_refused_in_one_sentence(asked: Scenario, folder: Path) -> None:
    with pytest.raises(BundleError, match="no policy to start from") as caught:
        start_from(fresh(asked, seed=2, hidden=32), folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_bundle_is_refused(asked: Scenario, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle"):
        start_from(fresh(asked, seed=2), tmp_path)
