"""Metrics with known answers, and episodes that depend on the seed alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.agents.small import BUMPY, DEAD, scenario, steps
from tests.envs.small import stacked
from tidesplit.agents.judging import contest
from tidesplit.agents.judging.evaluation import (
    COLUMNS,
    History,
    captured,
    decision_time_us,
    interval,
    mean_row,
    play,
    simulation_of,
    summarise,
)
from tidesplit.agents.judging.ladder import WithoutProbes
from tidesplit.agents.rules.controllers import Lookup, Static
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.heat import NO_HEAT
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import DEVICE, MISS, SERVER
from tidesplit.profiling.points.table import Machine

LONG = steps("a minute without a link", [0.0], 60.0)
FOUR = History(
    points=np.array([2, 2, 5, 2]),
    answered_by=np.array([SERVER, DEVICE, MISS, SERVER]),
    utility=np.array([0.9, 0.8, 0.0, 0.9]),
    latency_s=np.array([0.040, 0.060, 0.100, 0.080]),
    accuracy=np.array([0.9, 0.8, 0.0, 0.9]),
    sent_bytes=np.array([100.0, 300.0, 200.0, 0.0]),
    dropped=np.array([False, False, True, False]),
    goodput_bps=np.zeros(4),
    joules=np.array([0.1, 0.2, 0.3, 0.2]),
    radio_j=np.array([0.05, 0.0, 0.05, 0.1]),
    heat_c=np.array([40.0, 41.0, 43.0, 42.0]),
)


def test_a_row_by_hand() -> None:
    row = summarise(FOUR, controller="c", trace="t", period_s=0.5, decision_us=7.0, bound=0.8)
    assert (row.controller, row.trace, row.decision_us) == ("c", "t", 7.0)
    assert row.utility == pytest.approx(0.65)
    assert row.latency_ms_mean == pytest.approx(70.0)
    assert row.latency_ms_p50 == pytest.approx(70.0)
    assert row.latency_ms_p95 == pytest.approx(97.0)  # 80 + 0.85 * 20: linear between the sorted values
    assert row.latency_ms_p99 == pytest.approx(99.4)
    assert row.miss_rate == 0.25
    assert row.drop_rate == 0.25
    assert row.accuracy == pytest.approx(0.65)
    assert row.bytes_mean == 150.0
    assert row.gb_per_month == pytest.approx(0.7776)  # 150 bytes twice a second, for 2,592,000 seconds
    assert row.joules == pytest.approx(0.2)
    assert row.watts == pytest.approx(0.4)
    assert row.radio_watts == pytest.approx(0.1)
    assert row.hottest_c == 43.0
    assert row.switches_per_min == pytest.approx(60.0)  # two in two seconds
    assert row.regret_pct == pytest.approx(18.75)


def test_misses_that_were_dropped_and_misses_that_were_late() -> None:
    """Over a dead link images are late; a device that needs 110 of every 100 ms drops a frame now and then."""
    asked = scenario(DEAD, fps=10.0, deadline_ms=150.0)
    rows = (asked.table.row("jpeg95"), asked.table.row("device-w100"))
    late, slow = (play(Static("", row), simulation_of(asked, 0))[0] for row in rows)
    assert (late.answered_by[: asked.world.window] == MISS).all()  # no more may be unanswered
    assert not late.dropped.any()
    assert 0.0 < slow.dropped.mean() < 1.0
    assert (slow.answered_by[slow.dropped] == MISS).all()


def test_a_device_slightly_slower_than_its_frames_answers_most_of_them() -> None:
    """110 ms of every 100: a frame in eleven is left out, or a few more where the device believes a wrong speed."""
    asked = scenario(DEAD, fps=10.0, deadline_ms=300.0)
    (longer,) = play(Static("", asked.table.row("device-w100")), simulation_of(replace(asked, traces=(LONG,)), 0))
    assert np.mean(longer.answered_by == DEVICE) == pytest.approx(10 / 11, abs=0.04)


def test_energy_of_a_device_that_never_sends() -> None:
    """2 W idle, and 4 W more for the 46 ms of each run: 0.2 J and 0.184 J in 100 ms. The radio sleeps, unprobed."""
    asked = scenario(DEAD, fps=10.0, world=World(jitter=0.0, cooling=NO_HEAT))
    asked = replace(asked, table=replace(asked.table, machine=Machine(idle_w=2.0, busy_w=6.0, threads=4)))
    device = Static("", asked.table.row("device-w50"))
    (alone,), (probing,) = (play(entrant, simulation_of(asked, 0)) for entrant in (WithoutProbes(device), device))
    assert alone.joules == pytest.approx(0.384)
    assert not alone.sent_bytes.any()
    assert not alone.radio_j.any()
    assert probing.radio_j.sum() > 0.0
    assert summarise(
        alone, controller="", trace="", period_s=0.1, decision_us=0.0, bound=1.0
    ).watts == pytest.approx(3.84)  # fmt: skip


def test_no_regret_where_nothing_can_be_had() -> None:
    row = summarise(FOUR._replace(utility=np.zeros(4)), controller="", trace="", period_s=1, decision_us=0, bound=0.0)
    assert row.regret_pct == 0.0


def test_columns_are_those_that_were_asked_for() -> None:
    assert COLUMNS == (
        "controller", "trace", "utility", "latency_ms_mean", "latency_ms_p50", "latency_ms_p95", "latency_ms_p99",
        "miss_rate", "drop_rate", "accuracy", "bytes_mean", "gb_per_month", "joules", "watts", "radio_watts",
        "hottest_c", "switches_per_min", "decision_us", "regret_pct",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("utility", "share"), [(0.7, 0.0), (0.9, 1.0), (0.8, 0.5), (0.6, -0.5)], ids=["static", "bound", "half", "worse"]
)
def test_captured(utility: float, share: float) -> None:
    assert captured(utility, static=0.7, bound=0.9) == pytest.approx(share)


def test_nothing_to_capture() -> None:
    assert math.isnan(captured(0.9, static=0.9, bound=0.9))


def test_mean_row_is_over_numbers() -> None:
    rows = [
        summarise(FOUR._replace(utility=np.full(4, u)), controller="c", trace=t, period_s=1, decision_us=0, bound=1)
        for t, u in (("a", 0.2), ("b", 0.6))
    ]
    assert mean_row(rows)["utility"] == pytest.approx(0.4)
    assert "trace" not in mean_row(rows)


def test_interval_of_a_constant_is_a_point_and_of_chance_holds_the_mean() -> None:
    assert interval(np.full(5, 0.3), np.random.default_rng(0)) == pytest.approx((0.3, 0.3))
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    low, high = interval(values, np.random.default_rng(0))
    half = 1.96 * values.std() / 20  # what theory says
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.002)


def test_interval_uses_the_generator_that_it_is_given() -> None:
    values = np.arange(7.0)
    same = [interval(values, np.random.default_rng(seed), draws=50) for seed in (0, 0, 1)]
    assert same[0] == same[1] != same[2]


def equal(ours: list[History], others: list[History]) -> bool:
    return all(np.array_equal(a, b) for x, y in zip(ours, others, strict=True) for a, b in zip(x, y, strict=True))


def test_an_episode_is_played_the_same_by_the_same_seed() -> None:
    asked = scenario(BUMPY, DEAD)
    first, again, other = (play(Lookup(name=""), simulation_of(asked, seed)) for seed in (0, 0, 1))
    assert equal(first, again)
    assert not equal(first, other)
    assert [len(record.points) for record in first] == [60, 30]


def test_a_trace_is_played_the_same_whatever_stands_beside_it() -> None:
    alone = play(Lookup(name=""), simulation_of(scenario(BUMPY), seed=3))
    beside = play(Lookup(name=""), simulation_of(scenario(BUMPY, DEAD), seed=3))
    assert equal(alone, beside[:1])


def test_every_controller_meets_the_same_course() -> None:
    asked = scenario(BUMPY)
    played = [simulation_of(asked, seed=5) for _ in range(2)]
    for simulation, row in zip(played, (0, 9), strict=True):
        play(Static("", row), simulation)
    courses = [np.stack([stacked(simulation.frame_at(-k)) for k in range(60)]) for simulation in played]
    np.testing.assert_array_equal(*courses)


def test_progress_comes_to_its_end() -> None:
    told: list[tuple[int, int]] = []
    play(Static("", 0), simulation_of(scenario(BUMPY), 0), lambda *done: told.append(done))
    assert told == [(50, 60), (60, 60)]


def test_a_decision_takes_some_time() -> None:
    entered: list[Simulation] = []

    def entrant(simulation: Simulation) -> Static:
        entered.append(simulation)
        return Static("", 0)

    asked = scenario(steps("two frames", [1.0], 0.07))
    assert 0.0 < decision_time_us(entrant, asked) < 1e5
    assert len(entered) == 1


def test_a_contest_has_a_row_for_each_controller_and_trace(tmp_path: Path) -> None:
    asked = scenario(BUMPY, DEAD, episode_s=1.0)  # evaluated whole all the same
    entrants = {"device": Static("device", 9), "image": Static("image", 0)}
    (result,) = contest.contest(entrants, asked, [[0.9, 0.8]], [2])
    assert [(r.controller, r.trace) for r in result.rows] == [
        ("device", "bumpy"), ("device", "dead"), ("image", "bumpy"), ("image", "dead"),
    ]  # fmt: skip
    assert result.bounds == {"bumpy": 0.9, "dead": 0.8}
    utilities = {name: of["dead"].utility.mean() for name, of in result.records.items()}
    assert utilities["image"] < utilities["device"]
    assert [r.utility for r in result.rows if r.trace == "dead"] == list(utilities.values())

    contest.write_json(tmp_path / "results.json", result.rows, bounds=result.bounds)
    document: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())
    assert document["bounds"] == result.bounds
    assert [tuple(row) for row in document["rows"]] == [COLUMNS] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_bounds_are_of_the_course_that_the_contest_plays() -> None:
    asked = scenario(BUMPY, DEAD)
    bounds = [contest.bound(contest.whole_traces(asked), 2, lane, 64) for lane in range(2)]
    (result,) = contest.contest({"look-up": Lookup(name="look-up")}, asked, [bounds], [2])
    assert all(row.regret_pct >= 0.0 for row in result.rows)
    with contest.workers(1) as pool:
        assert [future.result() for future in contest.submit_bounds(pool, asked, 2)] == bounds


def test_seeds_played_together_are_played_as_one_by_one() -> None:
    asked, entrants = scenario(BUMPY, DEAD), {"look-up": Lookup(name="look-up")}
    bounds = [[0.9, 0.8]] * 2
    alone = [contest.contest(entrants, asked, [bounds[0]], [seed])[0] for seed in (2, 5)]
    with contest.workers(1) as pool:
        for together in (
            contest.contest(entrants, asked, bounds, [2, 5]),
            contest.contest(entrants, asked, bounds, [2, 5], pool=pool),
        ):
            for one, other in zip(alone, together, strict=True):
                for trace in ("bumpy", "dead"):
                    for mine, theirs in zip(
                        one.records["look-up"][trace], other.records["look-up"][trace], strict=True
                    ):
                        np.testing.assert_array_equal(mine, theirs)
