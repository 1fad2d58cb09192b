"""Light devices against a small server, and the figures of a fleet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.deployed import small_cnn
from tests.runtime.servers import ServerThread
from tidesplit.benchmarks.capacity import bare_loop, cut_of, decoding_loop
from tidesplit.benchmarks.fleet import draw, true_figures
from tidesplit.benchmarks.light_devices import End, LightDevices, Order, figures, jain, send
from tidesplit.benchmarks.soak import Ends
from tidesplit.runtime.server.serving import ServerOptions


def test_fairness_is_one_for_equals_and_one_over_n_where_one_has_all() -> None:
    assert jain([5, 5, 5]) == pytest.approx(1.0)
    assert jain([7, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([0, 0]) == 0.0


def test_figures_of_a_run() -> None:
    ends = [
        End(0, 0, 0.0, 0.010, "answered"), End(0, 1, 0.1, 0.400, "answered"), End(1, 0, 0.0, 0.020, "answered"),
        End(1, 1, 0.1, 0.005, "RESOURCE_EXHAUSTED"), End(1, 1, 0.1, 0.006, "UNAVAILABLE"),
    ]  # fmt: skip
    found = figures(5, ends, deadline_s=0.3)
    assert found["refused"] == {"RESOURCE_EXHAUSTED": 1, "UNAVAILABLE": 1}
    assert (found["answered"], found["late"]) == (3, 1)
    assert found["lost"] == 2  # the fifth never ended, and one ended twice
    assert found["p50_ms"] == pytest.approx(20.0)
    assert found["jain"] == pytest.approx(0.9)


def test_light_devices_and_both_loops(tmp_path: Path) -> None:
    cnn = small_cnn(tmp_path)
    cuts = [cut_of(cnn, partition) for partition in (0, 1)]
    for cut in cuts:
        bare_loop(cnn, cut)()
        assert decoding_loop(cnn, cut)()
    with ServerThread(cnn, ServerOptions(longest_wait_ms=1e4)) as server:
        orders = [Order(server.address, cnn.folder, cut.point, cut.payload, (7, 8), 20.0, 0.5) for cut in cuts]
        sent, ends = send(orders[0])
        light = LightDevices(orders[1:])
        light.begin()
        others, more = light.ends()
    assert sent == others == len(ends) == len(more) == 20
    assert figures(sent, ends + more, 5.0)["answered"] == 40
    assert {(end.device, end.frame) for end in ends} == {(device, frame) for device in (7, 8) for frame in range(10)}


def test_a_true_device_that_settles_a_frame_twice_is_found() -> None:
    ends = [Ends(), Ends()]
    for one in ends:
        for frame in (1, 0):
            one.take({"frame": frame, "answered_by": "device", "error": None})
    assert true_figures(ends, [0, 0])["true_once"]
    ends[0].take({"frame": 1, "answered_by": "server", "error": None})
    assert not true_figures(ends, [0, 0])["true_once"]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    rows = [
        {"cut": 0, "servers": servers, "load": load, "p50_ms": 5.0, "p99_ms": 9.0}
        for servers in (1, 2) for load in (0.1, 0.8)
    ]  # fmt: skip
    draw({"capacity": {0: {"share": 0.9}}, "rows": rows}, tmp_path / "fleet.png")
    assert (tmp_path / "fleet.png").stat().st_size > 1000
