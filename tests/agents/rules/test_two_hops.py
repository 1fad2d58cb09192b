"""Two hops: the rules and the published systems reckon with the second."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.agents.small import steps
from tests.envs.three import TABLE, three_tiers
from tidesplit.agents.judging.evaluation import play, simulation_of
from tidesplit.agents.rules.controllers import uncompressed
from tidesplit.agents.rules.linucb import beyond_first_hop_s
from tidesplit.agents.rules.published import Jmdc, cnnpc, static_latency
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand

WIDE = steps("wide", [50.0] * 5)


def test_static_latency_is_the_sum_of_the_tables() -> None:
    """100 and 200 kB/s, round trips of 40 and 10 ms: `tests.envs.world.test_hop` has the same by the pipeline."""
    world = replace(World(), rtt_s=0.040, request_s=0.0, cold=1.0, picture_s=0.0, wired_rtt_s=0.010)
    expected = [0.110, 0.125, 0.1195, 0.080, 0.089, 0.0925, 0.050]
    np.testing.assert_allclose(static_latency(TABLE, world, [1e5, 2e5]), expected)


@pytest.mark.parametrize(
    ("demand", "rates", "best"),
    [
        (Demand(deadline_s=0.112), (1e5, 2e5), "image"),
        (Demand(deadline_s=0.108), (1e5, 2e5), "cut"),
        (Demand(deadline_s=0.112), (1e5, 1e9), "image>cloud"),  # 5.1 ms quicker than the middle server, both in time
        (Demand(objective="latency", min_accuracy=0.85, deadline_s=1.0), (2e5, 1e9), "image>cloud"),
        (Demand(objective="latency", min_accuracy=0.85, deadline_s=1.0), (2e5, 5e4), "image"),
        (Demand(objective="latency", min_accuracy=0.7, deadline_s=1.0), (1e5, 5e4), "cut"),
        (Demand(objective="latency", min_accuracy=0.7, deadline_s=1.0), (1e5, 1e6), "cut"),
    ],
)
def test_cnnpc_and_jmdc_choose_among_two_cuts_too(demand: Demand, rates: tuple[float, float], best: str) -> None:
    world = replace(World(), rtt_s=0.040, request_s=0.0, cold=1.0, picture_s=0.0, wired_rtt_s=0.010)
    latency = static_latency(TABLE, world, rates)
    chosen = cnnpc(TABLE, world, demand, rates).row
    fits = (latency <= demand.deadline_s) & (demand.min_accuracy <= TABLE.accuracy)
    by_hand = min(
        np.flatnonzero(fits),
        key=lambda r: (latency[r],) if demand.objective == "latency" else (-TABLE.accuracy[r], latency[r]),
    )
    assert (TABLE.ids[chosen], chosen) == (best, by_hand)


def test_jmdc_is_told_of_the_second_hop() -> None:
    """Where the second hop turns slow, it stops sending over it."""
    links = {"trace": steps("wide", [50.0] * 40), "second_trace": steps("turns slow", [50.0] * 20 + [0.01] * 20)}
    asked = three_tiers(**links, deadline_ms=150.0, world=replace(World(), request_s=0.0, cold=1.0, picture_s=0.0))
    slow = replace(asked.table, server_s=asked.table.server_s + np.where(asked.table.hops[1].sends, 0.0, 0.2))
    asked = replace(asked, table=slow)
    jmdc = Jmdc(name="JMDC", table=slow, world=asked.world, usual_rates=(1e6, 1e6))
    (record,) = play(jmdc, simulation_of(asked, 0))
    goes_on = slow.hops[1].sends[record.points]
    assert goes_on[5:50].all()
    assert not goes_on[-20:].any()


def test_the_bandit_adds_what_lies_beyond_the_middle_server() -> None:
    asked = three_tiers(trace=WIDE, second_trace=WIDE, world=replace(World(), cold=1.0, picture_s=0.0))
    simulation = Simulation(asked, [np.random.default_rng(0)])
    told = simulation.observation()
    added = beyond_first_hop_s(told)[0]
    hop2, rtt_s = simulation.table.hops[1], World().usual_rtt_s(hop=1)
    takes = hop2.compute_s + (hop2.bytes_mean + 150.0) / 125_000.0 + rtt_s + simulation.table.server_s
    np.testing.assert_allclose(added[hop2.sends], takes[hop2.sends], atol=1e-6)


def test_partition_only_chooses_the_widest_of_each_pair_of_partitions() -> None:
    assert [TABLE.ids[row] for row in np.flatnonzero(uncompressed(TABLE))] == list(TABLE.ids)
