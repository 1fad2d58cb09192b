"""Many environments stepped as one: episodes that begin again by themselves. What `vector` and `sb3` have in common."""

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

    ``observation`` is of the next frame, in lanes that ended (``ended``, ``[E]``) of a new episode's first; what those
    would have seen next is in ``final``, flat rows ``[E, S + F * A]``, and ``final_mask``, ``[E, A]``.
    """

    observation: Observation
    outcome: Outcome
    done: Bools
    ended: Ints
    final: NDArray[np.float32]
    final_mask: Bools


class Lanes:
    """``count`` lanes over one simulation, lane i as the single environment would be with that lane's seed."""

    def __init__(self, scenario: Scenario, count: int) -> None:
        self.scenario = scenario
        self.count = count
        self.simulation = Simulation(scenario, [np.random.default_rng() for _ in range(count)])

    def reset(self, seeds: Sequence[int | None]) -> Observation:
        """Begin an episode in every lane; a lane with a seed begins its random generator anew too.

        Raises:
            ValueError: not one seed (or None) a lane.
        """
        if len(seeds) != self.count:
            raise ValueError(f"got {len(seeds)} seeds, expected one for each of {self.count} lanes")
        for lane, seed in enumerate(seeds):
            if seed is not None:
                self.simulation.rngs[lane] = np.random.default_rng(seed)
        self.simulation.reset(np.arange(self.count))
        return self.simulation.observation()

    def step(self, points: Ints) -> Stepped:
        """Answer one frame a lane, by rows of the table ``[B]``."""
        outcome, done = self.simulation.step(points)
        ended = np.flatnonzero(done)
        observation = self.simulation.observation()
        final = observation.take(ended)
        if ended.size:
            self.simulation.reset(ended)
            observation = self.simulation.observation()
        return Stepped(observation, outcome, done, ended, final.flat(), final.mask)
