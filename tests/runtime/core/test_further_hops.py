"""What a device learns of the hop behind the middle server, as tables of events."""

import numpy as np
import pytest

from tidesplit.envs.world.belief import believe
from tidesplit.envs.world.physics import World
from tidesplit.runtime.core.knowledge import Ahead, FurtherHop, LinkKnowledge
from tidesplit.runtime.core.sending import Reply
from tidesplit.runtime.wire.answers import HopTimes, NextTiming, ServerTiming
from tidesplit.runtime.wire.estimator import Settled, transfers_of

WORLD = World()
PING = -1  # the key of a message that is no frame


def belief(hop, now_s):
    return believe(transfers_of(hop.rows()), np.array([now_s]), WORLD.usual_rtt_s(hop=1)).hop


def timing(uplink_s, rtt_s):
    return NextTiming(uplink_s + rtt_s + 0.005, 0.0, 0.005, uplink_s, rtt_s)


def sent(hop, key, now_s, payload=2000.0):
    hop.sent(key, now_s, now_s, Settled(payload))


def test_a_frame_that_went_on_tells_pace_and_round_trip():
    hop = FurtherHop(WORLD)
    sent(hop, 0, 1.0)
    assert belief(hop, 1.01).in_flight[0] == 1
    assert hop.passed_on(0)
    assert not hop.passed_on(0), "once is enough"
    assert hop.answered(0, 1.1, timing(0.02, 0.03), None)
    told = belief(hop, 1.2)
    assert told.in_flight[0] == 0
    assert told.goodput[0] == pytest.approx(100_000.0)
    assert told.rtt_s[0] == pytest.approx(0.03)


def test_a_probe_is_wanted_after_silence_alone_which_begins_when_a_message_leaves():
    hop = FurtherHop(WORLD)
    assert hop.asks_for_probe(PING, 0.0)
    assert not hop.asks_for_probe(PING, 0.4)
    assert hop.asks_for_probe(PING, 0.6)
    hop.sent(0, 1.2, 9.0, Settled(2000.0))  # ready for the second hop much later, since the first one stalls
    assert hop.asks_for_probe(PING, 1.8)


def test_the_outcome_of_a_probe_comes_with_a_later_answer():
    hop = FurtherHop(WORLD)
    hop.asks_for_probe(PING, 0.0)
    hop.answered(PING, 0.05, None, None)
    assert belief(hop, 0.1).in_flight[0] == 1
    hop.answered(
        1, 0.2, None, HopTimes(1000.0, 0.010, 0.02, 0.1)
    )  # somebody else's message told as much, of other bytes
    assert belief(hop, 0.2).in_flight[0] == 0
    assert belief(hop, 0.2).goodput[0] == pytest.approx(100_000.0)


@pytest.mark.parametrize("age_s", [0.7, 3600.0])
def test_what_crossed_before_a_probe_was_asked_for_is_not_its_outcome(age_s):
    hop = FurtherHop(WORLD)
    hop.asks_for_probe(PING, 0.7)
    hop.answered(PING, 0.8, None, HopTimes(WORLD.probe_bytes, 0.01, 0.02, age_s))
    assert belief(hop, 0.8).in_flight[0] == 1
    hop.answered(1, 0.9, None, HopTimes(WORLD.probe_bytes, 0.01, 0.02, 0.05))
    assert belief(hop, 0.9).in_flight[0] == 0


def test_a_hop_that_fails_stalls_until_something_crosses_again():
    """A frame that the middle server had to answer by itself says nothing good of the hop."""
    hop = FurtherHop(WORLD)
    sent(hop, 0, 1.0)
    hop.answered(0, 1.3, None, None)
    hop.asks_for_probe(PING, 2.0)
    hop.asks_for_probe(PING - 1, 3.0)
    assert belief(hop, 3.1).in_flight[0] == 3
    assert belief(hop, 3.1).stalled_s[0] > 1.0
    hop.answered(PING - 1, 3.2, None, HopTimes(WORLD.probe_bytes, 0.01, 0.02, 0.05))
    assert belief(hop, 3.2).in_flight[0] == 0


def test_what_the_first_hop_lost_is_no_fault_of_the_second():
    hop = FurtherHop(WORLD)
    sent(hop, 0, 1.0)
    assert hop.asks_for_probe(PING, 1.6)
    assert not hop.failed(0)
    assert not hop.failed(PING)
    assert belief(hop, 3.0).in_flight[0] == 0
    assert belief(hop, 3.0).stalled_s[0] == 0.0


def test_what_failed_behind_the_middle_server_is_the_second_hops():
    hop = FurtherHop(WORLD)
    sent(hop, 0, 1.0)
    hop.passed_on(0)
    assert hop.failed(0)
    assert belief(hop, 3.0).in_flight[0] == 1


def test_a_hop_that_is_gone_for_long_takes_no_memory():
    hop = FurtherHop(WORLD)
    for k in range(1000):
        hop.asks_for_probe(-k, float(k))
        hop.answered(-k, k + 0.1, None, None)
    assert max(len(value) for value in vars(hop).values() if isinstance(value, dict)) <= WORLD.window


def test_an_answer_that_overtakes_does_not_make_later_ones_forgotten():
    hop = FurtherHop(WORLD)
    for key, now_s in enumerate((1.0, 1.1, 1.2)):
        sent(hop, key, now_s)
    hop.answered(1, 1.3, timing(0.01, 0.02), None)
    assert belief(hop, 1.3).in_flight[0] == 1, "the first is lost or overtaken, the third is under way"


def test_one_foreseen_too_late_does_not_make_others_forgotten():
    hop = FurtherHop(WORLD)
    hop.sent(0, 1.0, 5.0, Settled(2000.0))  # it was believed that the first hop has a long queue
    sent(hop, 1, 1.1)
    hop.answered(0, 1.12, timing(0.01, 0.02), None)
    assert belief(hop, 1.2).in_flight[0] == 1


def test_a_device_with_one_hop_asks_for_no_probe_of_another():
    links = LinkKnowledge(WORLD, 1, np.random.default_rng(0))
    assert len(links.messages()) == 1
    assert not links.greeting(0.0, timed=True).probe_next
    assert not links.sent(0, 100.0, Settled(2000.0))
    assert links.passed_on(0, 100.1, ServerTiming(0.0, 0.0, 0.0)) is None
    assert links.answered(0, 100.1, Reply(np.zeros(3, np.float32), ServerTiming(0.05, 0.0, 0.0))) is not None
    links.failed(1, 100.2, "reset")
    assert links.breaker.blocked


def test_a_failure_beyond_the_middle_server_leaves_the_breaker_closed():
    links = LinkKnowledge(WORLD, 2, np.random.default_rng(0))
    assert not links.sent(0, 1.0, Settled(2000.0), [Ahead(1.1, Settled(2000.0))])
    assert links.passed_on(0, 1.2, ServerTiming(0.05, 0.0, 0.001)) is not None
    links.failed(0, 1.5, "unavailable")
    assert not links.breaker.blocked
    assert links.sent(1, 2.0, Settled(2000.0)), "nothing crossed the second hop for a second"
