"""The temperature that the device believes."""

from __future__ import annotations

import pytest

from tidesplit.envs.world.physics import World
from tidesplit.profiling.points.table import Machine
from tidesplit.runtime.device.thermometer import Thermometer, usual_c


def test_it_is_read_at_most_once_a_second() -> None:
    degrees = iter([48.3, 81.0, None])
    thermometer = Thermometer(lambda: next(degrees))
    assert [thermometer.at(now_s) for now_s in (5.0, 5.9, 6.1, 7.0, 7.2)] == [48.3, 48.3, 81.0, 81.0, None]


def test_the_usual_temperature_is_within_the_range_of_training() -> None:
    world = World()
    assert usual_c(world, Machine(2.7, 6.4, 4)) == pytest.approx(27.5 + 9.0 * 4.55)
    assert usual_c(world, Machine()) == pytest.approx(27.5)
