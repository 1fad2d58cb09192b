"""A device under budgets: its prices move with what it spends, and its policy follows them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from tests.runtime.core.virtual import CUT, LOCAL, OFFLOAD, Course, Virtual
from tests.runtime.deployed import points
from tidesplit.agents.rules.family import Family, Setting, Spent
from tidesplit.envs.world.vocabulary import MONTH_S, Demand
from tidesplit.runtime.camera.source import drawn
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.log.writer import Log
from tidesplit.runtime.wire.security import Credentials

FRAMES, FPS, BYTE_RATE = 80, 20.0, 6000.0


def test_a_device_settles_under_a_budget_of_data(cnn: Cnn, port: int) -> None:
    """Its rule sends pictures where bytes are cheap. The first price is a little above that at which it would."""
    profile, table = points(cnn.partitions)
    rows = [table.row(name) for name in ("p0-jpeg-q50", "device-c0.25")]
    spent = Spent(np.array([0.9, 0.6]), np.zeros(2), np.array([1000.0, 0.0]))  # the price that divides them: 3e-4
    rule = Family(name="rule", settings=[Setting(row, row, row) for row in rows], spent=spent)
    demand, records = Demand(fps=FPS, deadline_s=0.25, max_gb_month=BYTE_RATE * MONTH_S / 1e9), list[Record]()
    with GrpcClient(f"localhost:{port}", cnn, Credentials()) as client, Log([records.append]) as log:
        device = Device(
            rule, table, demand, Engine(cnn, profile.points), client, log, guarded=False, first_prices=(3.0, 3.1e-4)
        )
        device.run(itertools.islice(drawn(cnn.input_px), FRAMES))
    records.sort(key=lambda record: record.frame)
    sizes = [record.sent_bytes for record in records]
    assert 10 < np.count_nonzero(sizes) < FRAMES - 10
    last = records[-1].spending
    assert last is not None
    assert demand.max_gb_month is not None
    assert 0.7 * demand.max_gb_month < last.gb_month <= 1.05 * demand.max_gb_month
    assert last.gb_month * 1e9 / MONTH_S / FPS * FRAMES >= sum(sizes)
    assert {record.state["joule_price"] for record in records} == {0.0}
    assert len({record.state["byte_price"] for record in records}) > FRAMES // 2


def played(names: Sequence[str], demand: Demand) -> list[Record]:
    virtual = Virtual(names, frames=30, demand=demand, course=Course(after_s=lambda: 0.05))
    return virtual.play()


@pytest.mark.parametrize("names", [[OFFLOAD], [CUT, LOCAL]])
def test_a_decision_is_made_at_the_prices_of_the_frames_settled_before(names: list[str]) -> None:
    records = played(names, Demand(fps=10, max_watts=2.5, max_gb_month=1.0))
    for before, record in itertools.pairwise(records):
        assert before.spending is not None
        prices = np.array(before.spending[:2], dtype=np.float32).tolist()
        assert [record.state["joule_price"], record.state["byte_price"]] == prices
    assert records[-1].state["joule_price"] > records[0].state["joule_price"] == 3.0
    watts = np.mean([record.joules for record in records]) * 10  # type: ignore[arg-type]
    assert records[-1].spending is not None
    assert records[-1].spending.watts == pytest.approx(watts)


def test_without_a_budget_nothing_is_booked_and_nothing_costs() -> None:
    records = played([CUT], Demand(fps=10))
    assert {record.spending for record in records} == {None}
    assert {record.state["joule_price"] for record in records} == {0.0}
    assert records[0].as_json()["spending"] is None
