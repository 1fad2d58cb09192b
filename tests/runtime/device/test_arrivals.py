"""When frames arrive: no camera keeps the device's clock, and its frames must not wait the longer for that."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO

import numpy as np
import pytest
from PIL import Image

from tests.runtime.deployed import points
from tests.runtime.punctual import on_time
from tidesplit.agents.rules.controllers import Static
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.runtime.camera import stream as camera
from tidesplit.runtime.camera.source import Picture, drawn, stream
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.core.arrivals import Arrivals
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.log import writer as log
from tidesplit.runtime.log.record import Record

LOCAL = 2


def test_pictures_that_are_there_arrive_at_the_nominal_moments() -> None:
    arrivals = Arrivals(3.0, 0.05)
    assert [arrivals.next_s(None) for _ in range(4)] == [3.0, 3.0 + 0.05, 3.0 + 2 * 0.05, 3.0 + 3 * 0.05]


@pytest.mark.parametrize("fps", [10.0, 19.0, 19.98])
@pytest.mark.parametrize("begins_s", [0.0, 40.0])
def test_pictures_of_a_slower_camera_arrive_when_they_come(fps: float, begins_s: float) -> None:
    arrivals = Arrivals(0.0, 0.05)
    for k in range(1, 2000):
        came_s = begins_s + k / fps
        assert arrivals.next_s(came_s) == pytest.approx(came_s, abs=1e-9)


def test_a_faster_camera_gives_no_more_than_the_demands_rate() -> None:
    """The loop takes the newest picture, so it is never older than the camera's period when it is asked for."""
    arrivals, now_s, found = Arrivals(0.0, 0.05), 0.0, []
    for _ in range(400):
        came_s = np.floor(now_s * 25.0) / 25.0
        found.append(now_s := arrivals.next_s(came_s))
    assert np.diff(found).mean() == pytest.approx(0.05, rel=0.02)


def test_one_late_picture_does_not_make_all_later_ones_wait() -> None:
    arrivals = Arrivals(0.0, 0.05)
    came = [0.05 * k + 0.010 * (k == 5) for k in range(20)]
    assert [arrivals.next_s(came_s) for came_s in came] == pytest.approx(came)


def test_pictures_that_lie_after_one_very_late_one_do_so_for_some_seconds() -> None:
    arrivals = Arrivals(0.0, 0.05)
    came = [0.05 * k + 0.045 * (k == 5) for k in range(100)]
    lay = np.array([arrivals.next_s(came_s) for came_s in came]) - came
    assert max(lay) == pytest.approx(0.032, abs=0.001)
    assert lay[-1] == pytest.approx(0.0, abs=1e-9)


def test_after_a_pause_of_the_camera_the_schedule_goes_on_from_its_end() -> None:
    arrivals = Arrivals(0.0, 0.05)
    came = [0.05 * k + 2.0 * (k >= 5) for k in range(20)]
    assert [arrivals.next_s(came_s) for came_s in came] == pytest.approx(came)


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
    monkeypatch.setattr(camera, "LIVE_S", 0.5)
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
    assert out.getvalue().count(f"{asked:g} expected") == (given < 0.95 * asked)
