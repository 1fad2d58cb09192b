"""The policy that ships finds back to a link that was away for a minute, also where a joule is dear."""

from __future__ import annotations

import numpy as np

from tidesplit.agents import bundle as bundles
from tidesplit.data.files import GENERALIST
from tidesplit.envs.budget.prices import Prices
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.traces.trace import Trace

SENT_BYTES = 200.0  # more than a message without content
AWAY_S, BACK_S = 10.0, 70.0
TUNNEL = Trace("tunnel", np.array([0.0, AWAY_S, BACK_S]), 140.0, np.array([8e6, 0.0, 8e6]))


def test_it_sends_again_within_a_minute() -> None:
    asked = scenario_from(trace=[TUNNEL], max_watts=4.4)
    simulation = Simulation(asked, [np.random.default_rng(lane) for lane in range(3)])
    simulation.begin_with(Prices.of(1.0, 0.0, simulation.lanes))
    policy = bundles.load(GENERALIST).policy
    sent = []
    for _ in range(int(30 * asked.traces[0].duration_s)):
        outcome, _ = simulation.step(policy.predict(simulation.observation()))
        sent.append(outcome.hops[0].sent_bytes > SENT_BYTES)
    before, after = np.mean(sent[: int(30 * AWAY_S)], axis=0), np.mean(sent[int(30 * (BACK_S + 61.0)) :], axis=0)
    assert (before > 0.8).all()
    assert (after > 0.8).all()
