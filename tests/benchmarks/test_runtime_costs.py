"""Arithmetic of the benchmarks that measure the runtime, and their processes with a small CNN."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.profiles import DEVICE, SERVER, synthetic_profile
from tests.runtime.deployed import DEMAND, points, small_cnn
from tidesplit.benchmarks import edge_cost, processes, recovery, request_overhead, results, server_throughput
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.physics import World
from tidesplit.profiling.points.table import table_for
from tidesplit.runtime.log.record import Record


def test_percentiles_by_name() -> None:
    assert results.percentiles([4.0, 0.0, 2.0, 1.0, 3.0], median=50, top=100, q=25) == {"median": 2, "top": 4, "q": 1}


def test_a_result_is_written_where_a_path_is_given(tmp_path: Path) -> None:
    results.write_json(None, {"n": 1})
    results.write_json(tmp_path / "found.json", {"n": 1})
    assert json.loads((tmp_path / "found.json").read_text()) == {"n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_parts_of_a_frame_and_their_sum() -> None:
    found = edge_cost.summary([(1.0, 0.5, 0.25), (3.0, 0.5, 0.25), (2.0, 1.5, 0.25)])
    assert {name: of["median_ms"] for name, of in found.items()} == {
        "decision": 2.0, "encoding": 0.5, "framing": 0.25, "together": 3.75,
    }  # fmt: skip
    assert found["decision"]["p95_ms"] == pytest.approx(2.9)


def test_a_frame_crosses_after_each_outage() -> None:
    waits = recovery.recovery_s(ends=[1.0, 5.0], crossed=[7.0, 0.9, 1.25, 1.5, 5.0])
    assert waits == [pytest.approx(0.25), pytest.approx(0.0)]


def test_time_of_a_request_beyond_link_and_profile() -> None:
    """100 ms: 10 ms queue, 4 ms head, 60 ms round trip, 2 ms tail and the bytes at 20 Mbit/s are known."""
    _, table = points(partitions=3)
    row = table.row("p0-jpeg-q50")
    sent = 2500 - World().overhead_bytes  # with headers 1 ms at 20 Mbit/s
    record = Record(
        frame=0, picture="", label=None, demand=DEMAND, decision=table.ids[row], row=row, state={}, mask=np.ones(3),
        foreseen={}, waited_s=0.010, head_s=0.004, latency_s=0.100, server_s=0.007, sent_bytes=int(sent),
    )  # fmt: skip
    assert request_overhead.parts_ms(record, table) == {
        "total": pytest.approx(23.0), "server": pytest.approx(5.0), "around": pytest.approx(18.0),
    }  # fmt: skip


def test_the_fit_of_request_times() -> None:
    """Invented: 4 ms for each request, 3 ms for a picture, and 0.25 of the profile's decode and tail."""
    table = table_for(synthetic_profile(), DEVICE, SERVER)
    rows = np.flatnonzero(table.hops[0].sends)
    server_s = np.linspace(0.002, 0.010, table.size) * table.hops[0].sends
    table = replace(table, server_s=server_s)
    medians = 1e3 * (0.004 + 0.25 * server_s[rows] + 0.003 * table.light[rows])
    assert request_overhead.fitted([table.ids[row] for row in rows], medians.tolist(), table) == {
        "request_s": pytest.approx(0.004), "cold": pytest.approx(1.25), "picture_s": pytest.approx(0.003),
    }  # fmt: skip


def test_requests_a_second() -> None:
    line = server_throughput.line("p0", [0.002, 0.004, 0.003], seconds=0.5)
    assert line.split() == ["p0", "6", "requests/s,", "median", "3.0", "ms,", "p95", "3.9", "ms,", "n", "3"]


def test_server_and_link_in_processes_of_their_own(tmp_path: Path) -> None:
    """A probe and frames through an emulated link of 20 ms to a real server."""
    cnn = small_cnn(tmp_path)
    trace = Trace("steady", np.zeros(1), 10.0, np.full(1, 50e6))
    with (
        processes.served("--cnn", str(cnn.folder)) as server,
        processes.linked(trace, server, 0.02) as link,
    ):
        sent = dict(server_throughput.messages(cnn))
        assert list(sent) == ["probe", "p0", "p1", "p2"]
        for message in sent.values():
            assert min(server_throughput.ask(link.address, message, 0.2)) > 0.02
        assert link.call("now_s") > 0.0
