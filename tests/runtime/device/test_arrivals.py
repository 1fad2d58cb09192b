"""When frames arrive: no camera keeps the device's clock, and its frames must not wait the longer for that."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO

import numpy as np
import pytest
from PIL import Image

from tests.runtime.deployed import points
from tests.runtime.punctual import on_time
from tidesplit.agents.rules.controllers import Static
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.runtime.camera import reading
from tidesplit.runtime.camera.source import Picture, drawn, stream
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.device.arrivals import Arrivals
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.log import writer as log
from tidesplit.runtime.log.record import Record

LOCAL = 2


PERIOD_S = 0.05


def taken(came: Iterable[float], start_s: float = 0.0) -> list[float]:
    """Arrivals of a camera's pictures in a loop that is always waiting for one."""
    arrivals = Arrivals(start_s, PERIOD_S)
    return [arrivals.live(came_s) for came_s in came if came_s >= arrivals.soonest_s]


def test_stored_pictures_arrive_at_the_nominal_moments_or_when_they_are_ready() -> None:
    arrivals = Arrivals(3.0, PERIOD_S)
    assert [arrivals.stored() for _ in range(4)] == [3.0, 3.0 + 0.05, 3.0 + 2 * 0.05, 3.0 + 3 * 0.05]
    assert [arrivals.stored(ready_s) for ready_s in (3.1, 3.4, 3.41)] == pytest.approx([3.2, 3.4, 3.45])


@pytest.mark.parametrize("fps", [5.0, 10.0, 19.0, 19.98, 20.0, 20.001])
@pytest.mark.parametrize("begins_s", [0.0, 40.0])
def test_a_camera_that_is_not_faster_has_each_picture_taken_when_it_comes(fps: float, begins_s: float) -> None:
    came = [begins_s + k / fps for k in range(2000)]
    assert taken(came) == came


@pytest.mark.parametrize(("fps", "rate"), [(20.5, 20.0), (21.0, 20.0), (25.0, 20.0), (40.0, 20.0), (60.0, 20.0)])
@pytest.mark.parametrize("jitter_s", [0.0, 0.003])
def test_of_a_faster_camera_pictures_are_passed_over(fps: float, rate: float, jitter_s: float) -> None:
    jitter = np.random.default_rng(0).uniform(-jitter_s, jitter_s, 2000)
    came = [40.0 + k / fps + float(more) for k, more in enumerate(jitter)]
    found = taken(came)
    assert set(found) <= set(came)
    assert (len(found) - 1) / (found[-1] - found[0]) == pytest.approx(rate, rel=0.01)
    if fps in (40.0, 60.0):  # a multiple of the rate: no gap is odd
        assert np.diff(found[3:]) == pytest.approx(PERIOD_S, abs=2 * jitter_s + 1e-6)


def test_late_pictures_and_pauses_of_the_camera_cost_no_other_picture() -> None:
    came = [0.05 * k + 0.045 * (k == 5) + 2.0 * (k >= 9) for k in range(40)]
    assert taken(came) == came


def test_a_picture_from_before_the_loop_arrives_with_its_begin() -> None:
    assert taken([0.0, 2.98, 3.04], 3.0) == [3.0, 3.04]


@contextmanager
def filmed(fps: float, frames: int, late_s: float = 0.0) -> Iterator[BytesIO]:
    """The reading end of a pipe into which a camera writes JPEGs, each at its own moment."""
    data, (reading, writing) = BytesIO(), os.pipe()
    Image.fromarray(next(drawn(32)).pixels).save(data, "JPEG")

    def film() -> None:
        begin_s = time.perf_counter() + late_s
        for k in range(frames):
            time.sleep(max(begin_s + k / fps - time.perf_counter(), 0.0))
            os.write(writing, data.getvalue())
        os.close(writing)

    thread = threading.Thread(target=film)
    thread.start()
    with os.fdopen(reading, "rb") as file:
        yield file  # type: ignore[misc]
    thread.join()


@on_time
@pytest.mark.parametrize(("asked", "given", "late_s"), [(40.0, 19.0, 0.0), (40.0, 37.0, 0.5), (30.0, 29.7, 0.0)])
def test_frames_of_a_slower_camera_wait_for_nothing(
    cnn: Cnn, asked: float, given: float, late_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LIVE_S", 0.3)
    monkeypatch.setattr(log, "RATE_S", 1.0)
    profile, table = points(cnn.partitions)
    records: list[Record] = []
    out = StringIO()
    demand = Demand(fps=asked, deadline_s=0.1)
    count = int(2.2 * given)
    with (
        filmed(given, count, late_s) as file,
        GrpcClient("localhost:1", cnn) as client,
        log.Log([records.append, log.Live("", out, every_s=0.5)]) as frames,
    ):
        pictures: Iterator[Picture] = stream(file, cnn.input_px)
        Device(Static("static", LOCAL), table, demand, Engine(cnn, profile.points), client, frames).run(pictures)
    assert len(records) + sum(r.pictures_skipped for r in records) == count
    assert max(r.waited_s for r in records) < 0.05
    assert sum(r.answered_by == "miss" for r in records) <= 1
    gaps = np.diff([r.arrival_s for r in records])
    assert np.median(gaps) == pytest.approx(1.0 / given, rel=0.05)
    *_, said_fps = re.findall(r"camera ([0-9.]+) fps", out.getvalue())
    assert float(said_fps) == pytest.approx(given, rel=0.03)
    assert out.getvalue().count(f"{asked:g} expected") == (given < 0.97 * asked)
