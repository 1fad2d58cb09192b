"""JMDC and CNNPC: known points by round numbers, and the integer programme against looking at every point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.agents.small import seen, steps
from tests.envs.small import BYTES_PER_S, CUT, IMAGE, LOCAL, TABLE, WORLD
from tidesplit.agents.rules.published import FASTEST, MATERIAL, SLOWEST, Jmdc, cnnpc, mean_rate, solve, static_latency
from tidesplit.envs.world.belief import UNKNOWN_AGE_S
from tidesplit.envs.world.vocabulary import Demand, Objective

POINTS = {"head_s": TABLE.head_s.tolist()}
JMDC = Jmdc(name="JMDC", table=TABLE, world=WORLD, usual_rates=(BYTES_PER_S,))


def test_mean_rate_is_over_time() -> None:
    traces = [steps("a", [8.0, 0.0]), steps("b", [16.0] * 6)]  # 0.2 s of 4 Mbit/s, 0.6 s of 16
    assert mean_rate(traces) == pytest.approx((4.0 * 0.2 + 16.0 * 0.6) / 0.8 * 1e6 / 8.0)


def test_static_latency_by_hand() -> None:
    """Head, bytes at 100 a ms, 40 ms of RTT, server."""
    image, cut, local = 0.010 + 0.040 + 0.040 + 0.020, 0.020 + 0.010 + 0.040 + 0.010, 0.050
    np.testing.assert_allclose(static_latency(TABLE, WORLD, [BYTES_PER_S]), [image, cut, local])


CASES: list[tuple[Objective, float, float, int]] = [
    ("accuracy", 0.200, 0.0, IMAGE),
    ("accuracy", 0.100, 0.0, CUT),  # the image takes 110 ms
    ("accuracy", 0.060, 0.0, LOCAL),
    ("accuracy", 0.030, 0.0, LOCAL),  # nothing is so fast: the quickest
    ("accuracy", 0.030, 0.7, CUT),  # the quickest above the floor
    ("latency", 1.000, 0.0, LOCAL),
    ("latency", 1.000, 0.8, CUT),
    ("latency", 1.000, 0.85, IMAGE),
]


@pytest.mark.parametrize(("objective", "deadline_s", "floor", "chosen"), CASES)
def test_cnnpc_chooses_once_for_all(objective: Objective, deadline_s: float, floor: float, chosen: int) -> None:
    demand = Demand(objective=objective, deadline_s=deadline_s, min_accuracy=floor)
    static = cnnpc(TABLE, WORLD, demand, [BYTES_PER_S])
    assert (static.name, static.row) == ("CNNPC", chosen)


def test_cnnpc_ties() -> None:
    twins = TABLE.take([IMAGE, CUT, CUT])
    quicker = replace(twins, head_s=np.array([0.010, 0.020, 0.015]))
    assert cnnpc(quicker, WORLD, Demand(), [BYTES_PER_S]).row == 2
    better = replace(twins, accuracy=np.array([0.9, 0.8, 0.82]))
    assert cnnpc(better, WORLD, Demand(objective="latency", deadline_s=1.0), [BYTES_PER_S]).row == 2


@pytest.mark.parametrize(("objective", "deadline_s", "floor", "chosen"), CASES)
def test_jmdc_solves_the_same_at_the_same_rate(
    objective: Objective, deadline_s: float, floor: float, chosen: int
) -> None:
    jmdc = replace(JMDC, min_accuracy=floor)
    mask = (TABLE.accuracy >= floor).tolist()
    observation = seen(
        POINTS, mask, deadline_s=deadline_s, for_latency=float(objective == "latency"), goodput=BYTES_PER_S
    )
    assert jmdc.predict(observation).tolist() == [chosen]


@pytest.mark.parametrize(
    ("state", "knobs", "chosen"),
    [
        ({"goodput": 200_000.0}, {}, IMAGE),  # 20 ms on the link: 90
        ({"goodput": 50_000.0}, {}, CUT),  # 20 ms: 90
        ({"goodput": 20_000.0}, {}, LOCAL),  # 50 ms: 120
        ({"goodput": 200_000.0}, {"safety": 0.5}, CUT),
        ({"goodput": 200_000.0}, {"margin_s": 0.015}, CUT),
        ({"goodput": 20_000.0, "goodput_age_s": UNKNOWN_AGE_S}, {}, CUT),  # nothing was measured: the usual rate
        ({"goodput": 0.0}, {}, LOCAL),
    ],
)
def test_jmdc_follows_its_monitor(state: dict[str, float], knobs: dict[str, float], chosen: int) -> None:
    assert replace(JMDC, **knobs).predict(seen(POINTS, **state)).tolist() == [chosen]  # type: ignore[arg-type]


def test_jmdc_gives_way_where_its_point_is_masked() -> None:
    observation = seen(POINTS, [False, False, True], goodput=200_000.0)
    assert JMDC.predict(observation).tolist() == [LOCAL]


@pytest.mark.parametrize("goodput", [0.0, SLOWEST, 2 * FASTEST, FASTEST, 200_000.0 * MATERIAL**0.1])
def test_jmdc_rounds_and_clips_its_estimate(goodput: float) -> None:
    (rate,) = JMDC._rate(seen(POINTS, goodput=goodput).seen.hops[0], BYTES_PER_S).ravel()
    assert 1.0 / MATERIAL**0.51 < rate / np.clip(goodput, SLOWEST, FASTEST) < MATERIAL**0.51
    assert np.log(rate) / np.log(MATERIAL) == pytest.approx(round(np.log(rate) / np.log(MATERIAL)))


def test_jmdc_decides_every_lane_by_its_own_estimate() -> None:
    lanes = [seen(POINTS, goodput=rate) for rate in (200_000.0, 20_000.0, 50_000.0)]
    batch = type(lanes[0])(*(np.concatenate(column) for column in zip(*lanes, strict=True)))
    assert JMDC.predict(batch).tolist() == [IMAGE, LOCAL, CUT]


def test_the_programme_finds_what_looking_at_every_point_finds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(25):
        latency, accuracy = rng.uniform(0.02, 0.2, 20).round(3), rng.uniform(0.6, 0.95, 20).round(3)
        bound, floor = rng.uniform(0.01, 0.2), rng.uniform(0.5, 1.0)
        accurate = accuracy >= floor
        fits = accurate & (latency <= bound)
        if fits.any():
            most = np.lexsort((latency, -accuracy, ~fits))[0]
            assert solve(latency[None], accuracy, np.array([bound]), floor).tolist() == [most]
        quickest = np.lexsort((-accuracy, latency, ~accurate if accurate.any() else np.zeros(20)))[0]
        assert solve(latency[None], accuracy, np.array([np.inf]), floor).tolist() == [quickest]
