"""Joules of the device's log: known answers, and the sums of the simulator for the same times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.agents.small import BUMPY, scenario
from tidesplit.agents.judging.evaluation import simulation_of
from tidesplit.envs.world.heat import NO_HEAT
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.radio import LTE
from tidesplit.profiling.points.table import UNKNOWN_MACHINE, Machine
from tidesplit.runtime.core.energy import Meter

PI = Machine(idle_w=2.0, busy_w=6.0, threads=4)
BARE_WORLD = World(overhead_bytes=0.0)


def test_idle_runs_and_encodings() -> None:
    """0.2 J idle in 100 ms, 4 W more for 50 ms, and on one thread 1 W more for 10 ms. Then only idle."""
    meter = Meter(PI, BARE_WORLD, 0.0)
    meter.ran(0.020, light=False)
    meter.ran(0.030, light=False)
    meter.ran(0.010, light=True)
    assert meter.take(0.1) == pytest.approx(0.2 + 0.2 + 0.01)
    assert meter.take(0.1) == pytest.approx(0.2)


def test_messages_keep_the_radio_awake() -> None:
    """The first one 1 s after the greeting and the second 2 s later cost these seconds of the tail."""
    meter = Meter(PI, BARE_WORLD, 0.0)
    bytes_j = 1000 * LTE.joules_per_byte
    meter.sent(1.0, 0.0, 1000)
    assert meter.take(0.1) == pytest.approx(0.2 + LTE.tail_w * 1.0 + bytes_j)
    meter.sent(3.0, 0.010, 1000)
    sending = (LTE.sending_w - LTE.tail_w) * 0.010
    assert meter.take(0.1) == pytest.approx(0.2 + LTE.tail_w * 2.010 + sending + bytes_j)


def test_a_message_after_a_long_silence_wakes_the_radio() -> None:
    meter = Meter(PI, BARE_WORLD, 0.0)
    meter.sent(60.0, 0.0, 0)
    waking = (LTE.promotion_w - LTE.tail_w) * LTE.promotion_s
    assert meter.take(0.1) == pytest.approx(0.2 + waking + LTE.tail_w * LTE.tail_s)


def test_unknown_watts_give_no_joules() -> None:
    assert Meter(UNKNOWN_MACHINE, BARE_WORLD, 0.0).take(0.1) is None


@pytest.mark.parametrize("name", ["jpeg50", "cut1-w50-b4", "jpeg50+device-w25", "device-w50"])
def test_the_sum_is_that_of_the_simulator(name: str) -> None:
    """For the same times of runs and messages, without the probes, whose bytes count as sent at once."""
    world = World(jitter=0.0, cooling=NO_HEAT, probe_after_s=np.inf, rtt_s=0.03)
    asked = scenario(replace(BUMPY, bandwidth_bps=np.full(20, 8e6)), world=world, fps=10.0)
    asked = replace(asked, table=replace(asked.table, machine=PI))
    simulation, row = simulation_of(asked, 0), asked.table.row(name)
    meter, simulated, measured = Meter(PI, world, 0.0), 0.0, 0.0
    for k in range(20):
        outcome, _ = simulation.step(np.array([row]))
        simulated += float(outcome.device_j[0] + outcome.radio_j[0])
        light = bool(asked.table.light[row])
        if asked.table.local[row]:
            meter.ran(asked.table.head_s[row] * outcome.slow_down[0], light=False)
        else:
            meter.ran(outcome.head_s[0], light=light)
            hop = outcome.hops[0]
            payload = int(hop.sent_bytes[0] - world.overhead_bytes)
            meter.sent(k * 0.1 + outcome.waited_s[0] + outcome.head_s[0], hop.uplink_s[0], payload)
        if outcome.fell_back[0]:
            meter.ran(asked.table.finish_s[row] * outcome.slow_down[0], light=False)
        measured += meter.take(0.1) or 0.0
    assert measured == pytest.approx(simulated, rel=1e-3)
