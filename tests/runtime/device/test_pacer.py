"""A paced device has one processor: a finish moves back the end of the work that it interrupts."""

from __future__ import annotations

import pytest

from tidesplit.runtime.device.pacer import Pacer


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("begins_s", "ends_s", "counts_s"),
    [
        (0.002, 0.012, 0.010),  # ended before the real work did: it counts in full
        (0.002, None, 0.028),  # still under way
        (None, None, 0.0),
    ],
)
def test_work_ends_later_by_the_time_of_finishes_since_it_began(begins_s, ends_s, counts_s):
    clock = Clock()
    pacer = Pacer(clock)
    begun_s, taken_s = clock.now_s, pacer.taken_s()
    if begins_s is not None:
        pacer.run_begins(begins_s)
    if ends_s is not None:
        clock.now_s = ends_s
        pacer.run_ends()
    clock.now_s = 0.030  # later than any end, so that nothing is slept
    assert pacer.head_end_s(begun_s, 0.0, taken_s) == pytest.approx(begun_s + counts_s)


def test_a_finish_before_the_work_does_not_count():
    clock = Clock()
    pacer = Pacer(clock)
    pacer.run_begins(0.0)
    clock.now_s = 0.010
    pacer.run_ends()
    assert pacer.head_end_s(clock.now_s, 0.0, pacer.taken_s()) == pytest.approx(0.010)
