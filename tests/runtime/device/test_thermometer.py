"""The processor's temperature, read from a file as Linux writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidesplit.envs.world.physics import World
from tidesplit.profiling.points.table import Machine
from tidesplit.runtime.device.thermometer import Thermometer, usual_c


def test_it_is_read_at_most_once_a_second(tmp_path: Path) -> None:
    zone = tmp_path / "temp"
    zone.write_text("48312\n")
    thermometer = Thermometer(zone)
    assert thermometer.at(5.0) == 48.312
    zone.write_text("81000\n")
    assert thermometer.at(5.9) == 48.312
    assert thermometer.at(6.1) == 81.0


@pytest.mark.parametrize("text", [None, "", "hot"])
def test_a_system_that_does_not_know_it(tmp_path: Path, text: str | None) -> None:
    zone = tmp_path / "temp"
    if text is not None:
        zone.write_text(text)
    assert Thermometer(zone).at(0.0) is None


def test_the_usual_temperature_is_within_the_range_of_training() -> None:
    world = World()
    assert usual_c(world, Machine(2.7, 6.4, 4)) == pytest.approx(27.5 + 9.0 * 4.55)
    assert usual_c(world, Machine()) == pytest.approx(27.5)
