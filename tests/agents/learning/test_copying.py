"""A policy that is behind a rule learns that rule, and what it knew before is kept where it was better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO

from tests.agents.small import BUMPY, DEAD, scenario
from tidesplit import train
from tidesplit.agents.judging import ladder
from tidesplit.agents.learning import training
from tidesplit.agents.learning.imitation import ImitationConfig, collect, imitate, to_copy
from tidesplit.agents.learning.policy import PointPolicy, greedy
from tidesplit.agents.rules.controllers import Lookup, Static
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.observation import unflatten
from tidesplit.envs.world.vocabulary import Demand

torch.set_num_threads(1)  # so small nets gain nothing by more
QUICK = ImitationConfig(rounds=2, labels_per_round=1000, last_epochs=60)
FEW = replace(QUICK, rounds=1, labels_per_round=64, last_epochs=1)
RECIPE = training.Recipe(
    imitation=FEW,
    copying=QUICK,
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
    labels = collect(None, simulation, FEW, np.random.default_rng(0), to_copy(RULE))
    chosen = RULE.predict(unflatten(labels.flat.numpy(), labels.mask.numpy()))
    expected = np.ones(labels.mask.shape)
    expected[np.arange(len(chosen)), chosen] = 0.0
    np.testing.assert_array_equal(labels.regret.numpy(), expected)


def test_a_policy_learns_to_decide_as_a_rule_does(asked: Scenario, model: MaskablePPO) -> None:
    policy = training.policy_of(model)
    simulation = Simulation(asked, [np.random.default_rng(lane) for lane in range(16)])
    imitate(policy, [simulation], QUICK, np.random.default_rng(0), teacher=to_copy(RULE))
    assert agreement(policy, asked, RULE) > 0.75


def test_a_trained_policy_keeps_its_scales(asked: Scenario, model: MaskablePPO) -> None:
    policy = training.policy_of(model)
    assert not policy.knows_scales
    simulation = Simulation(asked, [np.random.default_rng(lane) for lane in range(16)])
    imitate(policy, [simulation], FEW, np.random.default_rng(0))
    assert policy.knows_scales
    before = policy.features.state.mean.clone()
    imitate(policy, [simulation], FEW, np.random.default_rng(0), teacher=to_copy(RULE))
    assert torch.equal(policy.features.state.mean, before)


def test_some_lanes_are_labelled_too(asked: Scenario, model: MaskablePPO) -> None:
    policy = training.policy_of(model)
    simulation = Simulation(asked, [np.random.default_rng(lane) for lane in range(8)])
    labels = collect(policy, simulation, FEW, np.random.default_rng(0), to_copy(RULE))
    chosen = RULE.predict(unflatten(labels.flat.numpy(), labels.mask.numpy()))
    np.testing.assert_array_equal(labels.regret.numpy().argmin(axis=1), chosen)


@pytest.mark.parametrize(
    ("demand", "names"),
    [
        (Demand(), ["best static point"]),
        (Demand(max_gb_month=10.0), ["best static point", "best mixture of points", "threshold rule"]),
    ],
)
def test_simple_rules_have_a_worth_also_where_they_stay_on_the_device(demand: Demand, names: list[str]) -> None:
    offline = scenario(DEAD, demands=[demand])
    tuned = ladder.tuned_rules(offline, ladder.Tuning(lanes=2, episode_s=1.0), train.SIMPLE)
    found = train.worths(tuned, replace(offline, episode_s=1.0))
    assert [rule.name for _, rule in found] == names
    assert all(0.0 < worth <= 1.0 for worth, _ in found)


def test_a_rule_that_is_hardly_ahead_is_not_learned(asked: Scenario, model: MaskablePPO) -> None:
    keeper = training.Keeper(lambda _: 0.5)
    keeper.check(training.policy_of(model))
    hardly = 0.5 + 0.9 * training.BEHIND
    assert not training.learn_from_best(model, asked, RECIPE, keeper, [(hardly, RULE)], lambda *_: None)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_rule_is_learned_only_where_it_is_ahead(asked: Scenario, model: MaskablePPO, ahead: bool) -> None:
    policy = training.policy_of(model)
    keeper = training.Keeper(lambda policy: agreement(policy, asked, RULE))
    training.learn_by_imitation(model, [asked], RECIPE, lambda *_: None)
    keeper.check(policy)
    rules = [(2.0 if ahead else -1.0, RULE), (-2.0, Static("another", 0))]
    losses = training.learn_from_best(model, asked, RECIPE, keeper, rules, lambda *_: None)
    assert len(losses) == ahead * QUICK.rounds
    assert agreement(policy, asked, RULE) == max(keeper.checks)
    assert (agreement(policy, asked, RULE) > 0.75) == ahead


def test_the_best_policy_goes_on(asked: Scenario, model: MaskablePPO) -> None:
    policy, worth = training.policy_of(model), iter([1.0, 0.0, 0.5])
    keeper, quick = training.Keeper(lambda _: next(worth)), replace(RECIPE, copying=FEW)
    keeper.check(policy)
    best = {name: value.clone() for name, value in policy.state_dict().items()}
    training.learn_by_imitation(model, [asked], RECIPE, lambda *_: None)
    keeper.check(policy)
    assert not training.learn_from_best(model, asked, RECIPE, keeper, [], lambda *_: None)
    assert all(torch.equal(value, best[name]) for name, value in policy.state_dict().items())
    assert training.learn_from_best(model, asked, quick, keeper, [(2.0, RULE)], lambda *_: None)
    assert all(torch.equal(value, best[name]) for name, value in policy.state_dict().items())
