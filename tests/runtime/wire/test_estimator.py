import numpy as np
import pytest

from tidesplit.envs.world.belief import believe
from tidesplit.runtime.wire.estimator import CLOCKS, Estimator, Settled, transfers_of


def server(sent_s, one_way_s, payload, rate, skew_s, busy_until=-np.inf):
    """The server's stamp of arrival over a serial link of `rate` bytes a second; its clock is `skew_s` ahead."""
    left_s = max(sent_s, busy_until) + payload / rate
    return left_s + one_way_s + skew_s, left_s


@pytest.mark.parametrize("skew_s", [0.0, -5000.0, 12345.678])
@pytest.mark.parametrize("rate", [50_000.0, 1_000_000.0])
def test_pace_and_round_trip_are_found_whatever_the_servers_clock_says(skew_s, rate):
    estimator, left_s = Estimator(8), -np.inf
    for k in range(40):
        now_s, payload = 0.1 * k, 700.0 + 150.0 * (k % 5)
        estimator.sent(k, now_s, Settled(payload, tail_s=0.010))
        received_s, left_s = server(now_s, 0.03, payload, rate, skew_s, left_s)
        estimator.answered(k, left_s + 0.06 + 0.012, received_s, 0.002)
    link = believe(transfers_of(estimator.rows()), np.array([4.1]), 0.06)
    assert link.hop.rtt_s[0] == pytest.approx(0.06, abs=0.002 + 700 / rate * 0.1)
    assert link.hop.goodput[0] == pytest.approx(rate, rel=0.25)
    assert link.server_wait_s[0] == pytest.approx(0.002)
    assert link.hop.in_flight[0] == 0


def test_time_spent_behind_earlier_messages_is_not_the_messages_own():
    estimator, left_s, took = Estimator(8), -np.inf, []
    estimator.sent(-1, -1.0, Settled(100.0))
    received_s, _ = server(-1.0, 0.03, 100.0, 10_000.0, 7.0)
    estimator.answered(-1, -0.9, received_s, 0.0)
    for k in range(4):  # all at once: each leaves after those before it
        estimator.sent(k, 0.0, Settled(1000.0))
    for k in range(4):
        received_s, left_s = server(0.0, 0.03, 1000.0, 10_000.0, 7.0, left_s)
        took.append(estimator.answered(k, left_s + 0.06, received_s, 0.0)[0])
    assert took == pytest.approx([0.1] * 4, abs=0.011)


def test_a_server_slower_than_its_profile_makes_the_round_trip_longer():
    """So that a point's foreseen latency, round trip and profile together, is what answers really take."""
    estimator = Estimator(8)
    for k in range(2):
        estimator.sent(k, 0.1 * k, Settled(100.0, tail_s=0.010))
        estimator.answered(k, 0.1 * k + 0.060 + 0.018, 0.1 * k + 0.030, 0.0)
    told = believe(transfers_of(estimator.rows()), np.array([1.0]), 0.06)
    assert told.hop.rtt_s[0] == pytest.approx(0.068, abs=0.001)


@pytest.mark.parametrize("jump_s", [1e6, -1e6])
def test_a_server_whose_clock_jumps_is_believed_again(jump_s):
    """Another machine took over, say, whose clock began at another time."""
    estimator, left_s = Estimator(8), -np.inf
    for k in range(1200):
        now_s = 0.1 * k
        estimator.sent(k, now_s, Settled(5000.0 if k % 2 else 500.0))
        received_s, left_s = server(now_s, 0.03, 5000.0 if k % 2 else 500.0, 100_000.0, jump_s * (k > 100), left_s)
        timed = estimator.answered(k, left_s + 0.06, received_s, 0.0)
    assert timed[0] == pytest.approx(0.05, abs=0.01)


def test_a_message_that_did_not_wait_is_not_relieved_of_what_others_wait():
    estimator = Estimator(8)
    estimator.sent(0, 0.0, Settled(100.0))
    estimator.answered(0, 0.060, 0.030, 0.020, waited=False)
    told = believe(transfers_of(estimator.rows()), np.array([1.0]), 0.06)
    assert told.hop.rtt_s[0] == pytest.approx(0.060, abs=0.001)
    assert told.server_wait_s[0] == pytest.approx(0.020)


def test_unanswered_messages_are_in_flight_until_forgotten():
    estimator = Estimator(8)
    for k in range(3):
        estimator.sent(k, 0.1 * k, Settled(500.0))
    estimator.answered(0, 0.2, 0.05, 0.0)
    assert estimator.unanswered == 2
    assert believe(transfers_of(estimator.rows()), np.array([1.0]), 0.06).hop.in_flight[0] == 2
    estimator.forget_unanswered()
    assert believe(transfers_of(estimator.rows()), np.array([1.0]), 0.06).hop.in_flight[0] == 0


def test_only_the_last_window_is_kept_and_a_later_answer_ignored():
    estimator = Estimator(4)
    for k in range(6):
        estimator.sent(k, float(k), Settled(500.0))
    assert estimator.answered(0, 6.0, 0.1, 0.0) is None
    assert transfers_of(estimator.rows()).sent_s[0].tolist() == [5.0, 4.0, 3.0, 2.0]
    assert Estimator(4).last_sent_s == -np.inf


@pytest.mark.parametrize("jump_s", [0.5, 1e6, -1e6])
def test_ten_messages_after_a_jump_of_the_servers_clock_the_link_is_known_again(jump_s):
    estimator, left_s = Estimator(8), -np.inf
    for k in range(112):
        now_s, payload = 0.1 * k, 5000.0 if k % 2 else 500.0
        estimator.sent(k, now_s, Settled(payload))
        received_s, left_s = server(now_s, 0.03, payload, 100_000.0, jump_s * (k > 100), left_s)
        estimator.answered(k, left_s + 0.06, received_s, 0.0)
    link = believe(transfers_of(estimator.rows()), np.array([11.2]), 0.06).hop
    assert link.goodput[0] == pytest.approx(100_000.0, rel=0.25)
    assert link.rtt_s[0] == pytest.approx(0.06, abs=0.01)


def test_two_servers_whose_machines_started_at_other_times_do_not_disturb_each_other():
    """A balancer sends each message to the one or the other. Pace and round trip are those of one server."""
    found = []
    for skews in ((5.0, 5.0), (5.0, 900_000.0)):
        estimator, left_s, timed = Estimator(8), -np.inf, []
        for k in range(60):
            now_s, payload, which = 0.1 * k, 700.0 + 150.0 * (k % 5), k // 3 % 2
            estimator.sent(k, now_s, Settled(payload))
            received_s, left_s = server(now_s, 0.03, payload, 50_000.0, skews[which], left_s)
            timed.append(estimator.answered(k, left_s + 0.06, received_s, 0.0, clock=1.0 + which))
        found.append(np.array(timed[30:]))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    uplink_s = np.array([(700.0 + 150.0 * (k % 5)) / 50_000.0 for k in range(30, 60)])
    np.testing.assert_allclose(found[1][:, 0], uplink_s, atol=0.004)


def test_few_clocks_are_remembered():
    estimator = Estimator(4)
    for k in range(100):
        estimator.sent(k, 0.1 * k, Settled(100.0))
        estimator.answered(k, 0.1 * k + 0.05, 7.0 * k, 0.0, clock=float(k))
    assert len(estimator._offsets) == CLOCKS
