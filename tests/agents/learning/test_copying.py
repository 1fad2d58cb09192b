"""A policy that is behind a rule learns that rule, and what it knew before is kept where it was better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO

from tests.agents.small import BUMPY, scenario
from tidesplit.agents.learning import training
from tidesplit.agents.learning.imitation import ImitationConfig, collect, imitate, to_copy
from tidesplit.agents.learning.policy import PointPolicy, greedy
from tidesplit.agents.learning.rollouts import RolloutConfig
from tidesplit.agents.rules.controllers import Lookup, Static
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.observation import unflatten

torch.set_num_threads(1)  # so small nets gain nothing by more
QUICK = ImitationConfig(rounds=2, labels_per_round=1000, last_epochs=60, first_entropy=0.02, last_entropy=0.02)
RECIPE = training.Recipe(
    imitation=replace(QUICK, rounds=1, last_epochs=1),
    copying=QUICK,
    rollouts=RolloutConfig(rounds=1, labels_per_round=64, every=6, points=4, frames=4),
    ppo=training.PpoConfig(lanes=4, rollout=8, batch=32),
)
RULE = Lookup(name="a rule")


@pytest.fixture
def asked() -> Scenario:
    return scenario(BUMPY, episode_s=2.0)


@pytest.fixture
def model(asked: Scenario) -> MaskablePPO:
    torch.manual_seed(0)
    return training.new_model(asked, RECIPE)


def agreement(policy: PointPolicy, asked: Scenario, rule: Lookup | Static) -> float:
    """Share of the frames of some episodes that the policy decides as the rule does."""
    simulation = Simulation(asked, [np.random.default_rng([9, lane]) for lane in range(16)])
    same = []
    for _ in range(50):
        now = simulation.observation()
        points = greedy(policy, now.flat(), now.mask)
        same.append(points == rule.predict(now))
        simulation.step(points)
    return float(np.mean(same))


def test_a_rule_as_a_teacher_regrets_every_other_point(asked: Scenario) -> None:
    simulation = Simulation(asked, [np.random.default_rng(lane) for lane in range(8)])
    labels = collect(None, simulation, QUICK, np.random.default_rng(0), to_copy(RULE))
    chosen = RULE.predict(unflatten(labels.flat.numpy(), labels.mask.numpy()))
    expected = np.ones(labels.mask.shape)
    expected[np.arange(len(chosen)), chosen] = 0.0
    np.testing.assert_array_equal(labels.regret.numpy(), expected)


def test_a_policy_learns_to_decide_as_a_rule_does(asked: Scenario, model: MaskablePPO) -> None:
    policy = training.policy_of(model)
    simulation = Simulation(asked, [np.random.default_rng(lane) for lane in range(16)])
    imitate(policy, [simulation], QUICK, np.random.default_rng(0), teacher=to_copy(RULE))
    assert agreement(policy, asked, RULE) > 0.9


def test_a_trained_policy_keeps_its_scales(asked: Scenario, model: MaskablePPO) -> None:
    policy = training.policy_of(model)
    assert not policy.knows_scales
    simulation = Simulation(asked, [np.random.default_rng(lane) for lane in range(16)])
    imitate(policy, [simulation], replace(QUICK, rounds=1), np.random.default_rng(0))
    assert policy.knows_scales
    before = policy.features.state.mean.clone()
    imitate(policy, [simulation], replace(QUICK, rounds=1), np.random.default_rng(0), teacher=to_copy(RULE))
    assert torch.equal(policy.features.state.mean, before)


@pytest.mark.parametrize(
    ("ahead", "phases"), [(True, ["imitation", "rollouts", "rule"]), (False, ["imitation", "rollouts"])]
)
def test_a_rule_is_learned_only_where_it_is_ahead(
    asked: Scenario, model: MaskablePPO, ahead: bool, phases: list[str]
) -> None:
    policy, logged = training.policy_of(model), list[str]()
    keeper = training.Keeper(lambda policy: agreement(policy, asked, RULE))
    rules = [(2.0 if ahead else -1.0, RULE), (-2.0, Static("another", 0))]

    def log(phase: str, losses: object) -> None:
        logged.append(phase)

    training.learn_before_ppo(model, asked, RECIPE, keeper, lambda: rules, True, lambda *_: None, log)
    assert logged == phases
    assert agreement(policy, asked, RULE) == max(keeper.checks)
    assert (agreement(policy, asked, RULE) > 0.9) == ahead


def test_without_rules_the_best_policy_goes_on(asked: Scenario, model: MaskablePPO) -> None:
    worth = iter([1.0, 0.0])
    keeper = training.Keeper(lambda _: next(worth))
    training.learn_before_ppo(model, asked, RECIPE, keeper, lambda: [], True, lambda *_: None)
    assert keeper.best is not None
    for name, value in training.policy_of(model).state_dict().items():
        assert torch.equal(value, keeper.best[1][name])
