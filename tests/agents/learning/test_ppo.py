"""The quick update is MaskablePPO's: the same frames make the same policy, up to rounding."""

from __future__ import annotations

import pytest
import torch
from sb3_contrib import MaskablePPO

from tests.agents.small import BUMPY, DEAD, scenario
from tidesplit.agents.learning.ppo import PointPPO
from tidesplit.agents.learning.training import PpoConfig, Recipe, new_model, policy_of

TINY = Recipe(ppo=PpoConfig(lanes=8, rollout=16, batch=48, epochs=2))


def untrained() -> PointPPO:
    model = new_model(scenario(BUMPY, DEAD, episode_s=0.4), TINY)
    assert isinstance(model, PointPPO)
    return model


def learned(update: str, frozen: bool) -> PointPPO:
    model = untrained()
    policy_of(model).freeze_actor(frozen)
    if update == "sb3":
        model.train = lambda: MaskablePPO.train(model)  # type: ignore[method-assign]
    return model.learn(2 * 8 * 16)


@pytest.mark.parametrize("frozen", [False, True])
def test_an_update_is_that_of_maskable_ppo(frozen: bool) -> None:
    sb3, ours = learned("sb3", frozen), learned("ours", frozen)
    for name, weights in ours.policy.state_dict().items():
        torch.testing.assert_close(weights, sb3.policy.state_dict()[name], rtol=1e-3, atol=1e-5, msg=name)
    assert torch.equal(ours.policy.actor.own.weight, untrained().policy.actor.own.weight) == frozen
    logged = ours.logger.name_to_value
    assert ("train/approx_kl" in logged) != frozen
    kept = {name for name in sb3.logger.name_to_value if name in logged and name.startswith("train/")} - {"train/loss"}
    assert kept >= {"train/value_loss", "train/explained_variance", "train/n_updates", "train/clip_range"}
    for name in kept:
        assert logged[name] == pytest.approx(sb3.logger.name_to_value[name], rel=1e-2, abs=1e-4), name
