"""The recipe of a training, and the kinds of episodes of the policy that ships."""

from __future__ import annotations

import pytest

from tidesplit.agents.learning import training
from tidesplit.benchmarks import generalist
from tidesplit.envs.budget.prices import Prices
from tidesplit.envs.traces.trace import load_traces


@pytest.mark.parametrize(
    ("effort", "imitation", "rollouts", "steps"),
    [(1.0, 6000, 2500, 100_000), (4.0, 24_000, 10_000, 400_000), (0.5, 3000, 1250, 50_000)],
)
def test_effort_is_labels_and_steps(effort: float, imitation: int, rollouts: int, steps: int) -> None:
    recipe = training.Recipe(seed=7).times(effort)
    assert recipe.imitation.labels_per_round == recipe.copying.labels_per_round == imitation
    assert recipe.rollouts.labels_per_round == rollouts
    assert recipe.ppo.steps == steps
    assert recipe.seed == 7


def test_the_policy_that_ships_meets_the_probes_of_every_kind_of_budget() -> None:
    traces, usual = [load_traces("lte")], Prices.of(1.0, generalist.BYTE_PRICE)
    made = [generalist.scenario("cifar_resnet", "raspberry-pi-4", kind, traces, usual) for kind in generalist.BUDGETS]
    assert [one.world.probe_after_s for one in made] == [pytest.approx(3.4992), 60.0, 60.0, 0.5]
