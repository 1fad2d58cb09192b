"""A fixed strategy takes in the environment what CNNPC's tables say, to a microsecond."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.agents.cnnpc.as_profile import UNTROUBLED, links_of, name_of, profile_of, table_of
from tests.agents.cnnpc.test_cnnpc import TINY
from tidesplit.agents.cnnpc import pruning, published_tables
from tidesplit.agents.cnnpc.pruning import Drops
from tidesplit.agents.cnnpc.published_tables import TableError, Tables
from tidesplit.agents.cnnpc.strategies import ALL_TIERS, EDGE_CLOUD, END_CLOUD, END_EDGE, enumerate_strategies
from tidesplit.envs.adapters.split_inference import SplitInference
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.vocabulary import SERVER, Demand, Floats
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.table import PointTable, table_for

MICROSECOND = 1e-6
LANES = 256
PATIENT = Demand(fps=0.1, deadline_s=60.0)  # one frame an episode; nothing is too late
SETTINGS = [
    (net, device, bandwidth)
    for net in ("mobilenet", "resnet")
    for device in ("MI8", "MI8SE")
    for bandwidth in ("1", "5", "10")
]


def lossless(timed: Tables) -> Drops:
    """Every rate is offered, and none costs anything: it is the times that are compared."""
    return Drops(0.9, tuple(np.zeros(int(n)) for n in timed.channels))


def scenario(table: PointTable, timed: Tables) -> Scenario:
    first, second = links_of(timed)
    further = ((second,),) if len(table.hops) == 2 else ()
    return Scenario(traces=(first,), demands=(PATIENT,), table=table, world=UNTROUBLED, further=further)


def latencies(table: PointTable, timed: Tables) -> Floats:
    """What the environment takes for one frame by each point, a lane each."""
    simulation = Simulation(scenario(table, timed), [np.random.default_rng(i) for i in range(table.size)])
    outcome, _ = simulation.step(np.arange(table.size))
    assert (outcome.answered_by == SERVER).all()
    return outcome.latency_s


def compare(timed: Tables, drops: Drops, every: int = 1) -> int:
    """Play every offered strategy (or every so manieth); how many that were."""
    strategies = enumerate_strategies(timed, drops)
    rows = np.flatnonzero(strategies.offered)[::every]
    profile = profile_of(timed, drops)
    for some in np.array_split(rows, -(-len(rows) // LANES)):
        table = table_of(profile, timed, [name_of(strategies, int(row)) for row in some])
        np.testing.assert_allclose(table.accuracy, strategies.accuracy[some], rtol=0.0, atol=1e-12)
        taken = latencies(table, timed)
        np.testing.assert_allclose(taken, strategies.latency_ms[some] / 1e3, rtol=0.0, atol=MICROSECOND)
    return len(rows)


def test_every_strategy_on_the_tiny_tables() -> None:
    assert compare(TINY, lossless(TINY)) == 3 * (2 + 4) + 2 * 4


def test_a_feature_may_be_slower_on_the_second_hop_than_others() -> None:
    odd = replace(TINY, cross_ms=np.array([[100.0, 300.0], [60.0, 33.0], [8.0, 77.0]]))
    assert compare(odd, lossless(odd)) == 26


@pytest.mark.parametrize(
    ("name", "milliseconds"),
    [
        # end 10; half of 60; edge 8 + 16
        ("cut1-k1", 10 + 30 + 24 + 1.66),
        # end 10; half of 60 and of 180; cloud 2 + 4
        ("cut1-k1>cloud", 10 + 30 + 90 + 6 + 1.66),
        # 100 raw; edge 5 + 8; three quarters of 24; cloud 4
        ("raw>cut2-k1", 100 + 13 + 18 + 4 + 1.66),
        # end 10; half of 60; edge 8; three quarters of 24; cloud 4
        ("cut1-k1>cut2-k1", 10 + 30 + 8 + 18 + 4 + 1.66),
    ],
)
def test_by_hand_through_the_gymnasium_environment(name: str, milliseconds: float) -> None:
    profile = profile_of(TINY, lossless(TINY))
    env = SplitInference(scenario=scenario(table_of(profile, TINY, [name]), TINY))
    env.reset(seed=0)
    *_, info = env.step(np.int64(0))
    assert info["latency_s"] == pytest.approx(milliseconds / 1e3, abs=MICROSECOND)


def test_two_tiers_are_the_end_and_the_edge() -> None:
    strategies = enumerate_strategies(TINY, lossless(TINY))
    rows = np.flatnonzero(strategies.placement == END_EDGE)
    whole = table_for(profile_of(TINY, lossless(TINY)), "end", "edge")
    table = whole.take([whole.row(name_of(strategies, int(row))) for row in rows])
    np.testing.assert_allclose(latencies(table, TINY), strategies.latency_ms[rows] / 1e3, rtol=0.0, atol=MICROSECOND)


def test_names_say_where_each_part_runs() -> None:
    strategies = enumerate_strategies(TINY, lossless(TINY))
    first = {place: int(np.flatnonzero(strategies.placement == place)[-1]) for place in range(4)}
    assert {place: name_of(strategies, row) for place, row in first.items()} == {
        END_EDGE: "cut2-k3",
        END_CLOUD: "cut2-k3>cloud",
        EDGE_CLOUD: "raw>cut2-k3",
        ALL_TIERS: "cut1-k1>cut2-k3",
    }


def test_the_profile_is_a_file_like_any_other(tmp_path: Path) -> None:
    profile = profile_of(TINY, lossless(TINY))
    profiles.save(profile, tmp_path / "cnnpc.json")
    assert profiles.load(tmp_path / "cnnpc.json") == profile


def test_rates_of_unknown_accuracy_are_left_out() -> None:
    profile = profile_of(TINY, Drops(0.9, (np.array([0.0, 0.1]), np.array([0.0, np.nan, np.nan, np.nan]))))
    assert [p.id for p in profile.points] == ["raw", "end", "cut1-k0", "cut1-k1", "cut2-k0"]
    assert [p.accuracy for p in profile.points] == pytest.approx([0.9, 0.9, 0.9, 0.8, 0.9])


def test_a_hop_without_time_is_refused() -> None:
    free = replace(TINY, cross_ms=np.zeros((3, 2)))
    with pytest.raises(TableError, match="more than 0 ms expected"):
        profile_of(free, lossless(free))


@pytest.mark.parametrize(("net", "device", "bandwidth"), SETTINGS)
def test_published_tables(shared: Path, net: str, device: str, bandwidth: str) -> None:
    """Every 23rd strategy, of one cut and of two."""
    timed = published_tables.load(shared / "cnnpc" / net, device, bandwidth)
    assert compare(timed, lossless(timed), every=23) > 3000


def test_published_accuracies(shared: Path) -> None:
    folder = shared / "cnnpc" / "mobilenet"
    timed = published_tables.load(folder, "MI8", "10")
    assert compare(timed, pruning.load(folder / "accuracy_top5.csv", timed), every=11) > 1000
