"""The radio's energy by hand: promotion, sending, tail, and the sum over a sequence as the integral of its timeline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.envs import three
from tests.envs.small import BYTES_PER_S, CUT, IMAGE, LOCAL, WORLD, play, queued
from tidesplit.envs.world.radio import LTE, WIRED, Radio

# Watts: waking 2, awake 1, sending 5; and 1 J for each 100 kB
ROUND = Radio(promotion_s=0.25, promotion_w=2.0, tail_s=10.0, tail_w=1.0, sending_w=5.0, joules_per_byte=1e-5)


def one(value: float) -> np.ndarray:
    return np.array([value])


def test_an_isolated_message_pays_for_promotion_and_the_whole_tail() -> None:
    """Ready at 100 s, awake from 100.25, sends for 2 s, and is awake until 112.25."""
    joules = ROUND.joules(one(100.0), one(100.25), one(102.25), one(50_000.0), one(20.0))
    assert joules == pytest.approx([0.25 * 2.0 + 2.0 * 5.0 + 10.0 * 1.0 + 0.5])


# Ready, first byte, last byte, awake until: the first wakes the radio, the second waits for the link behind the first,
# the third comes in its tail, and the last finds the radio asleep.
SEQUENCE = [(5.0, 5.25, 6.0), (5.5, 6.0, 7.0), (12.0, 12.0, 12.5), (40.0, 40.25, 40.5)]


def test_the_sum_of_a_sequence_is_the_integral_of_its_timeline() -> None:
    awake_s, summed = 0.0, 0.0
    for ready_s, begun_s, left_s in SEQUENCE:
        summed += ROUND.joules(one(ready_s), one(begun_s), one(left_s), one(1000.0), one(awake_s))[0]
        awake_s = left_s + ROUND.tail_s
    moment_s = np.arange(0.0, 60.0, 0.001) + 0.0005
    watts = np.zeros_like(moment_s)
    watts[((moment_s > 5.0) & (moment_s < 22.5)) | ((moment_s > 40.0) & (moment_s < 50.5))] = ROUND.tail_w
    for ready_s in (5.0, 40.0):
        watts[(moment_s > ready_s) & (moment_s < ready_s + 0.25)] = ROUND.promotion_w
    for _, begun_s, left_s in SEQUENCE:
        watts[(moment_s > begun_s) & (moment_s < left_s)] = ROUND.sending_w
    assert summed == pytest.approx(watts.sum() * 0.001 + 4 * 1000.0 * ROUND.joules_per_byte, rel=1e-6)


def test_lte_costs_what_was_measured() -> None:
    """Huang et al.: 12.3 J of tail and 0.3 J of promotion around a message of a few bytes."""
    joules = LTE.joules(one(100.0), one(100.2601), one(100.2601), one(0.0), one(0.0))
    assert joules == pytest.approx([0.2601 * 1.2107 + 11.576 * 1.060])


def test_a_wire_costs_nothing() -> None:
    assert WIRED.joules(one(5.0), one(6.0), one(9.0), one(1e6), one(0.0)) == pytest.approx([0.0])


def test_a_sleeping_radio_wakes_first() -> None:
    """The cut is ready after 20 ms, and its bytes take 10 ms on the link."""
    world = replace(WORLD, radio=ROUND)
    queues, outcome, (crossing,) = play(CUT, world=world, queues=queued(awake_s=0.0199))
    assert crossing.left_s == pytest.approx([0.020 + 0.25 + 0.010])
    assert outcome.radio_j == pytest.approx([0.25 * 2.0 + 0.010 * 5.0 + 10.0 * 1.0 + 0.01])
    assert queues.hops[0].awake_s == pytest.approx([10.280])
    _, outcome, (crossing,) = play(CUT, world=world, queues=queued(awake_s=0.0201))
    assert crossing.left_s == pytest.approx([0.030])
    assert outcome.radio_j == pytest.approx([(0.030 + 10.0 - 0.0201) * 1.0 + 0.010 * 4.0 + 0.01])


def test_a_frame_that_stays_on_the_device_leaves_the_radio_as_it_is() -> None:
    queues, outcome, _ = play(LOCAL, queues=queued(awake_s=3.0))
    assert (outcome.radio_j[0], queues.hops[0].awake_s[0]) == (0.0, 3.0)


def test_only_the_first_hop_has_a_radio() -> None:
    world = replace(three.WORLD, radio=ROUND)
    _, alone, _ = three.play(three.IMAGE, world=world, queues=three.queued(awake_s=1.0))
    queues, both, _ = three.play(three.IMAGE_ON, world=world, queues=three.queued(awake_s=1.0))
    assert both.radio_j == pytest.approx(alone.radio_j)
    assert both.radio_j[0] > 0.0
    assert queues.hops[1].awake_s == pytest.approx(queues.hops[1].free_s)


# moment at which the link is free -> uplink time of the cut, which is ready after 20 ms and takes 10 on the link
@pytest.mark.parametrize(("free_s", "uplink_s"), [(0.0, 0.019), (0.0199, 0.019), (0.025, 0.015)])
def test_a_grant_delays_only_what_finds_the_link_idle(free_s: float, uplink_s: float) -> None:
    _, outcome, _ = play(CUT, world=replace(WORLD, grant_s=0.009), queues=queued(link_free_s=free_s))
    assert outcome.hops[0].uplink_s == pytest.approx([uplink_s])


def test_one_after_the_other_the_tail_is_paid_once() -> None:
    """Ten pictures a second: the tail of one message reaches far into the next, and only the time between is paid."""
    queues, summed = queued(awake_s=0.0), 0.0
    world = replace(WORLD, radio=ROUND, idle_s=1e9)
    for k in range(100):
        queues, outcome, (crossing,) = play(IMAGE, arrival_s=1.0 + k / 10, queues=queues, world=world)
        summed += outcome.radio_j[0]
    sending_s, awake_s = 100 * 4000 / BYTES_PER_S, crossing.left_s[0] + ROUND.tail_s - 1.010
    expected = awake_s * ROUND.tail_w + sending_s * 4.0 + 0.25 * 1.0 + 100 * 4000 * ROUND.joules_per_byte
    assert summed == pytest.approx(expected)
