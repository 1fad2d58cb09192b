"""Who sees some frames ahead: the teacher of imitation, and a row of tables that shows what is left to win."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidesplit.agents.rules.lookahead import Outlook, regret
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Floats, Ints


def teacher_regret(
    simulation: Simulation,
    lanes: Ints,
    horizon: int = 5,
    width: int = 1,
    queue_cost: float = 0.6,
    later_points: int = 6,
) -> Floats:
    """The teacher: regret of each point at the frame that these lanes are about to decide, with the true future known.

    ``lanes``: lanes to label, ``[N]``. The other arguments are those of `regret`. Returns ``[N, A]``.
    """
    observation = simulation.observation()
    outlook = Outlook(
        queues=simulation.queues.take(lanes),
        frame_ahead=lambda h: simulation.frame_at(h, lanes),
        table=simulation.table,
        demands=simulation.demands.take(lanes),
        world=simulation.scenario.world,
        uplinks=simulation.uplinks,
        lane=lanes,
        mask=observation.mask[lanes],
        expected_s=observation.foreseen.latency_s[lanes].astype(np.float64),
        slow_belief=simulation.slow_down[lanes],
    )
    return regret(outlook, horizon, width, queue_cost, later_points, every_first=True)


@dataclass(frozen=True)
class Foresight:
    """One who sees some frames ahead, and weighs them at the present prices. Nobody can, it shows what is left to win.

    It is the teacher of imitation. It is no bound: what pays only after more frames is hidden from it.
    """

    name: str

    def __call__(self, simulation: Simulation) -> Seer:
        """The controller that reads this simulation's future."""
        return Seer(self.name, simulation)


class Seer:
    """See `Foresight`."""

    def __init__(self, name: str, simulation: Simulation) -> None:
        self.name = name
        self._simulation = simulation

    def predict(self, observation: Observation) -> Ints:
        """Row of the point without regret, ``[B]``."""
        losses = teacher_regret(self._simulation, np.arange(len(observation.mask)))
        return np.asarray(losses.argmin(axis=1), dtype=np.int64)
