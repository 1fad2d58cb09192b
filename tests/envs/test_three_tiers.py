"""Episodes and observations of three tiers: what is told of the second link, and what its beliefs lead to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.envs.small import stacked
from tests.envs.three import CUT, CUT_CUT, CUT_ON, FROM, IMAGE, IMAGE_CUT, IMAGE_ON, LOCAL, TABLE, three_tiers
from tests.envs.world.test_observation import FORESEEN, FULL, KNOWN, NOW, QUEUED, USUAL_RTT, Sent, situation, transfers
from tests.profiles import CLOUD, SERVER, synthetic_profile, three_tier_profile
from tidesplit.envs.adapters.split_inference import SplitInference
from tidesplit.envs.simulation.scenario import scenario_from
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.observation import (
    THREE_TIERS,
    TWO_TIERS,
    Observation,
    Situation,
    fields_of,
    observe,
    unflatten,
)
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Demands, Transfers
from tidesplit.profiling.points.profile import ProfileError

USUAL_ONWARD_RTT = 0.015
QUIET = World(
    request_s=0.0,
    rtt_jitter=0.0,
    onward_rtt_jitter=0.0,
    compute_jitter=0.0,
    mean_cool_s=1e9,
    calm_wait_s=0.0,
    busy_wait_s=0,
)


def flat(name: str, mbps: float) -> Trace:
    return Trace(name, np.zeros(1), 10.0, np.array([mbps * 1e6]))


def told(
    messages: list[Sent] | None = None, onward: list[Sent] | None = None, demand: Demand | None = None, **about: object
) -> Observation:
    """Observation of one lane, guard 5 ms, overhead 150 bytes."""
    known: Situation = situation(messages=messages, **about)  # type: ignore[arg-type]
    known = known._replace(onward=transfers(*(onward or [])))
    demands = Demands.of(demand or Demand())
    return observe(known, TABLE, demands, USUAL_RTT, 150.0, 0.005, USUAL_ONWARD_RTT)


# The second link at 200 kB/s, round trip 10 ms; a message is on its way to it and will take 5 ms from 40 ms on.
ONWARD_KNOWN = (9.5, 9.75, 1000, 0.005, 0.010, 0.0)
ON_ITS_WAY = (NOW + 0.040, 99.0, 1000, 0.0, 0.0, 0.0)


def test_what_two_tiers_are_told_stays() -> None:
    """The first link as in `tests.envs.test_observation`, by rows that go on or do not."""
    seen = told([QUEUED, KNOWN], waited_s=0.004, slow_down=1.5)
    stay = [IMAGE, CUT, LOCAL]
    for name, expected in FORESEEN.items():
        if name != "is_last":
            assert seen.of_points(name)[0][stay] == pytest.approx(expected, abs=1e-5), name
    for name in ("head_s", "payload", "device_queue_s", "link_queue_s", "finish_s"):
        by_two = np.array(FORESEEN[name])[FROM]
        assert seen.of_points(name)[0] == pytest.approx(by_two, abs=1e-5), name


def test_forecast_over_the_second_link() -> None:
    """Device at its own pace, both links idle: 100 kB/s and 50 ms, 200 kB/s and 10 ms, wait 2 ms at the edge server."""
    seen = told([KNOWN], [ONWARD_KNOWN])
    assert seen.of("onward_goodput") == pytest.approx([200_000.0])
    assert seen.of("onward_rtt_s") == pytest.approx([0.010])
    expected = {
        # head, bytes, 25 to the edge server; what is cut again waits 2 and takes 15 or 8
        "onward_at_s": (0, 0.075, 0.092, 0, 0.055, 0.065, 0),
        "onward_payload": (0, 4000, 500, 0, 1000, 500, 0),
        "middle_s": (0, 0, 0.015, 0, 0, 0.008, 0),
        "sends_onward": (0, 1, 1, 0, 1, 1, 0),
        # then bytes, 10, tail, 25; by the edge server 25, 2, tail, 25
        "latency_s": (0.122, 0.135, 0.1315, 0.092, 0.099, 0.1045, 0.050),
        "onward_queue_s": (0, 0.095 - 1 / 30, 0.0945 - 1 / 30, 0, 0.060 - 1 / 30, 0.0675 - 1 / 30, 0),
    }
    for name, values in expected.items():
        assert seen.of_points(name)[0] == pytest.approx(values, abs=1e-5), name
    assert seen.of_points("slack_s")[0] == pytest.approx(0.1 - np.array(expected["latency_s"]), abs=1e-5)


def test_the_second_links_queue_delays_what_goes_on() -> None:
    """Taken until 45 ms from now by a message that is still on its way there, then by one of 40 ms."""
    seen = told([KNOWN], [(NOW + 0.045, 99.0, 8000, 0.0, 0.0, 0.0), ON_ITS_WAY, ONWARD_KNOWN])
    assert seen.of("onward_queue_s") == pytest.approx([0.085], abs=1e-5)
    assert seen.of("onward_in_flight") == 2
    assert seen.of("onward_since_sent_s") == 0.0
    waits = {IMAGE_ON: 0.010, IMAGE_CUT: 0.0, CUT_ON: 0.030, CUT_CUT: 0.020}
    before = told([KNOWN], [ONWARD_KNOWN]).of_points("latency_s")[0]
    for row, later in enumerate(seen.of_points("latency_s")[0] - before):
        assert later == pytest.approx(waits.get(row, 0.0), abs=1e-5), row


def test_before_anything_was_sent() -> None:
    seen = told()
    assert seen.of("onward_rtt_s") == pytest.approx([USUAL_ONWARD_RTT])
    assert seen.of("onward_goodput_age_s") == 10.0
    assert seen.of("onward_queue_s") == 0.0


def test_pessimism_reckons_with_the_second_link_too() -> None:
    """Answered at 5 and 15 us a byte: together 10, at worst 15; and a stall of 0.98 s."""
    slow = (9.0, ONWARD_KNOWN[1], 1000, 0.015, 0.010, 0.0)
    seen = told([KNOWN], [ONWARD_KNOWN, slow])
    lost = seen.of_points("slack_s") - seen.of_points("slack_low_s")
    assert lost[0] == pytest.approx(5e-6 * np.array([0, 4000, 500, 0, 1000, 500, 0]), abs=1e-6)
    stalled = told([KNOWN], [(9.0, 99.0, 2000, 0.0, 0.0, 0.0), ONWARD_KNOWN])
    lost = stalled.of_points("slack_s") - stalled.of_points("slack_low_s")
    assert lost[0] == pytest.approx(0.98 * np.array([0, 1, 1, 0, 1, 1, 0]), abs=1e-4)


def test_finishes_of_either_links_messages_are_pending() -> None:
    first = (9.99, 99.0, 4000, 0.0, 0.0, 0.0, NOW + 0.025, 0.030, 0.010)
    second = (9.99, 99.0, 4000, 0.0, 0.0, 0.0, NOW + 0.015, 0.020, 0.010)
    assert told([first]).of("finish_pending_s") == pytest.approx([0.030])
    both = told([first], [second])
    assert both.of("finish_pending_s") == pytest.approx([0.050])
    assert both.of("finish_due_s") == pytest.approx([0.015])
    assert told(None, [second]).of("finish_due_s") == pytest.approx([0.015])


# messages on the first link, on the second -> allowed points
MASKS: dict[str, tuple[list[Sent], list[Sent], list[int]]] = {
    "everything": ([], [], list(range(7))),
    "the first window full": (FULL, [], [LOCAL]),
    "the second window full": ([], FULL, [IMAGE, CUT, LOCAL]),
    "not quite": ([], FULL[:-1], list(range(7))),
}


@pytest.mark.parametrize("case", MASKS.values(), ids=MASKS)
def test_mask(case: tuple[list[Sent], list[Sent], list[int]]) -> None:
    first, second, allowed = case
    assert np.flatnonzero(told(first, second).mask[0]).tolist() == allowed


def test_flat_rows_and_back() -> None:
    seen = told([KNOWN], [ONWARD_KNOWN])
    rows = seen.flat()
    assert rows.shape == (1, THREE_TIERS.width(TABLE.size))
    for ours, theirs in zip(unflatten(rows, seen.mask), seen, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (seen.tiers, fields_of(2), fields_of(3)) == (3, TWO_TIERS, THREE_TIERS)


def test_the_forecast_comes_true_on_steady_links() -> None:
    """Once both links are known: what is foreseen of every point is what then happens, to a millisecond."""
    calm = replace(QUIET, probe_after_s=1e9)
    asked = three_tiers(
        trace=flat("first", 4.0), onward_trace=flat("second", 2.0), fps=2.0, deadline_ms=450, world=calm
    )
    asked = replace(asked, table=replace(asked.table, bytes_sigma=0.0 * asked.table.bytes_sigma))
    assert asked.table.onward is not None
    still = replace(asked.table.onward, bytes_sigma=0.0 * asked.table.onward.bytes_sigma)
    asked = replace(asked, table=replace(asked.table, onward=still))
    played = Simulation(asked, [np.random.default_rng(0)])
    large = int(np.argmax(asked.table.onward.bytes_mean))
    compared = 0
    for row in [large] * 2 + list(range(asked.table.size)):
        foreseen = played.observation().of_points("latency_s")[0, row]
        outcome, ended = played.step(np.array([row]))
        if played.frame[0] > 2:
            assert outcome.latency_s[0] == pytest.approx(foreseen, abs=0.001), asked.table.ids[row]
            compared += 1
        if ended[0]:
            break
    assert compared >= 15


def test_the_first_link_has_the_same_in_store_as_in_two_tiers() -> None:
    links = {"trace": [flat("first", 4.0)], "episode_s": 3.0, "trace_spread": 0.5}
    two = Simulation(scenario_from(profile=synthetic_profile(), **links), [np.random.default_rng(5)])  # type: ignore[arg-type]
    three = Simulation(three_tiers(**links), [np.random.default_rng(5)])
    assert (two.offset_s, two.scale) == (three.offset_s, three.scale)
    np.testing.assert_array_equal(stacked(two.frame_at(7)), stacked(three.frame_at(7))[:6])
    assert two.frame_at().onward_rtt_s is None
    assert two.second is None


def test_the_second_link_follows_its_own_trace() -> None:
    rising = Trace("rising", np.array([0.0, 5.0]), 10.0, np.array([1e6, 4e6]), rtt_s=np.array([0.03, 0.09]))
    asked = three_tiers(trace=flat("first", 4.0), onward_trace=rising, fps=10.0, world=QUIET)
    played = Simulation(asked, [np.random.default_rng(0)])
    assert played.second is not None
    assert played.frame_at(40).onward_rtt_s == pytest.approx([0.03])
    assert played.frame_at(60).onward_rtt_s == pytest.approx([0.09])
    assert played.second.uplink.rate_at(np.zeros(1, dtype=np.int64), np.array([6.0])) == [0.5e6]


def test_episodes_begin_anywhere_in_the_second_trace_and_with_its_own_spread() -> None:
    links = {"trace": flat("first", 4.0), "onward_trace": [flat("a", 1.0), flat("b", 2.0)]}
    asked = three_tiers(episode_s=1.0, trace_spread=0.5, **links)
    played = Simulation(asked, [np.random.default_rng(i) for i in range(32)])
    assert played.second is not None
    assert played.second.scale is not None
    assert set(played.second.trace_of) == {0, 1}
    assert len(set(played.second.offset_s)) == len(set(played.second.scale)) == 32
    whole = Simulation(three_tiers(**links), [np.random.default_rng(i) for i in range(4)])
    assert whole.second is not None
    assert whole.second.offset_s.tolist() == [0.0] * 4


def test_a_new_episode_forgets_what_went_over_the_second_link() -> None:
    played = Simulation(three_tiers(trace=flat("first", 4.0), onward_trace=flat("b", 2.0)), [np.random.default_rng(0)])
    for row in range(played.table.size):
        played.step(np.array([row]))
    assert played.second is not None
    assert played.observation().of("onward_goodput_age_s")[0] < 1.0
    played.reset(np.zeros(1, dtype=np.int64))
    for ring, empty in zip(played.second.transfers, Transfers.none(1, 8), strict=True):
        np.testing.assert_array_equal(ring, empty)
    assert played.observation().of("onward_goodput_age_s")[0] == 10.0


def test_the_gymnasium_environment_tells_what_the_second_link_did() -> None:
    env = SplitInference(scenario=three_tiers(trace=flat("first", 4.0), onward_trace=flat("second", 2.0)))
    env.reset(seed=0)
    row = next(r for r, name in enumerate(env.scenario.table.ids) if name == "jpeg95>cloud")
    _, _, _, _, info = env.step(np.int64(row))
    assert info["point"] == "jpeg95>cloud"
    assert info["onward_bytes"] == pytest.approx(info["sent_bytes"])
    assert info["onward_s"] == pytest.approx(info["onward_bytes"] / 0.25e6)
    two = SplitInference(profile=synthetic_profile(), trace=flat("first", 4.0))
    two.reset(seed=0)
    assert "onward_s" not in two.step(np.int64(0))[4]


def test_options_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="4 tiers received, 2 or 3 expected"):
        scenario_from(profile=synthetic_profile(), tiers=4)
    with pytest.raises(ProfileError, match="no timings of 'moon'"):
        three_tiers(cloud="moon")
    table = three_tiers().table
    with pytest.raises(ValueError, match="0 traces of a second link received for a table of 3 tiers"):
        Scenario(traces=(flat("a", 1.0),), demands=(Demand(),), table=table)
    with pytest.raises(ValueError, match="1 traces of a second link received for a table of 2 tiers"):
        replace(scenario_from(profile=synthetic_profile()), onward=(flat("a", 1.0),))


def test_the_default_is_an_estimated_edge_server_and_a_bundled_link() -> None:
    asked = scenario_from(profile=three_tier_profile(), tiers=3)
    assert [trace.name for trace in asked.onward] == ["metro"]
    assert asked.tiers == 3
    assert scenario_from(profile=three_tier_profile(), tiers=3, server=SERVER, cloud=CLOUD).table.size > 10
