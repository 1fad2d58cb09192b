"""Heat made by work: a first-order curve, a clock that falls, and a device that throttles after minutes of races."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.agents.small import scenario, steps
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.heat import BARE, FAN, HEAT_SINK, NO_HEAT, Cooling
from tidesplit.envs.world.physics import World
from tidesplit.profiling.points.table import Machine

ROUND = Cooling(kelvin_per_watt=10.0, settling_s=60.0)
WATTS = Machine(idle_w=2.7, busy_w=5.75, threads=4)


def one(value: float) -> np.ndarray:
    return np.array([value])


def test_it_settles_in_proportion_to_the_watts() -> None:
    assert ROUND.settled(one(20.0), 3.0) == pytest.approx([50.0])
    assert ROUND.after(one(90.0), one(20.0), one(3.0), one(1e9)) == pytest.approx([50.0])


def test_half_of_the_way_takes_the_logarithm_of_two() -> None:
    assert ROUND.after(one(20.0), one(20.0), one(4.0), one(60.0 * np.log(2.0))) == pytest.approx([40.0])


def test_two_steps_are_one_long_step() -> None:
    twice = ROUND.after(ROUND.after(one(20.0), one(25.0), one(5.0), one(7.0)), one(25.0), one(5.0), one(11.0))
    assert twice == pytest.approx(ROUND.after(one(20.0), one(25.0), one(5.0), one(18.0)))


@pytest.mark.parametrize(("heat_c", "factor"), [(20, 1), (80, 1), (81, 1.1), (82.5, 1.25), (85, 1.5), (120, 1.5)])
def test_the_clock_falls_between_two_temperatures(heat_c: float, factor: float) -> None:
    assert BARE.slow_down(one(heat_c)) == pytest.approx([factor])


def test_a_device_without_heat_stays_as_it_is() -> None:
    assert NO_HEAT.after(one(20.0), one(40.0), one(9.0), one(1e3)) == pytest.approx([20.0])
    assert NO_HEAT.slow_down(one(200.0)) == pytest.approx([1.0])


# cooling -> settled temperatures of an idle and of a busy Raspberry Pi 4, in a room of 22 degrees
@pytest.mark.parametrize(
    ("cooling", "idle_c", "busy_c"), [(BARE, 46.3, 73.75), (HEAT_SINK, 34.15, 47.875), (FAN, 30.64, 40.4)]
)
def test_published_curves(cooling: Cooling, idle_c: float, busy_c: float) -> None:
    settled = [cooling.settled(one(22.0), watts)[0] for watts in (WATTS.idle_w, WATTS.busy_w)]
    assert settled == pytest.approx([idle_c, busy_c])


def minutes(point: str, air_c: float, seconds: float = 300.0) -> Simulation:
    """A device after so long with the same point, 30 frames a second."""
    world = replace(World(), coolest_c=air_c, warmest_c=air_c, jitter=0.0)
    asked = scenario(steps("steady", [4.0] * 100, step_s=10.0), world=world)
    asked = replace(asked, table=replace(asked.table, machine=WATTS))
    played = Simulation(asked, [np.random.default_rng(0)])
    played.queues.heat_c[:] = BARE.settled(one(air_c), WATTS.idle_w)
    for _ in range(int(seconds * 30)):
        played.step(np.array([asked.table.row(point)]))
    return played


def test_a_device_that_races_all_the_time_throttles_after_minutes_in_warm_air() -> None:
    """28 of 33 ms on all threads and 6 on one: 5.4 W, so that it would settle at 86 degrees in air of 37."""
    soon, late = (minutes("jpeg95+device-w25", 37.0, seconds) for seconds in (20.0, 300.0))
    assert soon.queues.heat_c[0] < BARE.soft_c
    assert soon.slow_down[0] == 1.0
    assert BARE.soft_c < late.queues.heat_c[0] < BARE.hard_c
    assert late.slow_down[0] > 1.05


@pytest.mark.parametrize(("point", "air_c"), [("jpeg95", 37.0), ("jpeg95+device-w25", 20.0)])
def test_one_that_only_sends_or_races_in_cool_air_stays_cool(point: str, air_c: float) -> None:
    played = minutes(point, air_c, 120.0)
    assert played.queues.heat_c[0] < BARE.soft_c
    assert played.slow_down[0] == 1.0


def test_an_episode_begins_between_idle_and_full_load() -> None:
    asked = scenario(steps("steady", [4.0] * 10))
    asked = replace(asked, table=replace(asked.table, machine=WATTS))
    played = Simulation(asked, [np.random.default_rng(seed) for seed in range(200)])
    load = (played.queues.heat_c - played.frame_at().ambient_c) / BARE.kelvin_per_watt
    assert load.min() == pytest.approx(WATTS.idle_w, abs=0.1)
    assert load.max() == pytest.approx(WATTS.busy_w, abs=0.1)
