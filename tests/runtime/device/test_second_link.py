"""What a device learns of the link behind the edge server, as tables of events."""

import numpy as np
import pytest

from tidesplit.envs.world.belief import believe
from tidesplit.envs.world.physics import World
from tidesplit.runtime.device.second_link import SecondLink
from tidesplit.runtime.wire.answers import HopTimes, NextTiming
from tidesplit.runtime.wire.estimator import Settled

WORLD = World()
PING = -1  # the key of a message that is no frame


def belief(link, now_s):
    return believe(link.transfers(), np.array([now_s]), WORLD.usual_onward_rtt_s)


def onward(uplink_s, rtt_s):
    return NextTiming(uplink_s + rtt_s + 0.005, 0.0, 0.005, uplink_s, rtt_s)


def sent(link, key, now_s, payload=2000.0):
    link.sent(key, now_s, now_s, Settled(payload))


def test_a_frame_that_went_on_tells_pace_and_round_trip():
    link = SecondLink(WORLD)
    sent(link, 0, 1.0)
    assert belief(link, 1.01).in_flight[0] == 1
    assert link.passed_on(0)
    assert not link.passed_on(0), "once is enough"
    assert link.answered(0, 1.1, onward(0.02, 0.03), None)
    told = belief(link, 1.2)
    assert told.in_flight[0] == 0
    assert told.goodput[0] == pytest.approx(100_000.0)
    assert told.rtt_s[0] == pytest.approx(0.03)


def test_a_probe_is_wanted_after_silence_alone_which_begins_when_a_message_leaves():
    link = SecondLink(WORLD)
    assert link.asks_for_probe(PING, 0.0)
    assert not link.asks_for_probe(PING, 0.4)
    assert link.asks_for_probe(PING, 0.6)
    link.sent(0, 1.2, 9.0, Settled(2000.0))  # ready for the second link much later, since the first one stalls
    assert link.asks_for_probe(PING, 1.8)


def test_the_outcome_of_a_probe_comes_with_a_later_answer():
    link = SecondLink(WORLD)
    link.asks_for_probe(PING, 0.0)
    link.answered(PING, 0.05, None, None)
    assert belief(link, 0.1).in_flight[0] == 1
    link.answered(
        1, 0.2, None, HopTimes(1000.0, 0.010, 0.02, 0.1)
    )  # somebody else's message told as much, of other bytes
    assert belief(link, 0.2).in_flight[0] == 0
    assert belief(link, 0.2).goodput[0] == pytest.approx(100_000.0)


@pytest.mark.parametrize("age_s", [0.7, 3600.0])
def test_what_crossed_before_a_probe_was_asked_for_is_not_its_outcome(age_s):
    link = SecondLink(WORLD)
    link.asks_for_probe(PING, 0.7)
    link.answered(PING, 0.8, None, HopTimes(WORLD.probe_bytes, 0.01, 0.02, age_s))
    assert belief(link, 0.8).in_flight[0] == 1
    link.answered(1, 0.9, None, HopTimes(WORLD.probe_bytes, 0.01, 0.02, 0.05))
    assert belief(link, 0.9).in_flight[0] == 0


def test_a_link_that_fails_stalls_until_something_crosses_again():
    """A frame that the edge server had to answer by itself says nothing good of the link."""
    link = SecondLink(WORLD)
    sent(link, 0, 1.0)
    link.answered(0, 1.3, None, None)
    link.asks_for_probe(PING, 2.0)
    link.asks_for_probe(PING - 1, 3.0)
    assert belief(link, 3.1).in_flight[0] == 3
    assert belief(link, 3.1).stalled_s[0] > 1.0
    link.answered(PING - 1, 3.2, None, HopTimes(WORLD.probe_bytes, 0.01, 0.02, 0.05))
    assert belief(link, 3.2).in_flight[0] == 0


def test_what_the_first_link_lost_is_no_fault_of_the_second():
    link = SecondLink(WORLD)
    sent(link, 0, 1.0)
    assert link.asks_for_probe(PING, 1.6)
    assert not link.failed(0)
    assert not link.failed(PING)
    assert belief(link, 3.0).in_flight[0] == 0
    assert belief(link, 3.0).stalled_s[0] == 0.0


def test_what_failed_behind_the_edge_server_is_the_second_links():
    link = SecondLink(WORLD)
    sent(link, 0, 1.0)
    link.passed_on(0)
    assert link.failed(0)
    assert belief(link, 3.0).in_flight[0] == 1


def test_a_link_that_is_gone_for_long_takes_no_memory():
    link = SecondLink(WORLD)
    for k in range(1000):
        link.asks_for_probe(-k, float(k))
        link.answered(-k, k + 0.1, None, None)
    assert max(len(value) for value in vars(link).values() if isinstance(value, dict)) <= WORLD.window


def test_an_answer_that_overtakes_does_not_make_later_ones_forgotten():
    link = SecondLink(WORLD)
    for key, now_s in enumerate((1.0, 1.1, 1.2)):
        sent(link, key, now_s)
    link.answered(1, 1.3, onward(0.01, 0.02), None)
    assert belief(link, 1.3).in_flight[0] == 1, "the first is lost or overtaken, the third is under way"


def test_one_foreseen_too_late_does_not_make_others_forgotten():
    link = SecondLink(WORLD)
    link.sent(0, 1.0, 5.0, Settled(2000.0))  # it was believed that the first link has a long queue
    sent(link, 1, 1.1)
    link.answered(0, 1.12, onward(0.01, 0.02), None)
    assert belief(link, 1.2).in_flight[0] == 1
