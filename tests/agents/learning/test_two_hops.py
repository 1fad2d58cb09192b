"""Two hops: PPO trains on them, and the bundle decides as the policy does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.agents.small import BUMPY
from tests.envs.three import three_tiers
from tests.profiles import CLOUD, DEVICE, SERVER, three_tier_profile
from tidesplit.agents import bundle
from tidesplit.agents.judging.evaluation import simulation_of
from tidesplit.agents.learning import training
from tidesplit.agents.learning.bundle_writer import write_bundle
from tidesplit.agents.learning.imitation import ImitationConfig
from tidesplit.agents.learning.policy import greedy
from tidesplit.envs.world.fields import fields_of
from tidesplit.envs.world.vocabulary import Demand


def test_ppo_trains_and_its_bundle_decides_as_it_does(tmp_path: Path) -> None:
    asked = three_tiers(trace=BUMPY, second_trace=BUMPY)
    recipe = training.Recipe(
        imitation=ImitationConfig(rounds=2, labels_per_round=64, epochs_per_round=1, last_epochs=1),
        ppo=training.PpoConfig(lanes=4, rollout=16, batch=32, steps=64, critic_steps=64),
    )
    model = training.new_model(asked, recipe)
    training.learn_by_imitation(model, [asked], recipe, lambda *_: None)
    training.learn_by_ppo(model, recipe, None, lambda *_: None)
    policy = training.policy_of(model)
    write_bundle(
        tmp_path,
        policy,
        profile=three_tier_profile(),
        table=asked.table,
        machines=(DEVICE, SERVER, CLOUD),
        demand=Demand(),
        config={},
    )
    read = bundle.load(tmp_path)
    assert read.manifest["state_fields"] == list(fields_of(2).state)
    assert (read.table.ids, len(read.table.hops)) == (asked.table.ids, 2)
    np.testing.assert_array_equal(read.table.hops[1].compute_s, asked.table.hops[1].compute_s)
    simulation = simulation_of(asked, 0)
    for _ in range(20):
        told = simulation.observation()
        ours = greedy(policy, told.flat(), told.mask)
        np.testing.assert_array_equal(read.policy.predict(told), ours)
        simulation.step(ours)
