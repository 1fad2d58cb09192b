"""Time of a server's run: longer than in the profile's loop, and longer for pictures. World and device use one rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.envs.three import CUT, CUT_CUT, CUT_ON, IMAGE, IMAGE_CUT, IMAGE_ON, LOCAL, TABLE, WORLD, play
from tests.envs.world.test_observation import situation, transfers
from tidesplit.envs.world.observation import observe
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Demands
from tidesplit.runtime.camera.picture import Picture
from tidesplit.runtime.core.knowledge import messages
from tidesplit.runtime.core.schedule import Flight
from tidesplit.runtime.log.record import Record

COLD = replace(WORLD, cold=1.5, picture_s=0.003)
# point: milliseconds of the server that answers, and of the middle server before it
RUNS = {
    IMAGE: (1.5 * 20 + 3, 0),
    IMAGE_ON: (1.5 * 5 + 3, 0),  # passed on: the cloud decodes the picture
    IMAGE_CUT: (1.5 * 2, 1.5 * 15 + 3),
    CUT: (1.5 * 10, 0),
    CUT_ON: (1.5 * 4, 0),
    CUT_CUT: (1.5 * 2, 1.5 * 8),
    LOCAL: (0, 0),
}


@pytest.mark.parametrize("point", RUNS)
def test_times_of_both_servers(point: int) -> None:
    """In the world, in the device's forecast, and in the time that it expects of the servers when it sends."""
    answering_s, middle_s = (1e-3 * run for run in RUNS[point])
    _, outcome, _ = play(point, world=COLD)
    assert outcome.server_s[0] == pytest.approx(answering_s)
    assert outcome.hops[1].compute_s[0] == pytest.approx(middle_s)
    before = play(point, world=replace(COLD, cold=1.0, picture_s=0.0))[1]
    plain_s = TABLE.server_s[point] + TABLE.hops[1].compute_s[point]
    assert outcome.latency_s[0] - before.latency_s[0] == pytest.approx(answering_s + middle_s - plain_s)
    now = situation()
    now = now._replace(transfers=(*now.transfers, transfers()))
    demand = Demand(deadline_s=0.2)
    told = observe(now, TABLE, Demands.of(demand), COLD)
    assert told.foreseen.server_s[0, point] == pytest.approx(answering_s)
    assert told.foreseen.further[0].compute_s[0, point] == pytest.approx(middle_s)
    record = Record.of(0, Picture("one", np.zeros((1, 1, 3), np.uint8)), demand, TABLE, told, point)
    first, further = messages(record, Flight(0, 0.2), told, TABLE, COLD)
    back_s = 0.5 * told.seen.hops[0].rtt_s[0]
    assert [ahead.settled.tail_s - back_s for ahead in further] == [pytest.approx(answering_s)] * len(further)
    assert first.tail_s == pytest.approx(middle_s if further else answering_s)


def test_the_message_has_the_time_that_the_device_expects() -> None:
    for point in (IMAGE, CUT):
        *_, (first, _) = play(point, world=COLD)
        assert first.tail_s[0] == pytest.approx(1e-3 * RUNS[point][0])


def test_the_medians_of_the_benchmark() -> None:
    """Time beyond link, bytes, and the profile's decode and tail: the three runs' medians, in ms."""
    listed, pictures = np.array([9.35, 8.9, 7.37, 1.84]) / 1e3, np.array([True, False, False, False])
    beyond = 1e3 * (World().request_s + World().serving_s(listed, pictures) - listed)
    assert beyond == pytest.approx([9.4, 6.7, 5.3, 4.4], abs=0.7)
