"""The device's streams as tables: when a payload is a key, and how old each reference is."""

from __future__ import annotations

import math

import pytest

from tidesplit.runtime.core.sent_streams import FORGOTTEN_S, LONGEST_S, SentStreams
from tidesplit.runtime.wire.stream_place import StreamPlace

PERIOD_S = 1.0 / 32.0


class Course:
    """Frames of period 1/32 s. An answer, if it fails, fails 0.1 s after its message was sent."""

    def __init__(self) -> None:
        self.streams, self.frame = SentStreams(("p3", "p0-h264-q34"), PERIOD_S), 0

    @property
    def now_s(self) -> float:
        return self.frame * PERIOD_S

    def pause(self, seconds: float) -> None:
        self.frame += round(seconds / PERIOD_S)

    def send(self, name: str = "p3") -> StreamPlace:
        self.frame += 1
        return self.streams.send(name, self.now_s, self.now_s)

    def ages(self) -> list[float]:
        """Of the frame that comes next."""
        at_s = self.now_s + PERIOD_S
        return self.streams.ages(at_s, at_s)

    def hold_s(self) -> float:
        """Time until the next payload is relative. A key is sent every frame."""
        begun_s = self.now_s
        while self.send().key:
            pass
        return self.now_s - begun_s

    def breaks(self, unknown: bool = True) -> None:
        self.streams.failed(self.now_s, self.now_s + 0.01, unknown)


def test_the_reference_is_the_last_payload_that_was_sent() -> None:
    course = Course()
    assert course.ages() == [math.inf, math.inf]
    assert [course.send() for _ in range(3)] == [StreamPlace("p3", 0), StreamPlace("p3", 1, 0), StreamPlace("p3", 2, 1)]
    assert course.send("p0-h264-q34") == StreamPlace("p0-h264-q34", 0)
    assert course.ages() == [2.0, 1.0]
    course.frame += 6  # frames that are not sent make the reference older
    assert course.ages() == [8.0, 7.0]
    assert course.send() == StreamPlace("p3", 3, 2)
    assert course.ages() == [1.0, 8.0]


def test_the_age_counts_pictures_that_a_camera_did_not_give() -> None:
    streams = SentStreams(("p3",), PERIOD_S)
    streams.send("p3", 1.0, 1.01)
    for arrival_s, age in ((1.0 + 0.4 * PERIOD_S, 1.0), (1.0 + 1.2 * PERIOD_S, 1.0), (1.0 + 3.1 * PERIOD_S, 3.0)):
        assert streams.ages(arrival_s, arrival_s) == [age]


def test_a_break_costs_one_key_a_stream() -> None:
    course = Course()
    course.send()
    course.send("p0-h264-q34")
    sent_s = []
    for _ in range(3):  # under way when the first of them fails
        course.send()
        sent_s.append(course.now_s)
    course.streams.failed(sent_s[0], course.now_s + 0.01)
    assert course.ages() == [math.inf, math.inf]
    assert course.send().key
    for at_s in sent_s[1:]:
        course.streams.failed(at_s, course.now_s + 0.01, reference_unknown=True)
    assert course.ages() == [1.0, math.inf]
    assert not course.send().key
    assert course.send("p0-h264-q34").key
    assert not course.send("p0-h264-q34").key


def test_a_key_that_fails_is_followed_by_another() -> None:
    course = Course()
    assert course.send().key
    course.breaks(unknown=False)
    assert course.send() == StreamPlace("p3", 1)
    course.breaks(unknown=False)
    assert course.send() == StreamPlace("p3", 2)
    assert course.send() == StreamPlace("p3", 3, 2)


def test_a_server_has_forgotten_a_stream_that_was_not_used_for_long() -> None:
    course = Course()
    course.send()
    course.pause(FORGOTTEN_S - 1.0)
    assert not course.send().key
    course.pause(FORGOTTEN_S + 1.0)
    assert course.ages()[0] == math.inf
    assert course.send().key


def test_streams_that_break_again_and_again_are_held_off_for_longer_and_longer() -> None:
    course, holds = Course(), []
    for _ in range(7):
        course.breaks()
        holds.append(course.hold_s())
    assert holds == pytest.approx([0.06, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0], rel=0.06)
    course.breaks()
    assert course.ages() == [math.inf, math.inf], "the policy sees keys for as long as it lasts"
    course.pause(LONGEST_S / 2)
    assert course.ages()[0] == math.inf


def test_the_memory_of_breaks_fades() -> None:
    course = Course()
    for _ in range(6):
        course.breaks()
        course.hold_s()
    course.pause(20.0)
    course.breaks()
    assert course.hold_s() == pytest.approx(4.0, rel=0.1)
    course.pause(60.0)
    course.breaks()
    assert course.hold_s() < 0.1


def test_a_link_that_fails_often_holds_nothing_off() -> None:
    course = Course()
    for _ in range(5):
        course.breaks(unknown=False)
        assert course.hold_s() < 0.1
