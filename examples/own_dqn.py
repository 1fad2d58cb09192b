"""An agent of your own: a DQN of Stable-Baselines3, trained in half a minute of one core, then in the table.

    python examples/own_dqn.py dqn.zip
    DQN=dqn.zip tidesplit evaluate out/lte --trace lte --controller examples.own_dqn:trained

It is no good agent: it neither masks points nor trains for long. But it learns: its observations are normalised. In SI
units a net would see milliseconds next to megabytes a second.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import torch
from stable_baselines3 import DQN

from tidesplit.envs.adapters.normalised import FixedScales
from tidesplit.envs.adapters.sb3 import SplitInferenceVecEnv
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Ints

LANES, STEPS = 32, 60_000


class Agent:
    """A DQN as a controller of the package: it gets the same columns as in training."""

    name = "DQN"

    def __init__(self, model: DQN, scenario: Scenario) -> None:
        self.model, self.scales = model, FixedScales(scenario.table)

    def predict(self, observation: Observation) -> Ints:
        """Rows of the table ``[B]``."""
        rows, _ = self.model.predict(self.scales(observation.flat()), deterministic=True)
        return rows


def trained(scenario: Scenario) -> Agent:
    """The agent in the file that DQN names, for `tidesplit evaluate --controller`. Load only files of your own."""
    return Agent(DQN.load(os.environ.get("DQN", "dqn.zip"), device="cpu"), scenario)


def learn(scenario: Scenario, steps: int = STEPS) -> DQN:
    """Train a DQN on frames of the scenario."""
    envs = SplitInferenceVecEnv(LANES, scenario=scenario, normalise=True)
    model = DQN(
        "MlpPolicy", envs, learning_rate=1e-3, buffer_size=40_000, learning_starts=2_000, batch_size=256, train_freq=2,
        gradient_steps=2, target_update_interval=300, gamma=0.9, exploration_fraction=0.4, exploration_final_eps=0.03,
        policy_kwargs={"net_arch": [64, 64]}, seed=0, device="cpu",
    )  # fmt: skip
    return model.learn(steps)


def main(path: str = "") -> None:
    """Train, compare with always the same point, and save the agent where a path is given."""
    from tidesplit.agents.judging.evaluation import play, simulation_of
    from tidesplit.agents.judging.ladder import Tuning, static_utilities

    torch.set_num_threads(1)  # the net is small
    scenario = scenario_from(trace="lte", fps=30, deadline_ms=100, episode_s=10.0)
    model = learn(scenario)
    if path:
        model.save(path)
    played = play(Agent(model, scenario), simulation_of(scenario, range(100, 116)))
    worth, points = static_utilities(scenario, Tuning(lanes=4)), scenario.table.ids
    print(f"DQN: utility {np.mean([record.utility.mean() for record in played]):.3f}, simulated, {STEPS} frames")
    for title, value in (("worst", worth.min()), ("median", np.median(worth)), ("best", worth.max())):
        print(f"always the {title} point: {value:.3f} ({points[np.abs(worth - value).argmin()]})")


if __name__ == "__main__":
    main(*sys.argv[1:])
