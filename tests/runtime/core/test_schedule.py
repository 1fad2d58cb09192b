import math
from types import SimpleNamespace

import numpy as np
import pytest

from tidesplit.envs.world.vocabulary import Demand
from tidesplit.runtime.core.frame_life import Happening, Lives
from tidesplit.runtime.core.schedule import End, Flight, Schedule, flight_of

INF = math.inf
DEMAND = Demand(fps=30, deadline_s=0.1)


def started(*flights, makes_good_s=0.0):
    """A schedule of frames that were sent."""
    lives = Lives()
    schedule = Schedule(lives, makes_good_s)
    for flight in flights:
        lives.begin(flight.number)
        lives.after(flight.number, Happening.ENCODED_NEXT)
        lives.after(flight.number, Happening.SENT)
        schedule.begin(flight)
    return schedule


def played(flight, *events, took=0.02):
    """What becomes of one frame: events in order of time, as the device's threads would deliver them.

    The runs that begin take `took`; the story has their begins and the frame's end.
    """
    schedule, story, ran = started(flight), [], []
    waiting = sorted(events)
    while schedule.under_way:
        at_s = min(
            schedule.next_run_s() if not ran else INF, *ran, schedule.next_deadline_s(), *(t for t, _ in waiting)
        )
        end = None
        if waiting and waiting[0][0] == at_s:
            kind = waiting.pop(0)[1]
            end = schedule.answered(7, at_s) if kind == "answer" else schedule.lost(7, at_s)
        elif ran and ran[0] == at_s:
            end = schedule.ran(7, ran.pop(), good=took < 1.0)
        elif schedule.take(at_s) is not None:
            story.append(("run", round(at_s, 6)))
            ran.append(at_s + (took if took < 1.0 else 0.01))
        else:
            end = schedule.expired(at_s)
        if end is not None:
            story.append((end.by, round(end.at_s, 6)))
    return story


FALLBACK = Flight(7, 0.1, 0.06, 0.03)
NO_FALLBACK = Flight(7, 0.1)
IMMINENT = Flight(7, 0.1, INF, 0.03)  # an answer is foreseen between the fallback's begin and the deadline
RACE = Flight(7, 0.1, 0.01, 0.03, "server")
BETTER_HERE = Flight(7, 0.1, 0.01, 0.03, "device")
FIRST = Flight(7, 0.1, 0.01, 0.03)  # a race for the objective "latency", or a whole net
HOPELESS = Flight(7, 0.1, 0.01, 0.095, "server")
FAILS = 9.0


@pytest.mark.parametrize(
    ("flight", "events", "story"),
    [
        (NO_FALLBACK, [(0.05, "answer")], [("server", 0.05)]),
        (NO_FALLBACK, [], [("miss", 0.1)]),
        (NO_FALLBACK, [(0.12, "answer")], [("miss", 0.1)]),
        (NO_FALLBACK, [(0.02, "lost")], [("miss", 0.1)]),
        (FALLBACK, [(0.05, "answer")], [("server", 0.05)]),
        (FALLBACK, [(0.07, "answer")], [("run", 0.06), ("server", 0.07)]),
        (FALLBACK, [], [("run", 0.06), ("device", 0.08)]),
        (FALLBACK, [(0.02, "lost")], [("run", 0.02), ("device", 0.04)]),
        (FALLBACK, [(0.07, "lost")], [("run", 0.06), ("device", 0.08)]),
        (FALLBACK, [(0.03, "answer"), (0.04, "answer")], [("server", 0.03)]),
        (IMMINENT, [(0.02, "lost")], [("run", 0.02), ("device", 0.04)]),
        (IMMINENT, [], [("miss", 0.1)]),
        (RACE, [], [("run", 0.01), ("device", 0.1)]),
        (RACE, [(0.02, "answer")], [("run", 0.01), ("server", 0.02)]),
        (RACE, [(0.09, "answer")], [("run", 0.01), ("server", 0.09)]),
        (RACE, [(0.11, "answer")], [("run", 0.01), ("device", 0.1)]),
        (RACE, [(0.005, "answer")], [("server", 0.005)]),
        (RACE, [(0.005, "lost")], [("run", 0.005), ("device", 0.025)]),
        (RACE, [(0.02, "lost")], [("run", 0.01), ("device", 0.03)]),
        (RACE, [(0.05, "lost")], [("run", 0.01), ("device", 0.05)]),
        (BETTER_HERE, [], [("run", 0.01), ("device", 0.03)]),
        (BETTER_HERE, [(0.02, "answer")], [("run", 0.01), ("device", 0.03)]),
        (BETTER_HERE, [(0.005, "answer")], [("server", 0.005)]),
        (FIRST, [(0.02, "answer")], [("run", 0.01), ("server", 0.02)]),
        (FIRST, [(0.04, "answer")], [("run", 0.01), ("device", 0.03)]),
        (HOPELESS, [], [("miss", 0.1)]),
        (HOPELESS, [(0.02, "lost")], [("miss", 0.1)]),
    ],
)  # fmt: skip
def test_every_frame_ends_once(flight, events, story):
    assert played(flight, *events) == story


@pytest.mark.parametrize(
    ("flight", "events", "story"),
    [
        (RACE, [], [("run", 0.01), ("miss", 0.1)]),
        (RACE, [(0.05, "answer")], [("run", 0.01), ("server", 0.05)]),
        (BETTER_HERE, [(0.015, "answer")], [("run", 0.01), ("server", 0.02)]),
        (FIRST, [(0.015, "lost")], [("run", 0.01), ("miss", 0.1)]),
    ],
)
def test_a_run_that_fails_leaves_the_frame_to_the_server(flight, events, story):
    assert played(flight, *events, took=FAILS) == story


@pytest.mark.parametrize(
    ("flight", "events", "end"),
    [(RACE, [], ("miss", 0.1)), (RACE, [(0.05, "answer")], ("server", 0.05)),
     (BETTER_HERE, [(0.05, "answer")], ("server", 0.1)), (FIRST, [], ("miss", 0.1))],
)  # fmt: skip
def test_a_run_that_ends_after_the_deadline_does_not_count(flight, events, end):
    assert played(flight, *events, took=0.2) == [("run", 0.01), end]


def test_an_answer_after_the_deadline_is_as_good_as_none():
    """The timekeeper may come later than the answer."""
    held, local = started(RACE), started(Flight(7, 0.1, 0.08, 0.03))
    held.take(0.01)
    assert held.ran(7, 0.04) is None
    assert held.answered(7, 0.101) == End(7, "device", 0.1)
    assert local.answered(7, 0.101) is None
    assert local.take(0.101) is None, "it could not end in time"
    assert local.expired(0.102) == End(7, "miss", 0.1)


def test_runs_go_one_after_the_other_in_the_order_in_which_they_fall_due():
    fallback, race = Flight(0, 0.30, 0.05, 0.04), Flight(1, 0.30, 0.02, 0.04, "server")
    schedule = started(fallback, race, Flight(2, 0.15, 0.03, 0.04), Flight(3, 0.30, 0.03, 0.04))
    assert schedule.idle(0.01)
    assert schedule.busy_s(0.01) == 0.0
    assert not schedule.idle(0.02)
    assert schedule.take(0.02).number == 1
    assert schedule.take(0.05) is None, "one at a time"
    assert schedule.busy_s(0.04) == pytest.approx(0.02 + 0.04 + 0.04)
    assert schedule.busy_s(0.05) == pytest.approx(0.01 + 0.04 + 0.04 + 0.04), "the fallback is due now"
    assert schedule.ran(1, 0.12) is None
    assert schedule.take(0.12).number == 3, "the second cannot end by its deadline any more"
    assert schedule.busy_s(0.17) == pytest.approx(0.04), "it is believed to end at any moment"
    assert schedule.ran(3, 0.18) == End(3, "device", 0.18)
    assert schedule.take(0.18).number == 0
    assert schedule.ran(0, 0.22) == End(0, "device", 0.22)
    assert schedule.idle(0.22)
    assert [schedule.expired(0.4), schedule.expired(0.4)] == [End(2, "miss", 0.15), End(1, "device", 0.30)]
    assert schedule.expired(9.0) is None
    assert schedule.take(9.0) is None
    assert not schedule.under_way


def test_a_paced_device_makes_good_a_little_lateness():
    flights = [Flight(number, 1.0, due_s, 0.02) for number, due_s in enumerate((0.1, 0.1, 0.3))]
    schedule = started(*flights, makes_good_s=0.05)
    begins = []
    for now_s in (0.104, 0.123, 0.36):
        run = schedule.take(now_s)
        begins.append(run.begin_s)
        schedule.ran(run.number, run.begin_s + 0.02)
    assert begins == pytest.approx([0.1, 0.12, 0.36])
    assert schedule.free_s == pytest.approx(0.38)


@pytest.mark.parametrize(("better", "end"), [(None, End(0, "device", 0.1)), ("server", End(0, "device", 0.1))])
def test_a_paced_device_waits_for_a_run_that_ends_in_time_on_the_emulated_one(better, end):
    schedule = started(Flight(0, 0.1, 0.08, 0.02, better), makes_good_s=0.05)
    assert schedule.next_deadline_s() == 0.1
    schedule.take(0.08)
    assert schedule.next_deadline_s() == pytest.approx(0.15)
    assert schedule.expired(0.104) is None
    assert (schedule.ran(0, 0.1) or schedule.expired(0.105)) == end


def test_an_unpaced_device_waits_for_no_run():
    schedule = started(Flight(0, 0.1, 0.08, 0.02))
    schedule.take(0.08)
    assert schedule.expired(0.101) == End(0, "miss", 0.1)


def table(local=False, races=False, finish_s=0.03, accuracy=0.9, finish_accuracy=0.6):
    columns = {
        "local": local, "races": races, "head_s": 0.05, "finish_s": finish_s, "accuracy": accuracy,
        "finish_accuracy": finish_accuracy,
    }  # fmt: skip
    return SimpleNamespace(**{name: np.array([value]) for name, value in columns.items()})


def flight(of, end_s=0.02, foreseen_s=0.3, demand=DEMAND, slow_down=1.0):
    record = SimpleNamespace(frame=7, row=0, arrival_s=0.0, demand=demand, foreseen={"latency_s": foreseen_s})
    return flight_of(record, of, slow_down, end_s, 0.005)


@pytest.mark.parametrize(
    ("of", "more", "expected"),
    [
        (table(), {}, Flight(7, 0.1, 0.065, 0.03)),
        (table(), {"slow_down": 2.0}, Flight(7, 0.1, 0.035, 0.06)),
        (table(), {"end_s": 0.07}, Flight(7, 0.1, INF, 0.03)),  # the head ended too late for it
        (table(), {"foreseen_s": 0.09}, Flight(7, 0.1, INF, 0.03)),  # the answer is about to come
        (table(finish_s=INF), {}, Flight(7, 0.1)),
        (table(), {"demand": Demand(fps=30, deadline_s=0.1, min_accuracy=0.7)}, Flight(7, 0.1)),
        (table(races=True), {}, Flight(7, 0.1, 0.02, 0.03, "server")),
        (table(races=True), {"foreseen_s": 0.09}, Flight(7, 0.1, 0.02, 0.03, "server")),
        (table(races=True, finish_accuracy=0.9), {}, Flight(7, 0.1, 0.02, 0.03, "server")),
        (table(races=True, finish_accuracy=0.95), {}, Flight(7, 0.1, 0.02, 0.03, "device")),
        (
            table(races=True),
            {"demand": Demand(objective="latency", fps=30, deadline_s=0.1)},
            Flight(7, 0.1, 0.02, 0.03),
        ),
        (table(local=True, finish_s=INF), {"slow_down": 1.5}, Flight(7, 0.1, 0.02, 0.075)),
    ],
)
def test_the_flight_of_a_frame(of, more, expected):
    found = flight(of, **more)
    assert (found.number, found.better) == (expected.number, expected.better)
    assert (found.deadline_s, found.due_s, found.run_s) == pytest.approx(
        (expected.deadline_s, expected.due_s, expected.run_s)
    )
