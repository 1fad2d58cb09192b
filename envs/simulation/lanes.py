"""Many environments stepped as one, whose episodes begin again as they end. The core of `vector` and `sb3`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Bools, Ints, Outcome


class Stepped(NamedTuple):
    """One frame of every lane.

    Attributes:
        observation: of the next frame; where an episode ended, of the first frame of a new one.
        outcome: of the frame.
        done: True where the episode ended with the frame, ``[B]``.
        ended: the lanes of ended episodes, ``[E]``.
        final: last observations of the ended episodes, flat rows ``[E, S + F * A]``.
        final_mask: their masks, ``[E, A]``.
    """

    observation: Observation
    outcome: Outcome
    done: Bools
    ended: Ints
    final: NDArray[np.float32]
    final_mask: Bools


class Lanes:
    """``count`` lanes over one simulation. Each lane gives the numbers of the single environment with its seed."""

    def __init__(self, scenario: Scenario, count: int) -> None:
        self.scenario = scenario
        self.count = count
        self.simulation = Simulation(scenario, [np.random.default_rng() for _ in range(count)])

    def reset(self, seeds: Sequence[int | None]) -> Observation:
        """Begin an episode in every lane. A lane with a seed gets a new random generator too.

        Raises:
            ValueError: the number of seeds is not the number of lanes.
        """
        if len(seeds) != self.count:
            raise ValueError(f"got {len(seeds)} seeds, expected one for each of {self.count} lanes")
        for lane, seed in enumerate(seeds):
            if seed is not None:
                self.simulation.rngs[lane] = np.random.default_rng(seed)
        self.simulation.reset(np.arange(self.count))
        return self.simulation.observation()

    def step(self, points: Ints) -> Stepped:
        """Run one frame a lane. ``points`` are rows of the table, ``[B]``."""
        outcome, done = self.simulation.step(points)
        ended = np.flatnonzero(done)
        observation = self.simulation.observation()
        final = observation.take(ended)
        if ended.size:
            self.simulation.reset(ended)
            observation = self.simulation.observation()
        return Stepped(observation, outcome, done, ended, final.flat(), final.mask)
