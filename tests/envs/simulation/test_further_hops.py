"""Links of episodes: each hop plays a trace of its own, and what is foreseen over both hops comes true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.envs.small import stacked, with_uplink
from tests.envs.three import three_tiers, with_hop2
from tests.profiles import CLOUD, SERVER, synthetic_profile, three_tier_profile
from tidesplit.envs.adapters.split_inference import SplitInference
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.heat import NO_HEAT
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Transfers
from tidesplit.profiling.points.profile import ProfileError

QUIET = World(
    request_s=0.0,
    cold=1.0,
    picture_s=0.0,
    rtt_jitter=0.0,
    wired_rtt_jitter=0.0,
    jitter=0.0,
    cooling=NO_HEAT,
    calm_wait_s=0.0,
    busy_wait_s=0,
)


def flat(name: str, mbps: float) -> Trace:
    return Trace(name, np.zeros(1), 10.0, np.array([mbps * 1e6]))


def test_the_forecast_comes_true_on_steady_links() -> None:
    """Once both links are known: what is foreseen of every point is what then happens, to a millisecond."""
    calm = replace(QUIET, probe_after_s=1e9)
    asked = three_tiers(
        trace=flat("first", 4.0), second_trace=flat("second", 2.0), fps=2.0, deadline_ms=450, world=calm
    )
    none = np.zeros(asked.table.size)
    asked = replace(asked, table=with_hop2(with_uplink(asked.table, bytes_sigma=none), bytes_sigma=none))
    played = Simulation(asked, [np.random.default_rng(0)])
    large = int(np.argmax(asked.table.hops[1].bytes_mean))
    compared = 0
    for row in [large] * 2 + list(range(asked.table.size)):
        foreseen = played.observation().foreseen.latency_s[0, row]
        outcome, ended = played.step(np.array([row]))
        if played.frame[0] > 2:
            assert outcome.latency_s[0] == pytest.approx(foreseen, abs=0.001), asked.table.ids[row]
            compared += 1
        if ended[0]:
            break
    assert compared >= 15


def test_the_first_hop_has_the_same_in_store_as_in_two_tiers() -> None:
    links = {"trace": [flat("first", 4.0)], "episode_s": 3.0, "trace_spread": 0.5}
    two = Simulation(scenario_from(profile=synthetic_profile(), **links), [np.random.default_rng(5)])  # type: ignore[arg-type]
    three = Simulation(three_tiers(**links), [np.random.default_rng(5)])
    assert (two.links[0].offset_s, two.links[0].scale) == (three.links[0].offset_s, three.links[0].scale)
    ours, theirs = two.frame_at(7), three.frame_at(7)
    np.testing.assert_array_equal(stacked(ours), stacked(theirs._replace(hops=theirs.hops[:1])))
    assert (len(two.links), len(three.links)) == (1, 2)


def test_the_second_hop_follows_its_own_trace() -> None:
    rising = Trace("rising", np.array([0.0, 5.0]), 10.0, np.array([1e6, 4e6]), rtt_s=np.array([0.03, 0.09]))
    asked = three_tiers(trace=flat("first", 4.0), second_trace=rising, fps=10.0, world=QUIET)
    played = Simulation(asked, [np.random.default_rng(0)])
    assert played.frame_at(40).hops[1].rtt_s == pytest.approx([0.03])
    assert played.frame_at(60).hops[1].rtt_s == pytest.approx([0.09])
    assert played.uplinks[1].rate_at(np.zeros(1, dtype=np.int64), np.array([6.0])) == [0.5e6]


def test_episodes_begin_anywhere_in_the_second_trace_and_with_its_own_spread() -> None:
    links = {"trace": flat("first", 4.0), "second_trace": [flat("a", 1.0), flat("b", 2.0)]}
    asked = three_tiers(episode_s=1.0, trace_spread=0.5, **links)
    second = Simulation(asked, [np.random.default_rng(i) for i in range(32)]).links[1]
    assert second.scale is not None
    assert set(second.trace_of) == {0, 1}
    assert len(set(second.offset_s)) == len(set(second.scale)) == 32
    whole = Simulation(three_tiers(**links), [np.random.default_rng(i) for i in range(4)])
    assert whole.links[1].offset_s.tolist() == [0.0] * 4


def test_a_new_episode_forgets_what_went_over_the_second_hop() -> None:
    played = Simulation(three_tiers(trace=flat("first", 4.0), second_trace=flat("b", 2.0)), [np.random.default_rng(0)])
    for row in range(played.table.size):
        played.step(np.array([row]))
    assert played.observation().seen.hops[1].goodput_age_s[0] < 1.0
    played.reset(np.zeros(1, dtype=np.int64))
    for ring, empty in zip(played.links[1].transfers, Transfers.none(1, 8), strict=True):
        np.testing.assert_array_equal(ring, empty)
    assert played.observation().seen.hops[1].goodput_age_s[0] == 10.0


def test_the_gymnasium_environment_tells_what_the_second_hop_did() -> None:
    env = SplitInference(scenario=three_tiers(trace=flat("first", 4.0), second_trace=flat("second", 2.0)))
    env.reset(seed=0)
    row = next(r for r, name in enumerate(env.scenario.table.ids) if name == "jpeg95>cloud")
    _, _, _, _, info = env.step(np.int64(row))
    assert info["point"] == "jpeg95>cloud"
    assert info["hop2_sent_bytes"] == pytest.approx(info["sent_bytes"])
    assert info["hop2_uplink_s"] == pytest.approx(info["hop2_sent_bytes"] / 0.25e6)
    two = SplitInference(profile=synthetic_profile(), trace=flat("first", 4.0))
    two.reset(seed=0)
    assert "hop2_uplink_s" not in two.step(np.int64(0))[4]


def test_options_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="4 tiers received, 2 or 3 expected"):
        scenario_from(profile=synthetic_profile(), tiers=4)
    with pytest.raises(ProfileError, match="no timings of 'moon'"):
        three_tiers(cloud="moon")
    table = three_tiers().table
    with pytest.raises(ValueError, match="traces of 1 hops received for a table of 2 hops"):
        Scenario(traces=(flat("a", 1.0),), demands=(Demand(),), table=table)
    with pytest.raises(ValueError, match="traces of 2 hops received for a table of 1 hops"):
        replace(scenario_from(profile=synthetic_profile()), further=((flat("a", 1.0),),))


def test_the_default_is_an_estimated_middle_server_and_a_bundled_link() -> None:
    asked = scenario_from(profile=three_tier_profile(), tiers=3)
    assert [[trace.name for trace in traces] for traces in asked.links] == [["lte"], ["metro"]]
    assert scenario_from(profile=three_tier_profile(), tiers=3, server=SERVER, cloud=CLOUD).table.size > 10
