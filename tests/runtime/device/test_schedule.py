import math

import pytest

from tidesplit.envs.world.vocabulary import Demand
from tidesplit.runtime.device.schedule import Flight, Schedule, due_s, too_late

INF = math.inf
DEMAND = Demand(fps=30, deadline_s=0.1)


def played(flight, answers, lost=()):
    """What becomes of one frame: events in order of time, as the edge's threads would deliver them."""
    schedule, story = Schedule(), []
    schedule.sent(flight)
    events = sorted([(t, "answer") for t in answers] + [(t, "lost") for t in lost])
    now = 0.0
    while schedule.under_way:
        event = events[0] if events else (INF, "")
        if event[0] <= schedule.next_s():
            now, kind = events.pop(0)
            if kind == "answer":
                schedule.settle(flight.number)
                story.append(("answered", now))
            else:
                schedule.lost(flight.number, now, finishes=math.isfinite(flight.due_s))
        else:
            now = schedule.next_s()
            task = schedule.take(now)
            story.append((task.kind, now))
            if task.kind == "miss":
                assert schedule.settle(flight.number)
    assert not schedule.settle(flight.number)
    return story


@pytest.mark.parametrize(
    ("due", "answers", "lost", "story"),
    [
        (INF, [0.05], [], [("answered", 0.05)]),
        (INF, [], [], [("miss", 0.1)]),
        (INF, [0.12], [], [("miss", 0.1)]),
        (0.06, [0.05], [], [("answered", 0.05)]),
        (0.06, [0.08], [], [("finish", 0.06), ("answered", 0.08)]),
        (0.06, [], [], [("finish", 0.06), ("miss", 0.1)]),
        (0.06, [], [0.02], [("finish", 0.02), ("miss", 0.1)]),
        (INF, [], [0.02], [("miss", 0.1)]),
        (0.06, [0.03, 0.04], [], [("answered", 0.03)]),
    ],
)
def test_every_frame_is_settled_once(due, answers, lost, story):
    assert played(Flight(7, 0.1, due), answers, lost) == story


def test_tasks_of_several_frames_come_in_order_of_time():
    schedule = Schedule()
    for number in range(3):
        schedule.sent(Flight(number, 0.1 + 0.03 * number, 0.06 + 0.03 * number))
    order = []
    while (now := schedule.next_s()) < INF:
        task = schedule.take(now)
        order.append((task.kind, task.number))
        if task.kind == "miss":
            schedule.settle(task.number)
    assert order == [("finish", 0), ("finish", 1), ("miss", 0), ("finish", 2), ("miss", 1), ("miss", 2)]
    assert schedule.take(9.0) is None


def test_rules_of_the_world():
    assert too_late(DEMAND, 0.07, 0.04)
    assert not too_late(DEMAND, 0.05, 0.04)
    assert due_s(DEMAND, 0.0, 0.02, 0.03, 0.3, can=True, guard_s=0.005) == pytest.approx(0.065)
    assert due_s(DEMAND, 0.0, 0.02, 0.03, 0.3, can=False, guard_s=0.005) == INF
    assert due_s(DEMAND, 0.0, 0.07, 0.03, 0.3, can=True, guard_s=0.005) == INF  # the head ended too late for it
    assert due_s(DEMAND, 0.0, 0.02, 0.03, 0.09, can=True, guard_s=0.005) == INF  # the answer is about to come
