"""The phases before PPO: their order, their checks, and when rules are asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.agents.small import BUMPY, scenario
from tidesplit.agents.learning import training
from tidesplit.agents.learning.imitation import ImitationConfig
from tidesplit.agents.learning.rollouts import RolloutConfig

torch.set_num_threads(1)
FEW = ImitationConfig(rounds=1, labels_per_round=32, last_epochs=1)
RECIPE = training.Recipe(
    imitation=FEW,
    copying=FEW,
    rollouts=RolloutConfig(rounds=2, labels_per_round=16, frames=4, epochs=1),
    ppo=training.PpoConfig(lanes=4, rollout=8, batch=32),
)


@pytest.mark.parametrize(
    ("begin", "phases", "checks"),
    [
        ("imitation", {"imitation": 1, "rollouts": 2, "rule": 0}, 2),
        ("rollouts", {"rollouts": 2, "rule": 0}, 2),  # of the start, and after them
        ("rule", {"rule": 0}, 0),
    ],
)
def test_phases_and_checks(begin: training.Phase, phases: dict[str, int], checks: int) -> None:
    asked, done = scenario(BUMPY, episode_s=2.0), []
    model, keeper = training.new_model(asked, replace(RECIPE, seed=3)), training.Keeper(lambda _: 0.5)

    def rules() -> list[tuple[float, training.Controller]]:
        assert done == list(phases)[:-1], "rules are asked for when their turn comes"
        return []

    for phase, losses in training.before_ppo(model, asked, RECIPE, keeper, begin, rules, lambda *_: None):
        done.append(phase)
        assert len(losses) == phases[phase]
    assert done == list(phases)
    assert len(keeper.checks) == checks
