"""The growth of memory, the ends of frames, and the course of faults."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tidesplit.benchmarks.memory_watch import Sample, slope
from tidesplit.benchmarks.soak import FAULTS, Ends, drawn_faults

RUNS = 100


def grown(mib_an_hour: float, life: int, first_mib: float, rng: np.random.Generator) -> list[Sample]:
    """Half an hour of a process, with noise of 1 MiB and a warm-up of 60 s."""
    ages_s = np.arange(0.0, 1800.0, 10.0)
    mib = first_mib + mib_an_hour * ages_s / 3600 + rng.normal(0.0, 1.0, ages_s.size) - 100 * (ages_s < 60)
    return [Sample(1800.0 * life + age_s, life, age_s, float(m)) for age_s, m in zip(ages_s, mib, strict=True)]


@pytest.mark.parametrize("mib_an_hour", [0.0, 20.0])
def test_growth_is_found_within_the_lives_of_a_process(mib_an_hour: float) -> None:
    rng = np.random.default_rng(0)
    samples = grown(mib_an_hour, 0, 200.0, rng) + grown(mib_an_hour, 1, 260.0, rng)
    found = slope(samples, 60.0)
    assert found.n == 2 * 6
    assert found.low < mib_an_hour < found.high < found.low + 4.0


def test_memory_that_keeps_its_levels_for_a_minute_is_seldom_taken_for_growth() -> None:
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(RUNS):
        levels, held = np.zeros(300), np.exp(-10 / 60)
        for k in range(1, levels.size):
            levels[k] = held * levels[k - 1] + rng.normal(0.0, 1.0)
        found = slope([Sample(10.0 * k, 0, 10.0 * k, 160.0 + float(mib)) for k, mib in enumerate(levels)], 0.0)
        alarms += not found.low < 0.0 < found.high
    assert alarms <= 0.1 * RUNS  # 5 % in the long run


def test_a_single_step_is_no_growth_with_a_narrow_interval() -> None:
    steps = [Sample(10.0 * k, 0, 10.0 * k, 200.0 + 5.0 * (k > 60)) for k in range(180)]
    found = slope(steps, 0.0)
    assert found.low < 0.0 < found.mib_an_hour < found.high


def test_too_few_samples_have_no_growth() -> None:
    assert math.isnan(slope([Sample(0.0, 0, 0.0, 1.0)], 0.0).mib_an_hour)


def test_each_frame_is_counted_once() -> None:
    ends = Ends(2)
    for frame, error in ((1, ""), (0, "no answer within 2000 ms")):
        ends.take({"frame": frame, "answered_by": "miss", "error": error})
    assert ends.once
    assert ends.reasons == {"no answer within N ms": 1}
    ends.take({"frame": 0, "answered_by": "server", "error": ""})
    assert not ends.once


def test_faults_of_all_kinds_come_in_order() -> None:
    faults = drawn_faults(3600.0, 20.0, 120.0, np.random.default_rng(0))
    assert faults == sorted(faults)
    assert max(at_s for at_s, kind in faults if kind == "restart") < 1200.0
    assert {kind for _, kind in faults} == {*FAULTS, "restart"}
    assert len(faults) == pytest.approx(190, abs=40)
