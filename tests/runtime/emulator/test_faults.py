"""Faults as text, and the conditions that a script of them makes."""

from __future__ import annotations

import math

import pytest

from tidesplit.runtime.emulator.faults import KINDS, Conditions, Fault, FaultError, Script, help_text, parse, script

SOUND = Conditions()

GOOD = [
    ("blackhole@10+8", Fault("blackhole", 10.0, 18.0)),
    ("blackhole@10", Fault("blackhole", 10.0, math.inf)),
    ("reset@5", Fault("reset", 5.0, math.inf)),
    ("half-close@0.5", Fault("half-close", 0.5, math.inf)),
    ("latency@1.5+2.5=200", Fault("latency", 1.5, 4.0, 200.0)),
    ("bandwidth@0+3=0.25", Fault("bandwidth", 0.0, 3.0, 0.25)),
    (" slicer@0=7 ", Fault("slicer", 0.0, math.inf, 7.0)),
    ("slow-close@2+1=30", Fault("slow-close", 2.0, 3.0, 30.0)),
]

BAD = [
    ("blackhole", "expected KIND@START"),
    ("blackhole@-3", "expected KIND@START"),
    ("", "expected KIND@START"),
    ("flood@3", "no kind 'flood', expected one of latency"),
    ("reset@3+1", "takes a single moment"),
    ("blackhole@1.2.3", "expected KIND@START"),
    ("blackhole@1+.", "expected KIND@START"),
    ("latency@3", "got no value, expected =ms"),
    ("latency@3=1.2.3", "expected KIND@START"),
    ("blackhole@3=4", "got the value 4, expected none"),
    ("slicer@3=0", "got 0, expected 1 to 1448 (bytes)"),
]


@pytest.mark.parametrize(("text", "fault"), GOOD)
def test_text_is_read(text: str, fault: Fault) -> None:
    assert parse(text) == fault


@pytest.mark.parametrize(("text", "complaint"), BAD)
def test_mistakes_get_one_sentence_that_quotes_them(text: str, complaint: str) -> None:
    with pytest.raises(FaultError) as caught:
        parse(text)
    assert complaint in str(caught.value)
    assert f"fault '{text}'" in str(caught.value)


WORSENED = [
    ("latency@0=200", Conditions(extra_latency_s=0.2)),
    ("jitter@0=30", Conditions(jitter_s=0.03)),
    ("bandwidth@0=0.5", Conditions(bandwidth_factor=0.5)),
    ("blackhole@0", Conditions(dark=True)),
    ("slicer@0=100", Conditions(packet_bytes=100)),
    ("slow-close@0=40", Conditions(slow_close_s=0.04)),
    ("reset@0", SOUND),
    ("half-close@0", SOUND),
]


@pytest.mark.parametrize(("text", "conditions"), WORSENED)
def test_each_kind_changes_its_own_condition(text: str, conditions: Conditions) -> None:
    assert parse(text).worsens(SOUND) == conditions


def test_every_kind_is_tested_and_in_the_help() -> None:
    assert {parse(text).kind for text, _ in WORSENED} == set(KINDS)
    assert all(kind in help_text() for kind in KINDS)


def test_script_holds_from_start_to_just_before_its_end_and_adds_up() -> None:
    two = script(["latency@1+2=100", "latency@2+2=50", "reset@2", "blackhole@3.5+1"])
    seen = [two.conditions(time_s, SOUND) for time_s in (0.9, 1.0, 2.0, 3.0, 4.0, 4.5)]
    assert [round(one.extra_latency_s, 6) for one in seen] == [0.0, 0.1, 0.15, 0.05, 0.0, 0.0]
    assert [one.dark for one in seen] == [False, False, False, False, True, False]


def test_moments_and_strokes() -> None:
    two = script(["latency@1+2=100", "reset@2", "half-close@2"])
    moments, time_s = [], -1.0
    while (time_s := two.next_s(time_s)) < math.inf:
        moments.append(time_s)
    assert moments == [1.0, 2.0, 3.0]
    assert [two.strokes(moment) for moment in moments] == [[], ["reset", "half-close"], []]
    assert Script().next_s(0.0) == math.inf


@pytest.mark.parametrize("field", ["extra_latency_s", "jitter_s", "bandwidth_factor", "slow_close_s"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_conditions_refuse_impossible_values(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Conditions(**{field: value})
