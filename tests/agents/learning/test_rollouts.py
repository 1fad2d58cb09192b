"""Rollouts: every likely point is tried against the same course of events, and the policy learns from the gains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.agents.small import BUMPY, scenario
from tidesplit.agents.learning.imitation import Labels
from tidesplit.agents.learning.policy import PointPolicy, greedy
from tidesplit.agents.learning.rollouts import RolloutConfig, improve, played_on, tried
from tidesplit.agents.learning.training import PpoConfig, Recipe, new_model, policy_of
from tidesplit.envs.simulation.simulation import Scenario, Simulation

torch.set_num_threads(1)  # so small nets gain nothing by more
QUICK = RolloutConfig(rounds=2, labels_per_round=96, every=6, points=4, frames=8)


@pytest.fixture
def asked() -> Scenario:
    return scenario(BUMPY, episode_s=2.0)


@pytest.fixture
def policy(asked: Scenario) -> PointPolicy:
    """A new policy that has seen some observations."""
    torch.manual_seed(0)
    made = policy_of(new_model(asked, Recipe(ppo=PpoConfig(lanes=4, rollout=8, batch=32))))
    made.fit_normaliser(torch.from_numpy(played(asked).observation().flat()))
    return made


def played(asked: Scenario, lanes: int = 16) -> Simulation:
    """A simulation of which twelve frames were played."""
    simulation = Simulation(asked, [np.random.default_rng([3, lane]) for lane in range(lanes)])
    for frame in range(12):
        simulation.step(np.full(lanes, frame % asked.table.size))
    return simulation


def test_labels_are_the_losses_against_the_best_point_that_was_tried(asked: Scenario, policy: PointPolicy) -> None:
    labels = tried(policy, played(asked), QUICK, np.random.default_rng(0))
    regret = labels.regret.numpy()
    assert len(regret) >= QUICK.labels_per_round
    assert (regret.min(axis=1) == 0.0).all()
    assert ((regret < regret.max(axis=1, keepdims=True)).sum(axis=1) <= QUICK.points).all()
    assert regret.max() <= QUICK.cap


def test_a_rollout_begins_with_the_point_and_goes_on_with_the_policy(asked: Scenario, policy: PointPolicy) -> None:
    simulation = played(asked, lanes=2)
    first = np.array([0, 9])
    worth = played_on(policy, simulation.forked(np.arange(2)), first, frames=3)
    expected, points = np.zeros(2), first
    for _ in range(3):
        outcome, _ = simulation.step(points)
        expected += outcome.utility - outcome.cost
        points = greedy(policy, simulation.observation().flat(), simulation.observation().mask)
    np.testing.assert_allclose(worth, expected)


def test_the_states_that_are_labelled_are_those_that_the_policy_visits(asked: Scenario, policy: PointPolicy) -> None:
    tried(policy, simulation := played(asked), replace(QUICK, labels_per_round=8), np.random.default_rng(0))
    same = played(asked)
    while same.frame[0] < simulation.frame[0]:
        now = same.observation()
        same.step(greedy(policy, now.flat(), now.mask))
    np.testing.assert_array_equal(simulation.observation().flat(), same.observation().flat())


def test_rollouts_improve_a_policy(asked: Scenario, policy: PointPolicy) -> None:
    def worth() -> float:
        return float(played_on(policy, played(asked).forked(np.arange(16)), np.full(16, 9), frames=40).mean())

    before, losses = worth(), []
    improve(policy, [played(asked)], QUICK, np.random.default_rng(0), lambda *told: losses.append(told))
    assert [told[:2] for told in losses] == [(1, 2), (2, 2)]
    assert worth() > before


def test_short_episodes_have_labels_too(policy: PointPolicy) -> None:
    short = scenario(BUMPY, episode_s=0.2)
    labels = tried(policy, played(short), replace(QUICK, labels_per_round=8), np.random.default_rng(0))
    assert len(labels.flat) >= 8


def test_labels_of_two_tables_are_fitted_together(asked: Scenario, policy: PointPolicy) -> None:
    """The smaller table's points keep their columns, and those that it lacks are not allowed."""
    labels = tried(policy, played(asked), QUICK, np.random.default_rng(0))
    fields, size = len(policy.fields.points), labels.mask.shape[1]
    whole = labels.flat[:, -fields * size :].reshape(-1, fields, size)
    fewer = Labels(
        torch.cat([labels.flat[:, : -fields * size], whole[:, :, :3].flatten(1)], dim=1),
        labels.mask[:, :3], labels.regret[:, :3],
    )  # fmt: skip
    both = Labels.of([labels, fewer], fields)
    assert torch.equal(both.flat[: len(whole)], labels.flat)
    padded = both.flat[len(whole) :]
    assert torch.equal(padded[:, -fields * size :].reshape(-1, fields, size)[:, :, :3], whole[:, :, :3])
    assert not both.mask[len(whole) :, 3:].any()
    few = greedy(policy, fewer.flat.numpy(), fewer.mask.numpy())
    np.testing.assert_array_equal(greedy(policy, padded.numpy(), both.mask[len(whole) :].numpy()), few)
