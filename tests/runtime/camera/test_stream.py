"""A camera's newest picture is taken; a recording gives every picture. Real pipes, a writer with a camera's clock."""

import io
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tests.runtime.punctual import on_time
from tidesplit.runtime.camera import reading
from tidesplit.runtime.camera import stream as camera
from tidesplit.runtime.camera.picture import Skipped, SourceError
from tidesplit.runtime.camera.reading import Shot
from tidesplit.runtime.camera.source import ahead, stream
from tidesplit.runtime.camera.stream import CameraStream


def jpeg(shade=90, size=(40, 30)):
    file = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(file, "jpeg")
    return file.getvalue()


@pytest.fixture
def pipe():
    """The reading end as a file, and the number of the writing end."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        yield file, writing


def shoot(writing, fps, pictures, start_s=0.0):
    """Write pictures at their moments, then close. Runs in a thread."""

    def work():
        time.sleep(start_s)
        begin = time.perf_counter()
        for number, data in enumerate(pictures):
            time.sleep(max(0.0, begin + number / fps - time.perf_counter()))
            os.write(writing, data)
        os.close(writing)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def shade(picture):
    return round(float(np.mean(picture.pixels)))


@on_time
def test_the_newest_picture_of_a_camera_is_taken(pipe, monkeypatch):
    monkeypatch.setattr(reading, "LIVE_S", 0.2)
    file, writing = pipe
    thread = shoot(writing, 50, [jpeg(n) for n in range(60)])
    pictures = ahead(stream(file, 16))
    time.sleep(0.4)  # models load
    ages, shades, skipped = [], [], []
    for picture in pictures:
        ages.append(time.perf_counter() - picture.taken_s)
        shades.append(shade(picture))
        skipped.append(picture.skipped)
        time.sleep(0.05)  # a loop of 20 frames a second
    thread.join()
    assert shades == sorted(set(shades))
    assert shades[0] >= 10
    assert np.median(ages) < 0.04
    assert len(shades) + sum(skipped) == 60


@on_time
def test_small_pictures_do_not_wait_for_others(pipe, monkeypatch):
    monkeypatch.setattr(reading, "LIVE_S", 0.2)
    file, writing = pipe
    thread = shoot(writing, 10, [jpeg(n) for n in range(8)], start_s=0.1)
    ages = [time.perf_counter() - p.taken_s for p in stream(file, 16) if p.taken_s is not None]
    thread.join()
    assert len(ages) >= 4
    assert max(ages) < 0.09


def shots(changed, came):
    """A source that gives live pictures of these moments at once, then ends when `changed` is set."""
    yield [Shot(moment_s, moment_s, True, True) for moment_s in came]
    changed.wait()


def test_pictures_that_came_too_soon_are_passed_over_and_counted():
    ended, data = threading.Event(), np.zeros((16, 16, 3), np.uint8)
    for came, after_s, taken, passed_over in (([1.0, 2.0, 3.0], 3.0, 3.0, 2), ([1.0, 2.0, 3.0], 3.1, None, 0)):
        pictures = CameraStream(shots(ended, came), lambda _: data, Skipped())
        pictures.after(after_s)
        if taken is None:
            ended.set()
            with pytest.raises(SourceError, match="ended without a picture"):
                next(pictures)
        else:
            picture = next(pictures)
            assert (picture.taken_s, picture.skipped) == (taken, passed_over)


def test_a_decoded_picture_may_turn_out_to_have_come_too_soon():
    first, second = threading.Event(), threading.Event()

    def source():
        for moment_s, event in ((1.0, first), (2.0, second)):
            event.wait()
            yield [Shot(moment_s, moment_s, True, True)]

    pictures = CameraStream(source(), lambda _: np.zeros((16, 16, 3), np.uint8), Skipped())
    first.set()
    assert next(pictures).taken_s == 1.0
    pictures.after(2.5)
    second.set()
    with pytest.raises(StopIteration):
        next(pictures)


@pytest.mark.parametrize("regular", [True, False])
def test_a_recording_gives_every_picture(tmp_path, pipe, regular):
    data = b"".join(jpeg(n) for n in range(200))
    file, writing = pipe
    if regular:
        os.close(writing)
        (tmp_path / "recording").write_bytes(data)
        file = (tmp_path / "recording").open("rb")
    else:
        thread = shoot(writing, 1, [data])
    pictures = []
    for picture in stream(file, 16):
        pictures.append(picture)
        time.sleep(0.002)
    assert [shade(p) for p in pictures] == pytest.approx(range(200), abs=2)
    assert {p.skipped for p in pictures} == {0}
    assert not regular or {p.taken_s for p in pictures} == {None}
    file.close() if regular else thread.join()


def test_undecodable_pictures_are_counted_and_said():
    said = []
    skipped = Skipped(said.append)
    good, huge = jpeg(10), bytearray(jpeg(20))
    at = huge.index(b"\xff\xc0") + 5
    huge[at : at + 4] = b"\xff\xff\xff\xff"
    data = good + huge + good[:300] + good
    assert [shade(p) for p in stream(io.BytesIO(data), 16, skipped)] == [10, 10]
    assert skipped.count == 2
    assert len(said) == 2
    assert all("cannot be decoded" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "0 bytes received, MJPEG or H.264 expected"),
        (b"no picture", "10 bytes received"),
        (jpeg()[:-50], "none of the 1 pictures"),
        (b"\0" * (9 << 20), "without a picture"),
    ],
)
def test_a_stream_without_a_picture_is_a_mistake(data, sentence):
    with pytest.raises(SourceError, match=sentence):
        next(stream(io.BytesIO(data), 16))


def test_a_silent_camera_is_said_once(pipe, monkeypatch):
    monkeypatch.setattr(camera, "QUIET_S", 0.05)
    file, writing = pipe
    said = []
    thread = shoot(writing, 1, [jpeg()], start_s=0.3)
    assert len(list(stream(file, 16, say=said.append))) == 1
    thread.join()
    assert len(said) == 1
    assert "no picture from the camera" in said[0]


@pytest.mark.filterwarnings("ignore")
def test_the_interpreter_ends_while_a_camera_is_silent():
    script = (
        "import sys; from tidesplit.runtime.camera.source import stream;"
        "pictures = stream(sys.stdin.buffer, 16); next(pictures)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(jpeg())
    process.stdin.flush()
    assert process.wait(20) == 0
    assert process.stderr.read() == b""
    process.stdin.close()
    process.stderr.close()
