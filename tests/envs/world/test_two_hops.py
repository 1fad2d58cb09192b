"""Observations of two hops: what the device believes of the second, and what its beliefs lead to."""

from __future__ import annotations

import numpy as np
import pytest

from tests.envs.three import CUT, CUT_CUT, CUT_ON, FROM, IMAGE, IMAGE_CUT, IMAGE_ON, LOCAL, TABLE
from tests.envs.world.test_observation import FORESEEN, FULL, KNOWN, NOW, QUEUED, WORLD, Sent, situation, transfers
from tidesplit.envs.world.fields import POINT_FIELDS, fields_of
from tidesplit.envs.world.observation import Observation, observe, unflatten
from tidesplit.envs.world.vocabulary import Demand, Demands

BOTH = fields_of(2)
HOP2_USUAL_RTT = 0.015


def told(messages: list[Sent] | None = None, hop2: list[Sent] | None = None, **about: object) -> Observation:
    """Observation of one lane; messages on either hop."""
    known = situation(messages=messages, **about)  # type: ignore[arg-type]
    known = known._replace(transfers=(*known.transfers, transfers(*(hop2 or []))))
    return observe(known, TABLE, Demands.of(Demand()), WORLD)


# The second hop at 200 kB/s, round trip 10 ms; a message is on its way to it and will take 5 ms from 40 ms on.
HOP2_KNOWN = (9.5, 9.75, 1000, 0.005, 0.010, 0.0)
ON_ITS_WAY = (NOW + 0.040, 99.0, 1000, 0.0, 0.0, 0.0)


def test_what_one_hop_is_told_stays() -> None:
    """The first hop as in `tests.envs.world.test_observation`, by rows that go on or do not."""
    points = dict(zip(BOTH.points, told([QUEUED, KNOWN], waited_s=0.004, slow_down=1.5).points[0], strict=True))
    stay = [IMAGE, CUT, LOCAL]
    for name, expected in FORESEEN.items():
        if name != "is_last":
            assert points[name][stay] == pytest.approx(expected, abs=1e-5), name
    for name in ("head_s", "payload", "device_queue_s", "link_queue_s", "finish_s"):
        assert points[name] == pytest.approx(np.array(FORESEEN[name])[FROM], abs=1e-5), name


def test_names_of_the_columns() -> None:
    """Every column by its name is the one at that place, on either hop."""
    lanes = Observation(
        np.arange(len(BOTH.state), dtype=np.float32)[None],
        np.arange(len(BOTH.points), dtype=np.float32)[None, :, None],
        np.ones((1, 1), dtype=bool),
    )
    seen, foreseen = lanes.seen, lanes.foreseen
    device, first, second = seen._asdict(), seen.hops[0]._asdict(), seen.hops[1]._asdict()
    del device["hops"]
    first["link_queue_s"] = first.pop("queue_s")
    state = device | first | {f"hop2_{name}": column for name, column in second.items()}
    assert {name: int(column[0]) for name, column in state.items()} == {n: i for i, n in enumerate(BOTH.state)}
    points = foreseen._asdict()
    (further,) = points.pop("further")
    points |= {f"hop2_{name}": column for name, column in further._asdict().items()}
    assert {name: int(column[0, 0]) for name, column in points.items()} == {n: i for i, n in enumerate(BOTH.points)}


def test_forecast_over_the_second_hop() -> None:
    """Device at its own pace, both links idle: 100 kB/s and 50 ms, 200 kB/s and 10 ms; the middle server waits 2 ms."""
    observation = told([KNOWN], [HOP2_KNOWN])
    hop2 = observation.seen.hops[1]
    assert hop2.goodput == pytest.approx([200_000.0])
    assert hop2.rtt_s == pytest.approx([0.010])
    ahead = {
        # head, bytes, 25 to the middle server; what is cut again waits 2 and takes 15 or 8
        "ready_s": (0, 0.075, 0.092, 0, 0.055, 0.065, 0),
        "payload": (0, 4000, 500, 0, 1000, 500, 0),
        "compute_s": (0, 0, 0.015, 0, 0, 0.008, 0),
        "sends": (0, 1, 1, 0, 1, 1, 0),
        "queue_s": (0, 0.095 - 1 / 30, 0.0945 - 1 / 30, 0, 0.060 - 1 / 30, 0.0675 - 1 / 30, 0),
    }
    for name, values in ahead.items():
        assert getattr(observation.foreseen.further[0], name)[0] == pytest.approx(values, abs=1e-5), name
    # then bytes, 10, tail, 25; by the middle server 25, 2, tail, 25
    latency_s = np.array([0.122, 0.135, 0.1315, 0.092, 0.099, 0.1045, 0.050])
    assert observation.foreseen.latency_s[0] == pytest.approx(latency_s, abs=1e-5)
    assert observation.foreseen.slack_s[0] == pytest.approx(0.1 - latency_s, abs=1e-5)


def test_the_second_hops_queue_delays_what_goes_on() -> None:
    """Taken until 45 ms from now by a message that is still on its way there, then by one of 40 ms."""
    observation = told([KNOWN], [(NOW + 0.045, 99.0, 8000, 0.0, 0.0, 0.0), ON_ITS_WAY, HOP2_KNOWN])
    hop2 = observation.seen.hops[1]
    assert hop2.queue_s == pytest.approx([0.085], abs=1e-5)
    assert hop2.in_flight == 2
    assert hop2.since_sent_s == 0.0
    waits = {IMAGE_ON: 0.010, IMAGE_CUT: 0.0, CUT_ON: 0.030, CUT_CUT: 0.020}
    before = told([KNOWN], [HOP2_KNOWN]).foreseen.latency_s[0]
    for row, later in enumerate(observation.foreseen.latency_s[0] - before):
        assert later == pytest.approx(waits.get(row, 0.0), abs=1e-5), row


def test_before_anything_was_sent() -> None:
    hop2 = told().seen.hops[1]
    assert hop2.rtt_s == pytest.approx([HOP2_USUAL_RTT])
    assert hop2.goodput_age_s == 10.0
    assert hop2.queue_s == 0.0


def test_pessimism_reckons_with_the_second_hop_too() -> None:
    """Answered at 5 and 15 us a byte: together 10, at worst 15; and a stall of 0.98 s."""
    slow = (9.0, HOP2_KNOWN[1], 1000, 0.015, 0.010, 0.0)
    points = told([KNOWN], [HOP2_KNOWN, slow]).foreseen
    lost = points.slack_s - points.slack_low_s
    assert lost[0] == pytest.approx(5e-6 * np.array([0, 4000, 500, 0, 1000, 500, 0]), abs=1e-6)
    stalled = told([KNOWN], [(9.0, 99.0, 2000, 0.0, 0.0, 0.0), HOP2_KNOWN]).foreseen
    lost = stalled.slack_s - stalled.slack_low_s
    assert lost[0] == pytest.approx(0.98 * np.array([0, 1, 1, 0, 1, 1, 0]), abs=1e-4)


def test_finishes_of_either_hops_messages_are_pending() -> None:
    first = (9.99, 99.0, 4000, 0.0, 0.0, 0.0, NOW + 0.025, 0.030, 0.010)
    second = (9.99, 99.0, 4000, 0.0, 0.0, 0.0, NOW + 0.015, 0.020, 0.010)
    assert told([first]).seen.finish_pending_s == pytest.approx([0.030])
    both = told([first], [second]).seen
    assert both.finish_pending_s == pytest.approx([0.050])
    assert both.finish_due_s == pytest.approx([0.015])
    assert told(None, [second]).seen.finish_due_s == pytest.approx([0.015])


# messages on the first hop, on the second -> allowed points
MASKS: dict[str, tuple[list[Sent], list[Sent], list[int]]] = {
    "everything": ([], [], list(range(7))),
    "the first window full": (FULL, [], [LOCAL]),
    "the second window full": ([], FULL, [IMAGE, CUT, LOCAL]),
    "not quite": ([], FULL[:-1], list(range(7))),
}


@pytest.mark.parametrize("case", MASKS.values(), ids=MASKS)
def test_mask(case: tuple[list[Sent], list[Sent], list[int]]) -> None:
    first, second, allowed = case
    assert np.flatnonzero(told(first, second).mask[0]).tolist() == allowed


def test_flat_rows_and_back() -> None:
    observation = told([KNOWN], [HOP2_KNOWN])
    rows = observation.flat()
    assert rows.shape == (1, BOTH.width(TABLE.size))
    for ours, theirs in zip(unflatten(rows, observation.mask), observation, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert observation.hops == 2
    assert BOTH.points[: len(POINT_FIELDS)] == POINT_FIELDS
