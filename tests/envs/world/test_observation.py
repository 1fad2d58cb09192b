"""What the device is told: beliefs and forecasts worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.envs.small import CUT, IMAGE, LOCAL, TABLE, play, queued
from tidesplit.envs.world.belief import UNKNOWN_GOODPUT, believe
from tidesplit.envs.world.fields import ONE_HOP, POINT_FIELDS, STATE_FIELDS
from tidesplit.envs.world.observation import Observation, Situation, observe, unflatten
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.radio import LTE
from tidesplit.envs.world.vocabulary import Demand, Demands, Transfers
from tidesplit.profiling.points.table import Machine, PointTable

NOW = 10.0
USUAL_RTT = 0.060
WORLD = World(
    rtt_s=0.050, request_s=0.010, cold=1.0, picture_s=0.0, wired_rtt_s=0.005
)  # guard 5 ms, overhead 150 bytes
WINDOW = 3

# One message: sent, answered, bytes, seconds on the wire, round trip, wait at the server, [due, finish, tail]
Sent = tuple[float, ...]


def transfers(*messages: Sent) -> Transfers:
    """Newest first; the rest of the window was never sent."""
    empty = Transfers.none(1, WINDOW)
    for slot, message in enumerate(messages):
        settled = (*message, np.inf, 0.0, 0.0)[:9]
        for column, value in zip(empty, settled, strict=True):
            column[0, slot] = value
    return empty


# messages newest first -> what is believed at 10 s
BELIEFS: dict[str, tuple[list[Sent], dict[str, float]]] = {
    "nothing known: 1 Mbit/s, the usual round trip, everything old": (
        [],
        {
            "goodput": 125_000,
            "goodput_last": 125_000,
            "goodput_low": 125_000,
            "goodput_age_s": 10,
            "goodput_spread": 0,
            "rtt_s": 0.060,
            "server_wait_s": 0,
            "in_flight": 0,
            "in_flight_bytes": 0,
            "stalled_s": 0,
            "since_sent_s": 10,
            "queue_s": 0,
            "finish_pending_s": 0,
            "finish_due_s": 0,
        },
    ),
    "one answer": (
        [(9.0, 9.5, 1000, 0.010, 0.050, 0.002)],
        {
            "goodput": 100_000,
            "goodput_last": 100_000,
            "goodput_low": 100_000,
            "goodput_age_s": 0.5,
            "goodput_spread": 0,
            "rtt_s": 0.050,
            "server_wait_s": 0.002,
            "in_flight": 0,
            "since_sent_s": 1.0,
        },
    ),
    # 3000 bytes in 40 ms; paces 10 and 15 us a byte about a mean of 13.33: spread sqrt((3.33² + 1.67²) / 2) / 13.33
    "two answers weigh by their bytes": (
        [(9.5, 9.75, 1000, 0.010, 0.050, 0.002), (9.0, 9.75, 2000, 0.030, 0.070, 0.009)],
        {
            "goodput": 75_000,
            "goodput_last": 100_000,
            "goodput_low": 2000 / 0.030,
            "goodput_age_s": 0.25,
            "goodput_spread": np.sqrt((10 / 3) ** 2 / 2 + (5 / 3) ** 2 / 2) / (40 / 3),
            "rtt_s": 0.060,
            "server_wait_s": 0.0055,
        },
    ),
    # the newer answer counts e times the older, one MEMORY_S before it: (2 + 9 / e) / (1 + 1 / e) ms of wait
    "recent answers count more": (
        [(9.0, 10.0, 1000, 0.010, 0.050, 0.002), (8.0, 9.0, 1000, 0.030, 0.050, 0.009)],
        {
            "goodput": 1000 * (1 + np.exp(-1)) / (0.010 + 0.030 * np.exp(-1)),
            "server_wait_s": (0.002 + 0.009 * np.exp(-1)) / (1 + np.exp(-1)),
        },
    ),
    "a wire time below the clock's grain counts as 1 ms": (
        [(9.0, 9.5, 1000, -0.004, 0.050, 0.0)],
        {"goodput": 1_000_000, "goodput_last": 1_000_000},
    ),
    "long ago": ([(-90.0, -89.0, 1000, 0.010, 0.050, 0.0)], {"goodput_age_s": 10, "since_sent_s": 10}),
    # Answered at 10.2 s, so what its answer tells is not known yet: believed at 1 Mbit/s, it has left after 8 ms.
    "under way": (
        [(9.99, 10.2, 1000, 0.150, 0.200, 0.5)],
        {
            "goodput": 125_000,
            "rtt_s": 0.060,
            "server_wait_s": 0,
            "in_flight": 1,
            "in_flight_bytes": 1000,
            "queue_s": 0,
            "stalled_s": 0,
            "goodput_age_s": 10,
            "since_sent_s": 0.01,
        },
    ),
    # 100 kB/s: 5000 bytes from 9.96 to 10.01, 3000 more behind them
    "two under way queue up": (
        [
            (9.98, 99.0, 3000, 0.0, 0.0, 0.0),
            (9.96, 99.0, 5000, 0.0, 0.0, 0.0),
            (9.0, 9.5, 1000, 0.010, 0.050, 0.002),
        ],
        {"goodput": 100_000, "in_flight": 2, "in_flight_bytes": 8000, "queue_s": 0.04, "stalled_s": 0},
    ),
    # sent 1 s ago, should have been there after 50 + 20 ms
    "overdue": (
        [(9.0, 99.0, 2000, 0.0, 0.0, 0.0), (8.0, 8.5, 1000, 0.010, 0.050, 0.002)],
        {"stalled_s": 0.93, "in_flight": 1, "queue_s": 0},
    ),
    "overdue without end": ([(-90.0, 1e9, 2000, 0.0, 0.0, 0.0)], {"stalled_s": 10, "in_flight": 1}),
    # Left at 9.988, there at 10.048 + tail 10 ms: after 10.050, when the device would begin
    "its answer is believed to come after its due": (
        [(9.98, 99.0, 1000, 0.0, 0.0, 0.0, 10.050, 0.030, 0.010)],
        {"finish_pending_s": 0.030, "finish_due_s": 0.050},
    ),
    "its answer is believed to come before": (
        [(9.98, 10.0001, 1000, 0.0, 0.0, 0.0, 10.060, 0.030, 0.010)],
        {"finish_pending_s": 0, "finish_due_s": 0},
    ),
    "it is never finished": (
        [(9.98, 99.0, 1000, 0.0, 0.0, 0.0, np.inf, np.inf, 0.010)],
        {"finish_pending_s": 0, "finish_due_s": 0},
    ),
    "overdue, so it is not counted on": (
        [(9.80, 99.0, 1000, 0.0, 0.0, 0.0, 10.060, 0.030, 0.010)],
        {"finish_pending_s": 0.030, "finish_due_s": 0.060},
    ),
    "its finish is done": (
        [(9.80, 99.0, 1000, 0.0, 0.0, 0.0, 9.960, 0.030, 0.010)],
        {"finish_pending_s": 0, "finish_due_s": 0},
    ),
    "two finishes, the first of them counts": (
        [
            (9.99, 99.0, 1000, 0.0, 0.0, 0.0, 10.030, 0.020, 0.010),
            (9.98, 99.0, 1000, 0.0, 0.0, 0.0, 10.010, 0.030, 0.010),
        ],
        {"finish_pending_s": 0.050, "finish_due_s": 0.010},
    ),
    "answered just now": (
        [(9.9, 10.0, 1000, 0.010, 0.050, 0.0, 10.010, 0.030, 0.0)],
        {"in_flight": 0, "goodput_age_s": 0, "finish_pending_s": 0},
    ),
}


@pytest.mark.parametrize("case", BELIEFS.values(), ids=BELIEFS)
def test_belief(case: tuple[list[Sent], dict[str, float]]) -> None:
    link = believe(transfers(*case[0]), np.array([NOW]), USUAL_RTT)
    belief = {**link._asdict(), **link.hop._asdict()}
    assert {name: belief[name][0] for name in case[1]} == pytest.approx(case[1])


def situation(
    messages: list[Sent] | None = None,
    waited_s: float = 0.0,
    slow_down: float = 1.0,
    last_point: int = -1,
    worker_s: float = 0.0,
    heat_c: float = 20.0,
) -> Situation:
    return Situation(
        now_s=np.array([NOW]),
        waited_s=np.array([waited_s]),
        transfers=(transfers(*(messages or [])),),
        slow_down=np.array([slow_down]),
        last_point=np.array([last_point]),
        worker_s=np.array([worker_s]),
        heat_c=np.array([heat_c]),
    )


def told(demand: Demand | None = None, **about: object) -> Observation:
    """Observation of one lane."""
    return observe(situation(**about), TABLE, Demands.of(demand or Demand()), WORLD)  # type: ignore[arg-type]


def test_state_of_an_idle_device() -> None:
    state = told(waited_s=0.004, slow_down=1.5)
    expected = {
        "waited_s": 0.004,
        "deadline_s": 0.1,
        "period_s": 1 / 30,
        "for_latency": 0.0,
        "goodput": 125_000.0,
        "link_queue_s": 0.0,
        "finish_pending_s": 0.0,
        "slow_down": 1.5,
        "worker_s": 0.0,
        "heat_c": 20.0,
        "awake_s": LTE.tail_s - NOW,  # the device greeted the server at 0 s
    }
    assert {name: float(state.state[0, STATE_FIELDS.index(name)]) for name in expected} == pytest.approx(expected)


# point field -> (image, cut, local): link at 100 kB/s, round trip 50 ms, wait 2 ms, device 1.5 times slower,
# the frame waited 4 ms, 30 ms of bytes queue on the link
KNOWN = (9.5, 9.75, 1000, 0.010, 0.050, 0.002)
QUEUED = (9.99, 99.0, 4000, 0.0, 0.0, 0.0)  # 40 ms on the wire, of which 10 have passed
FORESEEN = {
    "local": (0, 0, 1),
    "accuracy": (0.9, 0.8, 0.6),
    "head_s": (0.015, 0.030, 0.075),
    "payload": (4000, 1000, 0),
    "server_s": (0.020, 0.010, 0),
    "finish_s": (15.0, 0.045, 0),  # "never" is told as 10 s, here slowed down
    "finish_accuracy": (0, 0.7, 0.6),
    "latency_s": (0.146, 0.106, 0.079),
    "slack_s": (-0.046, -0.006, 0.021),
    "slack_low_s": (-0.046, -0.006, 0.021),
    "device_queue_s": (0.0, 0.004 + 0.030 - 1 / 30, 0.079 - 1 / 30),
    "link_queue_s": (0.070 - 1 / 30, 0.040 - 1 / 30, 0.0),
    "finish_slack_s": (0.091 - 15.015, 0.016, 0.016),
    "is_last": (0, 1, 0),
    "races": (0, 0, 0),
    "reference_age": (0, 0, 0),
    "steady_payload": (4000, 1000, 0),
    # No watts of the device are known. The newest message was sent 10 ms ago and keeps the radio awake for a tail less
    # 10 ms. The bytes leave in 70 and 40 ms, after 40 and 10 ms of sending, and keep it awake for a tail.
    "joules": (
        LTE.tail_w * 0.080 + (LTE.sending_w - LTE.tail_w) * 0.040 + LTE.joules_per_byte * 4000,
        LTE.tail_w * 0.050 + (LTE.sending_w - LTE.tail_w) * 0.010 + LTE.joules_per_byte * 1000,
        0,
    ),
    "cost": (0, 0, 0),  # there is no budget
}


def test_forecast_of_every_point() -> None:
    observation = told(messages=[QUEUED, KNOWN], waited_s=0.004, slow_down=1.5, last_point=CUT)
    assert set(FORESEEN) == set(POINT_FIELDS)
    for name, expected in FORESEEN.items():
        assert observation.points[0, POINT_FIELDS.index(name)] == pytest.approx(expected, abs=1e-5), name


def test_pessimism_reckons_with_the_worst_pace_and_the_stall() -> None:
    slow = (9.0, KNOWN[1], 1000, 0.030, 0.050, 0.0)  # answered with the other: together 20 us a byte, at worst 30
    observation = told(messages=[KNOWN, slow])
    lost = observation.foreseen.slack_s - observation.foreseen.slack_low_s
    assert lost[0] == pytest.approx([4000 * 10e-6, 1000 * 10e-6, 0.0], abs=1e-6)
    stalled = told(messages=[(9.0, 99.0, 2000, 0.0, 0.0, 0.0), KNOWN])
    lost = stalled.foreseen.slack_s - stalled.foreseen.slack_low_s
    assert lost[0] == pytest.approx([0.930, 0.930, 0.0], abs=1e-5)


def test_head_that_a_finish_will_interrupt_takes_longer() -> None:
    due_in_25_ms = (9.99, 99.0, 4000, 0.0, 0.0, 0.0, NOW + 0.025, 0.030, 0.010)
    assert told(messages=[due_in_25_ms]).foreseen.head_s[0] == pytest.approx([0.010, 0.020, 0.080])


# messages -> seconds for which the radio stays awake at NOW
AWAKE: dict[str, tuple[list[Sent], float]] = {
    "the greeting": ([], 11.576 - 10.0),
    "a message": ([(9.5, 99.0, 4000, 0.0, 0.0, 0.0)], 11.076),
    "the newest of two": ([(9.9, 99.0, 4000, 0.0, 0.0, 0.0), (9.5, 9.7, 4000, 0.01, 0.05, 0.0)], 11.476),
    "asleep": ([(-3.0, -2.0, 4000, 0.01, 0.05, 0.0)], 1.576),
}


@pytest.mark.parametrize("case", AWAKE.values(), ids=AWAKE)
def test_the_radio_stays_awake_for_a_tail_after_the_newest_message(case: tuple[list[Sent], float]) -> None:
    assert told(messages=case[0]).seen.awake_s == pytest.approx([case[1]], abs=1e-5)


def test_heat_and_worker_are_observed() -> None:
    """Head and whole CNN wait for the worker, and the encoder does not. Work is left until the next frame."""
    observation = told(worker_s=0.040, heat_c=71.0)
    assert (observation.seen.worker_s[0], observation.seen.heat_c[0]) == pytest.approx((0.040, 71.0))
    assert observation.foreseen.head_s[0] == pytest.approx([0.010, 0.060, 0.090])
    assert observation.foreseen.device_queue_s[0] == pytest.approx([0.040 - 1 / 30, 0.060 - 1 / 30, 0.090 - 1 / 30])


WATTS = Machine(idle_w=3.0, busy_w=7.0, threads=4)
RACING = replace(
    TABLE,
    races=np.array([True, True, False]),
    finish_s=np.array([0.025, 0.030, np.inf]),
    finish_accuracy=np.array([0.6, 0.7, 0.0]),
    machine=WATTS,
)


@pytest.mark.parametrize("table", [replace(TABLE, machine=WATTS), RACING], ids=["without races", "with races"])
@pytest.mark.parametrize("awake", [True, False])
@pytest.mark.parametrize("point", [IMAGE, CUT, LOCAL])
def test_what_is_foreseen_of_an_idle_device_comes_true(point: int, awake: bool, table: PointTable) -> None:
    """Latency and joules are those of the world, on a calm link with the usual goodput and round trip."""
    world = replace(WORLD, request_s=0.0, cold=1.0, picture_s=0.0, initial_window_bytes=1e9, probe_after_s=1e9)
    about = situation()._replace(now_s=np.zeros(1) if awake else np.array([20.0]))
    demand = Demand(deadline_s=1.0)
    foreseen = observe(about, table, Demands.of(demand), world).foreseen
    _, outcome, _ = play(
        point,
        arrival_s=float(about.now_s[0]),
        table=table,
        world=world,
        queues=queued(awake_s=LTE.tail_s),
        demand=demand,
        rate=UNKNOWN_GOODPUT,
        expected_s=1.0,
    )
    assert foreseen.races[0, point] == table.races[point]
    joules = outcome.radio_j + outcome.device_j - WATTS.idle_w / 30
    assert foreseen.joules[0, point] == pytest.approx(joules[0], rel=1e-4)
    assert foreseen.latency_s[0, point] == pytest.approx(outcome.latency_s[0], abs=1e-5)


FULL = [(9.99, 99.0, 10.0, 0.0, 0.0, 0.0)] * WINDOW
# demand, messages -> allowed points
MASKS: dict[str, tuple[Demand, list[Sent], list[int]]] = {
    "everything": (Demand(), [], [IMAGE, CUT, LOCAL]),
    "floor": (Demand(min_accuracy=0.8), [], [IMAGE, CUT]),
    "floor met exactly": (Demand(min_accuracy=0.6), [], [IMAGE, CUT, LOCAL]),
    "window full": (Demand(), FULL, [LOCAL]),
    "window not quite full": (Demand(), FULL[:-1], [IMAGE, CUT, LOCAL]),
    "one of the window answered": (Demand(), [*FULL[:-1], (9.0, 10.0, 10, 0.01, 0.05, 0.0)], [IMAGE, CUT, LOCAL]),
    "window full and nothing local above the floor": (Demand(min_accuracy=0.8), FULL, [IMAGE, CUT]),
}


@pytest.mark.parametrize("case", MASKS.values(), ids=MASKS)
def test_mask(case: tuple[Demand, list[Sent], list[int]]) -> None:
    demand, messages, allowed = case
    assert np.flatnonzero(told(demand, messages=messages).mask[0]).tolist() == allowed


def test_flat_rows_and_back() -> None:
    observation = told(messages=[KNOWN], last_point=LOCAL)
    flat = observation.flat()
    assert flat.shape == (1, ONE_HOP.width(TABLE.size)) == (1, len(STATE_FIELDS) + len(POINT_FIELDS) * TABLE.size)
    assert flat.dtype == np.float32
    for ours, theirs in zip(unflatten(flat, observation.mask), observation, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_taking_no_lane_leaves_rows_of_the_same_width() -> None:
    observation = told()
    assert observation.take(np.zeros(0, dtype=np.int64)).flat().shape == (0, observation.flat().shape[1])


def test_transfers_push_newest_first_where_asked() -> None:
    ring = Transfers.none(2, 3)
    for k in range(1, 5):
        ring = ring.push(np.array([True, k % 2 == 0]), *(np.full(2, float(k)) for _ in Transfers._fields))
    assert ring.payload.tolist() == [[4, 3, 2], [4, 2, 0]]
    assert ring.sent_s.tolist() == [[4, 3, 2], [4, 2, -np.inf]]
