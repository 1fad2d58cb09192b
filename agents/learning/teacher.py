"""The teacher of the imitation phase: how much each point will turn out to lose, by one who sees the future."""

from __future__ import annotations

import numpy as np

from tidesplit.agents.rules.lookahead import Outlook, regret
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.vocabulary import Floats, Ints


def hindsight_regret(simulation: Simulation, lanes: Ints, horizon: int = 6, width: int = 12) -> Floats:
    """Regret of each point at the frame that these lanes are about to decide, ``[N, A]``, with the true future."""
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
    return regret(outlook, horizon, width)
