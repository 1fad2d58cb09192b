"""Episodes: drawn before they begin, the same for every controller, each lane by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.envs.small import stacked
from tests.profiles import DEVICE, synthetic_profile
from tests.profiles import SERVER as SERVER_LABEL
from tidesplit.envs.simulation.course import draw_course
from tidesplit.envs.simulation.links import Links
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.trace import Trace, TraceError
from tidesplit.envs.world.hop import RoundTrip
from tidesplit.envs.world.physics import USUAL, World
from tidesplit.envs.world.vocabulary import MISS, SERVER, Demand, DemandError, Floats, gb_per_month
from tidesplit.profiling.points.profile import ProfileError
from tidesplit.profiling.points.table import PointTable
from tidesplit.profiling.points.tiers import points_of

FLAT = Trace("flat", np.zeros(1), 10.0, np.array([2e6]))
DEAD = Trace("dead", np.zeros(1), 10.0, np.zeros(1))
RISING = Trace("rising", np.array([0.0, 5.0]), 10.0, np.array([1e6, 4e6]), rtt_s=np.array([0.03, 0.09]))


def simulation(seed: int = 0, lanes: int = 2, **about: object) -> Simulation:
    scenario = scenario_from(**{"trace": [FLAT, RISING], "profile": synthetic_profile(), "episode_s": 3.0, **about})
    return Simulation(scenario, [np.random.default_rng(seed + lane) for lane in range(lanes)])


def courses(played: Simulation) -> list[Floats]:
    """What chance had in store, frame by frame."""
    return [stacked(played.frame_at(k)) for k in range(int(played.frames.max()))]


def test_every_controller_meets_the_same_chance() -> None:
    idle, busy = simulation(), simulation()
    seen: list[list[Floats]] = [[], []]
    for k in range(89):
        for played, point, rows in zip((idle, busy), (9, k % 10), seen, strict=True):
            rows.append(stacked(played.frame_at()))
            played.step(np.full(2, point))
    np.testing.assert_array_equal(*seen)


def test_same_seed_same_numbers_and_another_seed_others() -> None:
    ours, same, other = simulation(seed=3), simulation(seed=3), simulation(seed=4)
    for k in range(60):
        first, second, third = (played.step(np.full(2, k % 7))[0] for played in (ours, same, other))
        np.testing.assert_array_equal(stacked(first), stacked(second))
        np.testing.assert_array_equal(ours.observation().flat(), same.observation().flat())
    assert (stacked(first) != stacked(third)).any()


def test_a_lane_draws_the_same_whatever_its_neighbours() -> None:
    pair = simulation(seed=7, lanes=2, table_spread=0.2)
    alone = simulation(seed=8, lanes=1, table_spread=0.2)
    np.testing.assert_array_equal(pair.table.head_s[1], alone.table.head_s[0])
    np.testing.assert_array_equal(courses(pair)[40][:, 1], courses(alone)[40][:, 0])


def test_a_new_episode_in_one_lane_leaves_the_other_alone() -> None:
    played, whole = simulation(), simulation()
    for _ in range(20):
        played.step(np.array([2, 2]))
        whole.step(np.array([2, 2]))
    played.reset(np.array([0]))
    assert (played.frame.tolist(), played.last_point.tolist()) == ([0, 20], [-1, 2])
    np.testing.assert_array_equal(played.observation().flat()[1], whole.observation().flat()[1])
    assert (played.observation().flat()[0] != whole.observation().flat()[0]).any()


def test_tables_differ_by_lane_and_episode_in_three_factors() -> None:
    played = simulation(lanes=3, table_spread=0.3)
    base, first = played.scenario.table, played.table.head_s.copy()
    assert played.table.head_s.shape == (3, base.size)

    def columns(table: PointTable) -> dict[str, Floats]:
        return {"head": table.head_s, "server": table.server_s, "bytes": table.hops[0].bytes_mean}

    for name, column in columns(base).items():
        some = np.flatnonzero(column)  # nothing crosses at the others
        factors = columns(played.table)[name][:, some] / column[some]
        np.testing.assert_allclose(factors, np.repeat(factors[:, :1], len(some), axis=1), err_msg=name)
        assert len(np.unique(factors[:, 0])) == 3
    np.testing.assert_array_equal(played.table.accuracy, np.tile(base.accuracy, (3, 1)))
    played.reset(np.array([1]))
    assert [(row == before).all() for row, before in zip(played.table.head_s, first, strict=True)] == [
        True,
        False,
        True,
    ]


def test_without_spread_the_table_is_shared() -> None:
    played = simulation()
    assert played.table is played.scenario.table


def test_whole_traces_from_their_start_or_parts_from_anywhere() -> None:
    whole = simulation(episode_s=None, lanes=8)
    assert whole.links[0].offset_s.tolist() == [0.0] * 8
    assert whole.frames.tolist() == [300] * 8
    parts = simulation(episode_s=2.0, lanes=8)
    offset_s = parts.links[0].offset_s
    assert len(set(offset_s)) == 8
    assert ((offset_s >= 0.0) & (offset_s < 10.0)).all()
    assert parts.frames.tolist() == [60] * 8


def test_lanes_can_be_given_their_traces() -> None:
    scenario = scenario_from(trace=[FLAT, RISING], profile=synthetic_profile())
    played = Simulation(scenario, [np.random.default_rng(0)] * 3, trace_of=np.array([1, 0, 1]))
    assert played.links[0].trace_of.tolist() == [1, 0, 1]
    assert played.uplinks[0].rate_at(np.arange(3), np.full(3, 6.0)).tolist() == [0.5e6, 0.25e6, 0.5e6]


def test_an_episode_ends_after_its_frames() -> None:
    played = simulation(episode_s=None, lanes=1, trace=FLAT, demands=[Demand(fps=2.0)])
    ends = [bool(played.step(np.zeros(1))[1][0]) for _ in range(20)]
    assert ends == [False] * 19 + [True]


def test_demands_are_drawn_by_episode() -> None:
    demands = [Demand(), Demand(fps=10.0, deadline_s=0.2), Demand(objective="latency", min_accuracy=0.9)]
    played = simulation(lanes=32, demands=demands)
    drawn = set(zip(*(column.tolist() for column in played.demands), strict=True))
    assert drawn == {(d.period_s, d.deadline_s, d.min_accuracy, d.objective == "latency", 0.0, 0.0) for d in demands}
    assert {int(frames) for frames in played.frames} == {90, 30}


def test_round_trips_follow_the_trace_where_it_has_them() -> None:
    still = replace(World(), rtt_jitter=0.0, request_s=0.01, cold=1.0, picture_s=0.0, request_spread=0.0)
    rng = np.random.default_rng(0)
    assert set(draw_course(still, RISING, 2.0, 60, 0.1, rng).hops[0].rtt_s[:30]) == {0.03 + 0.01}
    assert set(draw_course(still, RISING, 2.0, 60, 0.1, rng).hops[0].rtt_s[30:]) == {0.09 + 0.01}
    assert set(draw_course(still, FLAT, 2.0, 60, 0.1, rng).hops[0].rtt_s) == {still.usual_rtt_s()}


def test_chance_has_the_worlds_means() -> None:
    """Ten hours at ten frames a second; tolerances are five standard errors of correlated stays."""
    world = World()
    course = draw_course(world, FLAT, 0.0, 360_000, 0.1, np.random.default_rng(0))
    assert (course.compute_noise.mean(), course.compute_noise.std()) == pytest.approx((0.0, 1.0), abs=0.01)
    assert set(course.slow_down) == {1.0}
    busy_share = world.mean_busy_s / (world.mean_busy_s + world.mean_calm_s)
    mean_wait = busy_share * world.busy_wait_s + (1 - busy_share) * world.calm_wait_s
    assert course.server_wait_s.mean() == pytest.approx(mean_wait, rel=0.2)
    airs = [draw_course(world, FLAT, 0.0, 3, 0.1, np.random.default_rng(seed)).ambient_c for seed in range(200)]
    assert all(len(set(air)) == 1 for air in airs)  # an episode has one air
    assert np.min(airs) == pytest.approx(world.coolest_c, abs=1.0)
    assert np.max(airs) == pytest.approx(world.warmest_c, abs=1.0)


@pytest.mark.parametrize(("part", "spread"), [("rtt_jitter", 0.05), ("request_spread", 0.5)])
def test_round_trips_spread_as_the_world_says(part: str, spread: float) -> None:
    alone = replace(replace(World(), rtt_jitter=0.0, request_spread=0.0), **{part: spread})
    (trip,) = draw_course(alone, FLAT, 0.0, 100_000, 0.1, np.random.default_rng(0)).hops
    still_s = alone.request_s if part == "rtt_jitter" else alone.rtt_s
    assert np.log(trip.rtt_s - still_s).std() == pytest.approx(spread, rel=0.02)
    assert np.median(trip.rtt_s) == pytest.approx(alone.usual_rtt_s(), rel=1e-3)


def test_half_of_the_training_devices_begin_behind() -> None:
    scenario = replace(simulation().scenario, backlog_s=0.1)
    played = Simulation(scenario, [np.random.default_rng(seed) for seed in range(400)])
    behind = played.queues.device_free_s
    assert np.count_nonzero(behind == 0.0) == pytest.approx(200, abs=40)
    assert 0.09 < behind.max() <= 0.1
    assert played.situation().waited_s.tolist() == behind.tolist()


def test_a_dead_link_leaves_the_device_alone_and_the_numbers_finite() -> None:
    played = simulation(trace=DEAD, lanes=1)
    table = played.scenario.table
    full, answered = 0, set()
    for k in range(90):
        observation = played.observation()
        assert np.isfinite(observation.flat()).all()
        full += not observation.mask[0].all()
        outcome, _ = played.step(np.array([k % table.size]))
        answered.add(int(outcome.answered_by[0]))
    assert SERVER not in answered
    assert MISS in answered
    assert full > 50  # once eight messages are unanswered nothing more is sent
    assert (played.observation().mask[0] == table.local).all()


def test_the_device_believes_the_median_of_its_last_five_runs() -> None:
    """A cut's head is measured at once, because the foreground runs it."""
    played = simulation(lanes=1)
    cut, met = played.table.row("cut1-w50-b4"), [1.0] * 5
    for _ in range(60):
        outcome, _ = played.step(np.array([cut]))
        if outcome.slow_down[0] > 0.0:
            met.append(outcome.slow_down[0])
        assert played.slow_down[0] == np.median(met[-5:])
    assert len(set(met)) > 30


# frames a second -> frames after which a whole CNN of 46 ms has ended
@pytest.mark.parametrize(("fps", "later"), [(5.0, 1), (15.0, 1), (30.0, 2)])
def test_a_whole_cnn_is_measured_at_its_end(fps: float, later: int) -> None:
    played = simulation(lanes=1, fps=fps)
    net, wait = (played.table.row(name) for name in ("device-w50", "jpeg95"))
    met, believed = [1.0] * 5, []
    for k in range(30):
        outcome, _ = played.step(np.array([net if k % 2 == 0 else wait]))
        met.append(outcome.slow_down[0])
        believed.append(played.slow_down[0])
    known = [met[:5] + [one for one in met[5 : 5 + k + 2 - later] if one > 0.0] for k in range(30)]
    assert believed == [np.median(one[-5:]) for one in known]


def test_scenario_needs_something_to_play() -> None:
    with pytest.raises(ValueError, match="at least one trace and one demand"):
        Scenario(traces=(), demands=(Demand(),), table=points_of(synthetic_profile(), (DEVICE, SERVER_LABEL)))


# arguments -> the error and its sentence
WRONG: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"trace": "no-such-trace"}, TraceError, "trace 'no-such-trace': no such file or folder"),
    ({"profile": "no-such-profile"}, ProfileError, "profile 'no-such-profile' is neither a file nor bundled"),
    ({"device": "toaster"}, ProfileError, "no timings of 'toaster'; it has raspberry-pi-4, x86-2core"),
    ({"min_accuracy": 0.99}, ProfileError, "no operating point reaches it; the best is .* with 0.9200"),
    ({"fps": -1.0}, DemandError, "-1 frames a second received"),
    ({"deadline_ms": 0.0}, DemandError, "a deadline of 0 ms received"),
]


@pytest.mark.parametrize(("arguments", "error", "sentence"), WRONG)
def test_names_that_lead_nowhere(arguments: dict[str, object], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        simulation(**arguments)


def test_bundled_trace_by_its_bare_name() -> None:
    scenario = scenario_from(trace="lte", profile=synthetic_profile())
    assert [trace.name for trace in scenario.traces] == ["lte"]


def test_a_fork_goes_on_as_its_lanes_do_and_leaves_them_alone() -> None:
    played = simulation(lanes=3, table_spread=0.2, demands=[Demand(max_watts=4.0)])
    played.scenario = replace(played.scenario, trace_spread=0.5)
    for k in range(20):
        played.step(np.array([k % 10, (k + 3) % 10, (k + 7) % 10]))
    fork, aside = played.forked(np.array([2, 0, 2])), played.forked(np.array([1]))
    for k in range(30):
        aside.step(np.array([9]))
        np.testing.assert_array_equal(fork.observation().flat(), played.observation().flat()[[2, 0, 2]])
        copies, own = fork.step(np.array([k % 10, 1, k % 10]))[0], played.step(np.array([1, 5, k % 10]))[0]
        np.testing.assert_array_equal(stacked(copies)[..., [0, 1, 2]], stacked(own)[..., [2, 0, 2]])
    assert aside.frame.tolist() == [50]


def test_copies_of_a_lane_may_take_other_points() -> None:
    played = simulation(lanes=1)
    fork = played.forked(np.zeros(2, dtype=np.int64))
    outcome, _ = fork.step(np.array([1, 9]))
    assert outcome.utility[0] != outcome.utility[1]
    assert played.frame.tolist() == [0]


def test_links_of_a_training_differ_in_jitter_and_in_the_time_of_a_request() -> None:
    def drawn(spread: float) -> Floats:
        links, rng = Links([FLAT], 1, USUAL, spread), np.random.default_rng(3)
        plain = RoundTrip(np.array([0.060, 0.066]), np.array([0.060, 0.060]))  # the first has no jitter
        trips = [links.vary(0, plain, rng) for _ in range(2000)]
        return np.array([(trip.base_s[0], *(trip.rtt_s - trip.base_s)) for trip in trips]).T

    np.testing.assert_allclose(drawn(0.0), np.array([[0.060], [0.0], [0.006]]) * np.ones(2000))
    base_s, none_s, jitter_s = drawn(1.5)
    np.testing.assert_allclose(none_s, 0.0, atol=1e-12)
    assert np.std(np.log(jitter_s / base_s)) == pytest.approx(0.6, abs=0.1)  # 0.4 of 1.5
    assert np.corrcoef(np.log(jitter_s), np.log(base_s))[0, 1] > 0.5  # a long trip has more of it
    assert np.median(base_s) == pytest.approx(0.060, rel=0.05)


def test_no_drawn_round_trip_ends_before_it_begins() -> None:
    links, rng = Links([FLAT], 1, USUAL, 2.0), np.random.default_rng(0)
    plain = RoundTrip(0.002 + rng.normal(0.0, 0.001, 100), np.full(100, 0.002))
    assert all(np.all(column > 0.0) for _ in range(500) for column in links.vary(0, plain, rng))


@pytest.mark.parametrize(
    ("budget", "probe_after_s"),
    [
        ({}, 0.5),
        ({"max_watts": 4.0}, 60.0),
        ({"max_gb_month": 10.0}, 3.4992),
        ({"max_gb_month": 1000.0}, 0.5),
        ({"max_gb_month": 0.5}, 69.984),
        ({"max_watts": 4.0, "max_gb_month": 10.0}, 60.0),
    ],
)
def test_probes_keep_to_budgets(budget: dict[str, float], probe_after_s: float) -> None:
    assert simulation(**budget).scenario.world.probe_after_s == pytest.approx(probe_after_s)


def test_probes_keep_to_the_smallest_budget_and_never_to_less_than_the_world_has() -> None:
    demands = [Demand(max_gb_month=gb) for gb in (10.0, 5.0, None)]
    assert USUAL.under(*demands).probe_after_s == pytest.approx(2 * 3.4992)
    assert USUAL.under().probe_after_s == USUAL.probe_after_s
    assert replace(USUAL, probe_after_s=10.0).under(*demands).probe_after_s == 10.0


def test_probes_take_a_tenth_of_a_budget_of_data() -> None:
    steady = replace(FLAT, duration_s=200.0)
    played = simulation(lanes=1, max_gb_month=2.0, trace=steady, episode_s=None)
    local = np.flatnonzero(played.table.local)[:1]
    sent = [played.step(local)[0].hops[0].sent_bytes[0] for _ in range(5990)]
    assert gb_per_month(float(np.mean(sent)), 1 / 30) == pytest.approx(0.2, rel=0.1)
