"""One operating point for every frame, as the ladder's static rule has it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.profiles import synthetic_profile
from tidesplit.agents.rules.controllers import Static
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.runtime.choosing.fixed_point import fixed_point


def test_it_decides_as_the_rule_of_the_ladder_does() -> None:
    scenario = scenario_from(trace="lte", profile=synthetic_profile(), episode_s=1.0)
    observation = Simulation(scenario, [np.random.default_rng(seed) for seed in range(8)]).observation()
    rng = np.random.default_rng(0)
    for point in scenario.table.ids:
        chosen = fixed_point(scenario.table, point)
        rule = Static("always", scenario.table.row(point))
        assert chosen.name == point
        for share in (0.0, 0.5, 0.9):
            mask = rng.random(observation.mask.shape) >= share
            mask[:, 0] = True
            masked = observation._replace(mask=mask)
            assert chosen.predict(masked).tolist() == rule.predict(masked).tolist()


def test_an_unknown_point_is_named_with_those_alike() -> None:
    table = scenario_from(trace="lte", profile=synthetic_profile()).table
    with pytest.raises(ValueError, match=r"--point jpeg51: the bundle has no such .* alike: jpeg95, jpeg50") as caught:
        fixed_point(table, "jpeg51")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"--point @: .* these are alike: jpeg95"):
        fixed_point(table, "@")
