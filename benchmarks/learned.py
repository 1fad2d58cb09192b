"""A policy trained without a log: what the benchmarks compare with the rules."""

from __future__ import annotations

from dataclasses import replace

import torch

from tidesplit.agents.judging import ladder, tuning_cache
from tidesplit.agents.learning import training
from tidesplit.agents.learning.monitor import Learner
from tidesplit.agents.learning.options import TrainingOptions
from tidesplit.agents.learning.policy import PointPolicy
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.train import CHECK_S, CHECKING, SIMPLE, worths


def trained(
    scenario: Scenario, cnn: str, steps: int, seed: int, trace_spread: float = TrainingOptions.trace_spread
) -> PointPolicy:
    """Train on the scenario as ``train.py`` does, on one thread: benchmarks train several policies at a time.

    Of the policies after each phase the best on training episodes is kept. Rules are those for the first demand.
    ``cnn``: name of its profile.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    varied = replace(scenario, trace_spread=trace_spread)
    recipe, start = training.Recipe(ppo=training.PpoConfig(steps=steps), seed=seed), training.usual_start(scenario, cnn)
    model = training.new_model(varied, recipe, start)
    policy, checked_on = training.policy_of(model), replace(varied.unvaried, episode_s=CHECK_S)
    keeper = training.Keeper(lambda policy: ladder.mean_utility(Learner(policy), checked_on, CHECKING))
    simple = tuning_cache.cached_rules(replace(scenario, price_draw=None), ladder.Tuning(), SIMPLE)
    begin: training.Phase = "imitation" if start is None else "rollouts"
    learned = training.before_ppo(
        model, varied, recipe, keeper, begin, lambda: worths(simple, checked_on), lambda *_: None
    )
    for _ in learned:
        pass
    training.learn_by_ppo(model, recipe, None, lambda *_: None)
    keeper.check(policy)
    keeper.restore(policy)
    return policy
