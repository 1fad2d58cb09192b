"""Rollouts: every likely point is tried against the same course of events, and the policy learns from the gains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.agents.small import BUMPY, scenario, steps
from tidesplit.agents.learning.imitation import Labels, fit
from tidesplit.agents.learning.policy import PointPolicy, greedy
from tidesplit.agents.learning.rollouts import RolloutConfig, improve, played_on, tried, tried_for_long
from tidesplit.agents.learning.training import PpoConfig, Recipe, new_model, policy_of
from tidesplit.envs.budget.prices import PriceDraw, Prices
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.vocabulary import Demand

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


FOR_ENERGY = [Demand(max_watts=4.0)]
LONG = replace(QUICK, long_labels=64, long_s=4.0)


def inclined(asked: Scenario, *points: str) -> PointPolicy:
    """A policy that has learned nothing but to choose the first of these points, and the next rather than others."""
    torch.manual_seed(0)
    made = policy_of(new_model(asked, Recipe(ppo=PpoConfig(lanes=4, rollout=8, batch=32))))
    start = played(asked).observation()
    made.fit_normaliser(torch.from_numpy(start.flat()))
    rows = torch.from_numpy(np.repeat(start.flat(), 8, axis=0))
    losses = torch.ones(len(rows), asked.table.size)
    for rank, point in enumerate(points):
        losses[:, asked.table.ids.index(point)] = rank / len(points)
    labels = Labels(rows, torch.ones_like(losses, dtype=torch.bool), losses)
    fit(made, labels, torch.optim.Adam(made.actor.parameters(), lr=1e-2), 64, 60, 0.01, np.random.default_rng(0))
    return made


def cheapest(labels: Labels, asked: Scenario) -> float:
    """Share of the labelled states in which a point that sends nothing loses least."""
    best = labels.regret.masked_fill(~labels.mask, np.inf).argmin(dim=1).numpy()
    return float(asked.table.local[best].mean())


def test_only_long_silence_shows_what_a_radio_saves_that_sleeps() -> None:
    """Every message comes back in time, and a joule is dear. One silent frame saves little, the next pays the tail."""
    asked = scenario(steps("steady", [3.0] * 600), demands=FOR_ENERGY, episode_s=60.0)
    asked = replace(asked, price_draw=PriceDraw(Prices.of(6.0, 0.0), spread=1.0, free=0.0))
    policy, rng = inclined(asked, "jpeg50", "device-w25"), np.random.default_rng(0)
    assert cheapest(tried(policy, played(asked), QUICK, rng), asked) < 0.5
    labels = tried_for_long(policy, played(asked), replace(LONG, long_s=15.0), rng)
    assert len(labels.flat) >= LONG.long_labels
    assert cheapest(labels, asked) > 0.9
    assert float(labels.regret.max()) <= LONG.cap


def test_on_a_good_link_it_is_sending_that_pays() -> None:
    """Where a joule costs next to nothing, and the server is more accurate than the device's small net."""
    asked = scenario(steps("good", [20.0] * 100), demands=FOR_ENERGY, episode_s=12.0)
    asked = replace(asked, price_draw=PriceDraw(Prices.of(1e-3, 0.0), spread=1.0, free=0.0))
    policy = inclined(asked, "device-w25", "jpeg95")
    assert cheapest(tried_for_long(policy, played(asked), LONG, np.random.default_rng(0)), asked) < 0.25


@pytest.mark.parametrize("demand", [Demand(), Demand(max_gb_month=10.0)])
def test_without_a_budget_of_energy_nothing_is_tried_for_long(demand: Demand) -> None:
    """Such a training stays what it was, bit for bit."""
    asked, found = scenario(BUMPY, demands=[demand], episode_s=2.0), []
    for config in (QUICK, LONG):
        made = inclined(asked, "jpeg50", "device-w25")
        improve(made, [played(asked)], config, np.random.default_rng(0))
        found.append(made.actor.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_with_a_budget_of_energy_they_are_learned_too() -> None:
    asked, found = scenario(BUMPY, demands=FOR_ENERGY, episode_s=12.0), []
    for config in (QUICK, LONG):
        made = inclined(asked, "jpeg50", "device-w25")
        improve(made, [played(asked)], config, np.random.default_rng(0))
        found.append(made.actor.state_dict())
    assert not all(torch.equal(found[0][name], found[1][name]) for name in found[0])
