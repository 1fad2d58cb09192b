"""The second hop as tables worked out by hand. Points, links and times: see `tests.envs.three`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.envs import small
from tests.envs.small import values
from tests.envs.three import (
    CUT,
    CUT_CUT,
    CUT_ON,
    IMAGE,
    IMAGE_CUT,
    IMAGE_ON,
    LOCAL,
    TABLE,
    WORLD,
    play,
    queued,
    with_hop2,
)
from tidesplit.envs.world.link import NEVER_S
from tidesplit.envs.world.vocabulary import DEVICE, MISS, SERVER, Demand

# what happens: (point, settings, outcome, queues afterwards). Round trips 40 and 10 ms, deadline 200 ms.
FRAMES: dict[str, tuple[int, dict[str, Any], dict[str, float], dict[str, float]]] = {
    "on the device": (
        LOCAL,
        {},
        {"answered_by": DEVICE, "latency_s": 0.050, "hop2_sent_bytes": 0, "hop2_compute_s": 0, "hop2_uplink_s": 0},
        {"link_free_s": 0.0, "hop2_free_s": 0.0, "hop2_last_sent_s": 0.0},
    ),
    # head 20, link 10, half a round trip 20, tail 10, half a round trip 20
    "answered by the middle server": (
        CUT,
        {},
        {"answered_by": SERVER, "latency_s": 0.080, "accuracy": 0.8, "hop2_sent_bytes": 0, "hop2_uplink_s": 0},
        {"link_free_s": 0.030, "hop2_free_s": 0.0, "hop2_last_sent_s": 0.0},
    ),
    # head 10, link 40, 20 to the middle server, second hop 20, 5 to the cloud, tail 5, back 5 and 20
    "passed on to the cloud": (
        IMAGE_ON,
        {},
        {"latency_s": 0.125, "accuracy": 0.9, "sent_bytes": 4000, "hop2_sent_bytes": 4000, "hop2_uplink_s": 0.020},
        {"link_free_s": 0.050, "hop2_free_s": 0.090, "hop2_last_sent_s": 0.010},
    ),
    # head 10, link 40, 20 to the middle server, there 15, second hop 2.5, 5, tail 2, back 25
    "the image cut by the middle server": (
        IMAGE_CUT,
        {},
        {"latency_s": 0.1195, "accuracy": 0.85, "sent_bytes": 4000, "hop2_compute_s": 0.015, "hop2_sent_bytes": 500},
        {"hop2_free_s": 0.0875},
    ),
    # head 20, link 10, 20 to the middle server, there 8, second hop 2.5, 5, tail 2, back 25
    "cut twice": (
        CUT_CUT,
        {},
        {"latency_s": 0.0925, "accuracy": 0.75, "server_s": 0.002, "hop2_compute_s": 0.008, "hop2_uplink_s": 0.0025},
        {"link_free_s": 0.030, "hop2_free_s": 0.0605, "hop2_last_sent_s": 0.020},
    ),
    "who is cut again waits at the middle server": (
        CUT_CUT,
        {"wait_s": 0.012},
        {"latency_s": 0.1045, "server_s": 0.014, "hop2_compute_s": 0.008},
        {"hop2_free_s": 0.0725},
    ),
    "who is passed on does not": (CUT_ON, {"wait_s": 0.012}, {"latency_s": 0.089, "server_s": 0.004}, {}),
    # ready at 58 ms, the second hop's link is taken until 80
    "behind the second hop's queue": (
        CUT_CUT,
        {"queues": queued(hop2_free_s=0.080)},
        {"latency_s": 0.1145, "hop2_uplink_s": 0.0245},
        {"link_free_s": 0.030, "hop2_free_s": 0.0825},
    ),
    # the first link is taken until 35 ms, so that it is ready at 73
    "behind both": (
        CUT_CUT,
        {"queues": queued(link_free_s=0.035, hop2_free_s=0.080)},
        {"latency_s": 0.1145, "uplink_s": 0.025, "hop2_uplink_s": 0.0095},
        {"link_free_s": 0.045, "hop2_free_s": 0.0825},
    ),
    "a longer second round trip": (CUT_CUT, {"hop2_rtt_s": 0.030}, {"latency_s": 0.1125}, {"hop2_free_s": 0.0605}),
    # finish 30 ms, guard 5: the device begins at 65 of 100 ms
    "the second hop dead, the device finishes": (
        CUT_CUT,
        {"hop2_rate": 0.0, "demand": Demand()},
        {"answered_by": DEVICE, "latency_s": 0.095, "accuracy": 0.7, "fell_back": True},
        {"finish_until_s": 0.095, "link_free_s": 0.030, "hop2_free_s": NEVER_S},
    ),
    "the middle server still answers": (
        CUT,
        {"queues": queued(hop2_free_s=NEVER_S), "demand": Demand()},
        {"answered_by": SERVER, "latency_s": 0.080},
        {},
    ),
    "too late": (
        IMAGE_ON,
        {"demand": Demand()},
        {"answered_by": MISS, "latency_s": 0.100, "hop2_sent_bytes": 4000},
        {},
    ),
    "dropped, nothing goes on": (
        CUT_CUT,
        {"queues": queued(device_free_s=0.190)},
        {
            "answered_by": MISS,
            "dropped": True,
            "sent_bytes": 0,
            "hop2_sent_bytes": 0,
            "hop2_uplink_s": 0,
            "hop2_compute_s": 0,
        },
        {"hop2_free_s": 0.0, "hop2_last_sent_s": 0.0},
    ),
}


@pytest.mark.parametrize("case", FRAMES.values(), ids=FRAMES)
def test_one_frame(case: tuple[int, dict[str, Any], dict[str, float], dict[str, float]]) -> None:
    point, settings, outcome, later = case
    queues, happened, _ = play(point, **settings)
    assert {name: values(happened)[name] for name in outcome} == pytest.approx(outcome)
    assert {name: values(queues)[name] for name in later} == pytest.approx(later)


def test_each_hop_has_its_own_receipt() -> None:
    """The middle server's at 20 + 10 + 40 ms and after its wait, the cloud's answer when it is there."""
    _, _, (first, second) = play(CUT_CUT, wait_s=0.012, expected_s=0.3)
    assert (first.answered_s, first.tail_s, first.due_s) == (pytest.approx(0.082), 0.0, np.inf)
    assert second.answered_s == pytest.approx([0.1045])
    assert second.due_s == pytest.approx([0.165])  # 200 less finish and guard
    assert (second.finish_s, second.tail_s) == (pytest.approx(0.030), pytest.approx(0.002))


def test_a_frame_of_the_middle_server_has_the_first_hops_alone() -> None:
    _, _, (first, second) = play(CUT, expected_s=0.3)
    assert (first.answered_s, first.tail_s, first.due_s) == (pytest.approx(0.080), 0.010, pytest.approx(0.165))
    assert not second.sent


@pytest.mark.parametrize("point", [IMAGE, CUT, LOCAL])
def test_points_that_do_not_go_on_are_those_of_two_tiers(point: int) -> None:
    two = small.play(point, table=replace(TABLE, hops=TABLE.hops[:1]))
    three = play(point, demand=Demand())
    for ours, theirs in ((three[0], two[0]), (three[1], two[1]), (three[2][0], two[2][0])):
        assert {name: values(ours)[name] for name in values(theirs)} == values(theirs)


PROBING = replace(WORLD, probe_after_s=1.0)
# arrival, last sent over the first hop, over both, second hop free, point -> bytes on either hop
PROBES: dict[str, tuple[float, float, float, float, int, float, float]] = {
    "with a frame of the middle server's": (2.0, 1.9, 1.0, 0.0, CUT, 1000, 1350),
    "not before": (2.0, 1.9, 1.01, 0.0, CUT, 1000, 0),
    "with the first hop's": (2.0, 1.0, 1.0, 0.0, LOCAL, 1350, 1350),
    "not without a message": (2.0, 1.9, 1.0, 0.0, LOCAL, 0, 0),
    "not behind other bytes": (2.0, 1.9, 1.0, 2.01, CUT, 1000, 0),
    "not beside a frame": (2.0, 1.9, 1.0, 0.0, CUT_CUT, 1000, 500),
}


@pytest.mark.parametrize("case", PROBES.values(), ids=PROBES)
def test_probe_of_the_second_hop(case: tuple[float, float, float, float, int, float, float]) -> None:
    arrival, last, hop2_last, hop2_free, point, sent, hop2_sent = case
    before = queued(last_sent_s=last, hop2_last_sent_s=hop2_last, hop2_free_s=hop2_free)
    _, outcome, (_, second) = play(point, arrival_s=arrival, queues=before, world=PROBING)
    assert values(outcome)["sent_bytes"] == sent
    assert values(outcome)["hop2_sent_bytes"] == hop2_sent
    assert second.sent == (hop2_sent > 0)


def test_a_probe_rides_along_and_delays_no_answer() -> None:
    """At the middle server at 50 ms, 6.75 on the second hop, 10 there and back, 20 to the device."""
    queues, outcome, (_, second) = play(CUT, queues=queued(hop2_last_sent_s=-1.0), world=PROBING)
    assert outcome.latency_s == pytest.approx([0.080])
    assert queues.hops[1].free_s == pytest.approx([0.05675])
    assert second.answered_s == pytest.approx([0.08675])
    assert second.due_s == np.inf


def test_the_second_connection_starts_slowly_too() -> None:
    """30,000 bytes after two seconds: two windows too many, two round trips of the second hop."""
    large = with_hop2(TABLE, bytes_mean=np.full(7, 43_801.0 - 150.0))
    _, outcome, _ = play(CUT_ON, arrival_s=2.0, queues=queued(link_free_s=1.9), table=large, hop2_rate=1e6)
    assert outcome.hops[1].uplink_s == pytest.approx([2 * 0.010 + 0.043801])


def test_frames_in_a_row_share_the_second_hop() -> None:
    """Every 20 ms a cut of 5 ms, over a second hop that needs 50: each waits 30 ms longer than the one before."""
    queues, waits = queued(), []
    for k in range(4):
        queues, outcome, _ = play(
            CUT_ON, arrival_s=k * 0.020, queues=queues, hop2_rate=20_000.0, demand=Demand(deadline_s=1.0)
        )
        waits.append(round(float(outcome.hops[1].uplink_s[0]) * 1e3))
    assert waits == [50, 80, 110, 140]


@pytest.mark.parametrize("point", range(TABLE.size))
def test_lanes_with_tables_of_their_own(point: int) -> None:
    """Columns ``[B, A]`` are read as columns ``[A]`` are."""
    wide = TABLE.with_columns(lambda column: column[None, :].repeat(1, axis=0), TABLE.ids)
    for ours, theirs in zip(play(point, table=wide)[:2], play(point)[:2], strict=True):
        assert values(ours) == values(theirs)
