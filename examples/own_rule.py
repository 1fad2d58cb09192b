"""A rule of your own in every table. Copy it, change `predict`, and run:

    tidesplit evaluate out/lte --trace lte --controller examples.own_rule:Careful

A controller is any object with `predict`. It gets one observation with B lanes, and returns the row of an operating
point for each. `observation.foreseen` has the forecast of every point, `observation.seen` the state of link and device.
"""

from __future__ import annotations

import numpy as np

from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.vocabulary import Ints


class Careful:
    """The most accurate point whose answer is foreseen well before the deadline, else the quickest."""

    name = "careful"

    def __init__(self, scenario: Scenario) -> None:
        self.margin_s = 0.1 * scenario.demands[0].deadline_s  # or tuned on its training traces

    def predict(self, observation: Observation) -> Ints:
        """Rows of the table ``[B]``."""
        points, mask = observation.foreseen, observation.mask
        fits = mask & (points.slack_low_s >= self.margin_s)
        worth = np.where(fits, points.accuracy, np.where(mask, -points.latency_s, -np.inf) - 1.0)
        return np.asarray(worth.argmax(axis=1))


def main() -> None:
    """Play the rule against three of the ladder, without any trained policy."""
    from tidesplit.agents.judging.evaluation import Entrant, play, simulation_of
    from tidesplit.agents.judging.ladder import Tuning, tuned_rules
    from tidesplit.envs.simulation.scenario import scenario_from

    scenario = scenario_from(trace="lte", fps=30, deadline_ms=100, episode_s=10.0)
    rules = tuned_rules(scenario, Tuning(lanes=2), ["best static point", "device only", "look-up, naive"])
    entrants: dict[str, Entrant] = {**rules, Careful.name: Careful(scenario)}
    for name, entrant in entrants.items():
        utility = np.mean([record.utility.mean() for record in play(entrant, simulation_of(scenario, range(8)))])
        print(f"{name:20} utility {utility:.3f}, simulated")


if __name__ == "__main__":
    main()
