"""Rules by hand-made observations: what they choose is known beforehand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.agents.small import DEAD, scenario, seen, steps
from tests.envs.small import CUT, IMAGE, LOCAL, TABLE, with_uplink
from tests.profiles import DEVICE, SERVER, synthetic_profile
from tidesplit.agents.judging.evaluation import simulation_of
from tidesplit.agents.rules.controllers import Lookup, Mpc, Static, uncompressed
from tidesplit.envs.world.fields import NEEDS_KEY
from tidesplit.envs.world.physics import World
from tidesplit.profiling.points.stream_columns import Streams
from tidesplit.profiling.points.table import table_for


@pytest.mark.parametrize(
    ("mask", "chosen"),
    [
        ([True, True, True, True], 1),
        ([True, False, True, True], 2),  # 30 ms is nearer to 25 than 10 is
        ([True, False, False, True], 0),
        ([False, False, False, True], 3),
    ],
)
def test_a_static_point_gives_way_to_the_one_nearest_in_device_time(mask: list[bool], chosen: int) -> None:
    observation = seen({"head_s": [0.010, 0.025, 0.030, 0.110]}, mask)
    assert Static("always 1", 1).predict(observation).tolist() == [chosen]


def test_a_static_point_stays_itself_among_points_of_equal_device_time() -> None:
    assert Static("always 2", 2).predict(seen({"head_s": [0.02, 0.02, 0.02]})).tolist() == [2]


# Three points that cross the link and one that does not, at 1 Mbit/s (125 bytes a ms).
POINTS = {
    "accuracy": [0.92, 0.90, 0.85, 0.75],
    "latency_s": [0.095, 0.080, 0.060, 0.030],
    "head_s": [0.006, 0.025, 0.034, 0.030],
    "payload": [5000.0, 1250.0, 125.0, 0.0],
}


@pytest.mark.parametrize(
    ("knobs", "state", "chosen"),
    [
        ({}, {}, 0),  # all fit: the most accurate
        ({"margin_s": 0.010}, {}, 1),  # 105 ms would be too late
        ({"margin_s": 0.030}, {}, 2),
        ({"margin_s": 0.200}, {}, 3),  # none fits: the quickest
        ({"safety": 0.5}, {}, 1),  # at half the goodput 40, 10 and 1 ms more: 135, 90, 61 ms
        ({"safety": 0.5, "margin_s": 0.015}, {}, 2),
        ({"device_share": 0.7}, {"period_s": 0.04}, 0),
        ({"device_share": 0.1}, {"period_s": 0.04}, 3),  # none fits 4 ms of device time: the quickest
        ({"device_share": 1.0, "margin_s": 0.030}, {}, 3),  # 34 ms do not fit a period of 33
        ({}, {"deadline_s": 0.070}, 2),
        ({}, {"for_latency": 1.0, "deadline_s": 1.0}, 3),  # speed counts
        ({"quickest": True}, {}, 3),
        ({"candidates": np.array([False, True, True, False])}, {"deadline_s": 0.050}, 2),
        ({"candidates": np.zeros(4, dtype=bool)}, {}, 0),  # no candidate is allowed: all that is allowed
    ],
)
def test_lookup(knobs: dict[str, Any], state: dict[str, float], chosen: int) -> None:
    assert Lookup(name="", **knobs).predict(seen(POINTS, **state)).tolist() == [chosen]


# A picture that is in time by 5 ms, the same as a race, a race that is too late by 10 ms, and a net of the device.
RACES = {
    "accuracy": [0.92, 0.92, 0.95, 0.80],
    "latency_s": [0.095, 0.095, 0.110, 0.030],
    "head_s": [0.006, 0.006, 0.006, 0.0],
    "payload": [5000.0, 5000.0, 6000.0, 0.0],
    "races": [0.0, 1.0, 1.0, 0.0],
    "local": [0.0, 0.0, 0.0, 1.0],
    "finish_s": [0.0, 0.020, 0.030, 0.0],
    "finish_slack_s": [0.0, 0.070, 0.060, 0.0],
    "finish_accuracy": [0.0, 0.75, 0.78, 0.0],
}


@pytest.mark.parametrize(
    ("knobs", "state", "chosen"),
    [
        ({}, {}, 0),  # .92 and .92: the first of equals
        ({"doubt": 0.1}, {}, 1),  # .828 for the picture, .903 for the race, .78 and .80
        ({"doubt": 0.8}, {}, 3),  # .184, .784, .78, .80
        ({"doubt": 0.8, "candidates": np.array([True, True, True, False])}, {}, 1),
        ({"margin_s": 0.010}, {}, 3),  # no picture is in time: .75 and .78 from the races' own runs, .80 on the device
        ({"margin_s": 0.010, "candidates": np.array([True, True, True, False])}, {}, 2),
        ({"doubt": 0.8, "candidates": np.array([True, True, True, False])}, {"worker_s": 0.080}, 0),  # no run in time
        ({"doubt": 0.1, "device_share": 0.5}, {}, 0),  # runs of 20 and 30 ms are too long: .828, .828, 0 and .80
    ],
)
def test_lookup_weighs_races(knobs: dict[str, Any], state: dict[str, float], chosen: int) -> None:
    """Expected accuracy: the server's answer in time but for ``doubt``, else that of the device's run meanwhile."""
    assert Lookup(name="", **knobs).predict(seen(RACES, **state)).tolist() == [chosen]


# A picture and a net of the device, which takes five times the energy, at 1 utility a joule.
PRICED = {
    "accuracy": [0.92, 0.80], "latency_s": [0.060, 0.030], "head_s": [0.006, 0.030], "payload": [5000.0, 0.0],
    "local": [0.0, 1.0], "cost": [0.05, 0.25],
}  # fmt: skip


@pytest.mark.parametrize(
    ("margin_s", "state", "chosen"),
    [
        (0.0, {"joule_price": 1.0}, 0),  # .87 and .55
        (0.050, {"joule_price": 1.0}, 1),  # -.05 for a picture that is too late, .55
        (0.050, {"joule_price": 4.0}, 0),  # -.20 for a picture that is too late, -.20 for the net: the first of equals
        (0.080, {"joule_price": 1.0}, 0),  # neither fits: -.05 and -.25
        (0.080, {}, 1),  # no price: the quickest
        (0.0, {"joule_price": 1.0, "for_latency": 1.0}, 1),  # .40 - .05 and .70 - .25
        (0.0, {"joule_price": 2.0, "for_latency": 1.0}, 0),  # .40 - .10 and .70 - .50
    ],
)
def test_lookup_weighs_costs(margin_s: float, state: dict[str, float], chosen: int) -> None:
    points = {**PRICED, "cost": [state.get("joule_price", 0.0) * joules for joules in PRICED["cost"]]}
    assert Lookup(name="", margin_s=margin_s).predict(seen(points, **state)).tolist() == [chosen]


def test_lookup_stays_within_the_mask() -> None:
    assert Lookup(name="").predict(seen(POINTS, [False, True, True, True])).tolist() == [1]
    assert Lookup(name="", margin_s=9.0).predict(seen(POINTS, [True, True, False, False])).tolist() == [1]


def test_among_equally_accurate_points_lookup_takes_the_quicker() -> None:
    observation = seen({"accuracy": [0.9, 0.9], "latency_s": [0.08, 0.06], "head_s": [0.0, 0.0], "payload": [1.0, 1.0]})
    assert Lookup(name="").predict(observation).tolist() == [1]


def test_uncompressed_is_the_widest_point_of_each_partition() -> None:
    table = table_for(synthetic_profile(), DEVICE, SERVER)
    chosen = [table.ids[row] for row in np.flatnonzero(uncompressed(table))]
    assert chosen == ["jpeg95", "cut1-w100-b8", "cut2-w100-b2", "device-w100"]


ROUND = replace(scenario(steps("2 Mbit/s", [2.0])), table=TABLE, world=replace(World(), rtt_jitter=0.0))


@pytest.mark.parametrize(
    ("mbps", "demand", "chosen"),
    [
        (8.0, {}, IMAGE),  # 10 + 4 + 60 + 20 ms: 0.9 within 100 ms, and nothing queues
        (2.0, {}, CUT),  # the image would take 16 ms on the link, 106 in all; the cut 20 + 4 + 60 + 10
        (
            0.05,
            {},
            LOCAL,
        ),  # the cut takes 160 ms on the link, so the device finishes it: 50 ms a frame are too many ...
        (0.05, {"fps": 10}, CUT),  # ... but not at 10 frames a second: 0.7 rather than 0.6
    ],
)
def test_mpc_finds_the_known_best_point(mbps: float, demand: dict[str, float], chosen: int) -> None:
    """Points in round numbers: accuracy 0.9, 0.8 (finished by the device: 0.7) and 0.6."""
    world = replace(World(), rtt_s=0.060, request_s=0.004, cold=1.0, picture_s=0.0)
    table = replace(TABLE, head_s=np.array([0.010, 0.020, 0.033]))
    played = simulation_of(replace(scenario(steps("flat", [mbps] * 20), **demand), table=table, world=world), seed=0)
    informed = Mpc(
        name="", table=table, world=world, true_rates=lambda: (np.array([mbps * 1e6 / 8.0]),), horizon=6, width=40
    )
    assert informed.predict(played.observation()).tolist() == [chosen]


def test_mpc_plans_as_it_is_told_by_its_knobs() -> None:
    played = simulation_of(scenario(DEAD), seed=0)
    mpc = Mpc(name="", table=played.table, world=played.scenario.world)
    before = mpc.predict(played.observation())[0]
    assert not played.table.local[before]  # it believes in 1 Mbit/s before it has sent anything
    careful = replace(mpc, safety=1e-6).predict(played.observation())[0]
    informed = replace(mpc, true_rates=lambda: (np.zeros(1),)).predict(played.observation())[0]
    assert played.table.local[careful] or np.isfinite(played.table.finish_s[careful])
    assert careful == informed
    shorter = replace(mpc, margin_s=0.060).predict(played.observation())[0]
    assert played.table.head_s[shorter] <= 0.040


# A picture, two streams whose keys do not fit (100 ms of the link), and a small stream that runs.
STREAMS = {
    "accuracy": [0.80, 0.92, 0.91, 0.90],
    "latency_s": [0.080, 0.160, 0.160, 0.064],
    "payload": [2500.0, 12_500.0, 12_500.0, 500.0],
    "steady_payload": [2500.0, 500.0, 500.0, 500.0],
    "reference_age": [0.0, NEEDS_KEY, NEEDS_KEY, 1.0],
}


@pytest.mark.parametrize(
    ("knobs", "mask", "chosen"),
    [
        ({}, [True, True, True, False], 0),  # no key fits
        ({"patience": 2.0}, [True, True, True, False], 0),  # 112 ms with half of the key's bytes
        ({"patience": 4.0}, [True, True, True, False], 1),  # 88 ms
        ({"patience": np.inf}, [True, True, True, False], 1),
        ({"patience": np.inf}, [True] * 4, 1),  # leaves the running stream for 0.02
        ({"patience": np.inf, "key_cost": 0.03}, [True] * 4, 3),
        ({"patience": np.inf, "key_cost": 0.03}, [True, True, True, False], 1),  # 0.12 more than the picture
    ],
)
def test_a_patient_lookup_begins_a_stream(knobs: dict[str, Any], mask: list[bool], chosen: int) -> None:
    assert Lookup(name="", **knobs).predict(seen(STREAMS, mask)).tolist() == [chosen]


def test_a_patient_mpc_begins_a_stream() -> None:
    """The key takes so long that no plan of three frames makes up for it."""
    growth = np.array([[1.0] * 7, [1.0] * 6 + [60.0], [1.0] * 7])
    streams = Streams(names=("cuts",), of=np.array([-1, 0, -1]), growth=growth)
    table = replace(with_uplink(TABLE, bytes_mean=np.array([3850.0, 250.0, 0.0])), streams=streams)
    table = replace(table, accuracy=np.array([0.75, 0.8, 0.2]))
    played = simulation_of(replace(scenario(steps("flat", [0.8] * 20), deadline_ms=150), table=table), seed=0)
    mpc = Mpc(name="", table=table, world=played.scenario.world, horizon=3, true_rates=lambda: (np.array([1e5]),))
    assert mpc.predict(played.observation()).tolist() == [IMAGE]
    assert replace(mpc, patience=16.0).predict(played.observation()).tolist() == [CUT]
