"""The device's core as tables of events and actions: nothing sleeps."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.core.virtual import (
    CUT,
    CUT_RACE,
    FEATURE,
    LOCAL,
    LOGITS,
    OFFLOAD,
    PICTURE,
    RACE,
    TABLE,
    Course,
    Virtual,
)
from tidesplit.agents.rules.controllers import Static
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.table import Machine
from tidesplit.runtime.core import events as ev
from tidesplit.runtime.core.frame_life import LifeError
from tidesplit.runtime.core.sending import Failure, Reply
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.wire.answers import ServerTiming

DEMAND = Demand(fps=30, deadline_s=0.1)
ALL = (OFFLOAD, CUT, LOCAL, RACE, CUT_RACE)
OFFLOAD_ROW = TABLE.row(OFFLOAD)
POWERED = replace(TABLE, machine=Machine(idle_w=2.0, busy_w=5.0, threads=4))


def played(rows: str | tuple[str, ...], after_s: float = np.inf, frames: int = 30, **more: Any) -> list[Record]:
    """The records of a device whose server answers after `after_s`, or `fails` then."""
    fails = more.pop("fails", False)
    course = more.pop("course", Course(after_s=lambda: after_s, fails=lambda: fails))
    table = replace(TABLE, **{name: np.full(TABLE.size, value) for name, value in more.pop("columns", {}).items()})
    rows = (rows,) if isinstance(rows, str) else rows
    records = Virtual(rows, frames, course=course, table=table, **{"paced": True, "demand": DEMAND, **more}).play()
    assert [r.frame for r in records] == list(range(frames)), "each frame has exactly one end"
    return records


def ends(records: list[Record]) -> set[tuple[str, float]]:
    return {(r.answered_by, round(r.latency_s, 9)) for r in records}


LATENCY = replace(DEMAND, objective="latency")


@pytest.mark.parametrize(
    ("row", "after_s", "more", "expected"),
    [
        (RACE, np.inf, {}, ("device", 0.1)),
        (CUT_RACE, np.inf, {}, ("device", 0.1)),
        (RACE, 0.06, {}, ("server", 0.064)),
        (RACE, 0.005, {}, ("server", 0.009)),
        (RACE, 0.05, {"fails": True}, ("device", 0.054)),
        (RACE, 0.010, {"columns": {"accuracy": 0.5}}, ("device", 0.024)),
        (RACE, np.inf, {"demand": LATENCY}, ("device", 0.024)),
        (RACE, 0.005, {"demand": LATENCY}, ("server", 0.009)),
        (RACE, 0.05, {"demand": LATENCY}, ("device", 0.024)),
        (LOCAL, np.inf, {}, ("device", 0.020)),
        (OFFLOAD, 0.05, {}, ("server", 0.054)),
        (OFFLOAD, 0.01, {"fails": True}, ("device", 0.034)),
        (OFFLOAD, np.inf, {"columns": {"finish_s": np.inf}}, ("miss", 0.1)),
        (OFFLOAD, 0.2, {"columns": {"finish_s": np.inf}}, ("miss", 0.1)),
    ],
)
def test_who_answers_and_when(row: str, after_s: float, more: dict[str, Any], expected: tuple[str, float]) -> None:
    records = played(row, after_s, 10, **more)
    assert ends(records) == {expected}
    assert all(r.race == (row in (RACE, CUT_RACE)) for r in records)
    assert all((r.answer == "fox") == (expected[0] != "miss") for r in records)


def test_encoding_and_sending_never_wait_for_the_worker() -> None:
    """The worker has twice the work that it can do. Runs that could not end in time do not begin."""
    records = played(RACE, frames=60, columns={"finish_s": 0.066})
    assert [r.waited_s for r in records] == pytest.approx([0.0] * 60, abs=1e-9)
    assert [r.head_s for r in records] == pytest.approx([0.004] * 60)
    assert np.mean([r.answered_by == "device" for r in records]) == pytest.approx(0.5, abs=0.02)
    assert all((r.local_s is None) == (r.answered_by == "miss") for r in records)


def test_whole_nets_that_take_longer_than_a_period_are_dropped_at_their_turn() -> None:
    records = played(LOCAL, frames=60, columns={"head_s": 0.050})
    assert {r.answered_by for r in records if not r.dropped} == {"device"}
    assert np.mean([r.dropped for r in records]) == pytest.approx(1.0 - DEMAND.period_s / 0.050, abs=0.05)
    assert records[1].foreseen["local"] == 1.0


def test_a_cut_waits_until_the_worker_is_idle_and_a_picture_does_not() -> None:
    demand = Demand(fps=100, deadline_s=0.25)
    records = played((LOCAL, OFFLOAD, CUT), frames=3, demand=demand)
    whole, picture, cut = (r.arrival_s for r in records)
    assert (whole, picture, cut) == pytest.approx((0.0, 0.010, 0.020))
    assert records[0].latency_s == pytest.approx(0.020)
    assert records[1].head_s == pytest.approx(0.004)
    assert records[2].decided_at_s == pytest.approx(cut)
    waiting = played((LOCAL, CUT, OFFLOAD), frames=3, demand=demand)
    assert waiting[2].decided_at_s == pytest.approx(0.032), "after 20 ms of wait and 12 of head"


def test_a_run_that_fails_costs_only_its_frame() -> None:
    failing = iter([False, True])
    course = Course(run_fails=lambda: next(failing, False))
    records = played(RACE, frames=5, course=course)
    assert [r.answered_by for r in records] == ["device", "miss", "device", "device", "device"]
    assert records[1].error == "no memory"


@pytest.mark.parametrize(("paced", "slow_down"), [(False, 1.5), (True, 1.0)])
def test_only_an_unpaced_device_learns_from_its_runs(paced: bool, slow_down: float) -> None:
    course = Course(runs_s=lambda expected_s: 1.5 * expected_s)
    records = played(LOCAL, frames=15, course=course, paced=paced)
    assert records[0].state["slow_down"] == 1.0
    assert records[-1].state["slow_down"] == pytest.approx(slow_down)


def sent(row: str = RACE) -> Virtual:
    """A frame of which the bytes were sent, at 4 ms."""
    device = Virtual((row,))
    device._next_frame(0.0)
    while not any(isinstance(action, ev.SendFrame) for _, action in device.story):
        now_s, _, event = device._events.pop(0)
        device._handle(event(now_s), now_s)
    return device


ANSWER = ev.MessageAnswered(0.02, 0, Reply(LOGITS, ServerTiming(0.01, 0.0, 0.001)))
FAILURE = ev.MessageFailed(0.02, 0, 0.0, Failure("gone"))


@pytest.mark.parametrize(
    ("before", "event", "said"),
    [
        ([], ev.FrameDue(0.02, 0, PICTURE, 0.0), "frame 0 had its turn already"),
        ([], ev.HeadReady(0.02, 0), "frame 0 is racing: HeadReady is not allowed"),
        ([], ev.HeadDone(0.02, 0, b"", FEATURE), "frame 0 is racing: HeadDone is not allowed"),
        ([], ev.HeadReady(0.02, 1), "frame 1 has not had its turn"),
        ([], replace(ANSWER, key=1), "frame 1 has not had its turn"),
        ([FAILURE], ANSWER, "frame 0 is running: answered is not allowed"),
        ([FAILURE], FAILURE, "frame 0 is running: message failed is not allowed"),
        ([ANSWER], ev.HeadReady(0.03, 0), "frame 0 is over: HeadReady is not allowed"),
        ([], ev.RunEnded(0.02, 7, LOGITS), "frame 7 has no run under way: RunEnded is not allowed"),
        ([ev.FrameDue(0.02, 1, PICTURE, 0.02)], replace(ANSWER, key=1), "frame 1 is turn: MessageAnswered is not"),
    ],
)
def test_an_event_that_the_state_does_not_allow_is_named(before: list[ev.Event], event: ev.Event, said: str) -> None:
    core = sent().core
    for one in before:
        core.handle(one)
    with pytest.raises(LifeError, match=said):
        core.handle(event)


def test_news_of_a_frame_after_its_end_is_news_of_the_link() -> None:
    core = sent().core
    (settled,) = core.handle(ev.Tick(0.2))[:-1]
    assert isinstance(settled, ev.Settle)
    assert settled.record.answered_by == "miss"
    assert core.handle(replace(ANSWER, now_s=0.5)) == []
    assert 0.5 in [row[1] for row in core.beliefs.links.messages()[0]]
    assert [type(a) for a in core.handle(ev.RunEnded(0.5, 0, LOGITS))] == [ev.Wake]


def check(device: Virtual) -> None:
    """Each frame is settled once, no run begins after its deadline, and nothing is done for a settled frame."""
    device.play()
    over: set[int] = set()
    for _, action in device.story:
        if isinstance(action, ev.Settle):
            assert action.record.frame not in over
            over.add(action.record.frame)
        elif (number := getattr(action, "number", None)) is not None:
            assert number not in over, action
        if isinstance(action, ev.RunNet):
            assert action.begin_s <= action.number * device.demand.period_s + device.demand.deadline_s
    assert over == set(range(device.frames))
    assert not device.core.under_way


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans(), st.booleans(), st.sampled_from(["accuracy", "latency"]))
def test_whatever_the_order_of_events(chance: random.Random, paced: bool, guarded: bool, objective: Any) -> None:
    course = Course(
        after_s=lambda: chance.choice([0.0, 0.02, chance.uniform(0.0, 0.2), 1.9]),
        fails=lambda: chance.random() < 0.3,
        runs_s=lambda expected_s: expected_s * chance.choice([0.0, 1.0, 1.0, chance.uniform(0.3, 8.0)]),
        run_fails=lambda: chance.random() < 0.2,
        late_s=lambda: chance.choice([0.0, 0.0, chance.uniform(0.0, 0.08)]),
    )
    rows = chance.choices(ALL, k=12)
    demand = Demand(objective=objective, fps=chance.choice([10, 30, 60]), deadline_s=0.1)
    columns = {"accuracy": np.full(TABLE.size, 0.5)} if chance.random() < 0.5 else {}
    check(Virtual(rows, 12, demand, course, replace(TABLE, **columns), paced, guarded))


@pytest.mark.parametrize("fails", [False, True])
def test_the_radio_rests_where_it_brings_nothing(fails: bool) -> None:
    """After 45 s, for 30 s, then for 60 s: the trial of four seconds shows nothing better. Mostly it is asleep then.

    Answers are late, or the link is broken: then the breaker's probes wait for the end of the rest.
    """
    fps = 5.0
    demand = Demand(fps=fps, deadline_s=0.1, max_watts=3.0)
    course = Course(after_s=lambda: 0.3, fails=lambda: fails)
    more: dict[str, Any] = {"course": course, "table": POWERED, "controller": Static("offload", OFFLOAD_ROW)}
    device = Virtual((OFFLOAD,), 800, demand, **more)
    records = device.play()
    begun = [n / fps for n, (old, new) in enumerate(pairwise(records), 1) if new.resting and not old.resting]
    ended = [n / fps for n, (old, new) in enumerate(pairwise(records), 1) if old.resting and not new.resting]
    assert begun == pytest.approx([45.0, 79.0, 143.0], abs=1.0)
    assert ended == pytest.approx([75.0, 139.0], abs=1.0)
    resting = [record for record in records if record.resting]
    assert not any(record.mask[OFFLOAD_ROW] or record.sent_bytes for record in resting)
    assert len([one for one in resting if one.state["awake_s"] == 0.0]) > 0.6 * len(resting)
    sent_s = [at_s for at_s, action in device.story if isinstance(action, ev.SendProbe)]
    assert not any(begin + 1.0 < at_s < end - 1.0 for at_s in sent_s for begin, end in zip(begun, ended, strict=False))
    assert not any(record.resting for record in Virtual((OFFLOAD,), 400, demand, rests=False, **more).play())
