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
from tidesplit.runtime.camera import stream as camera
from tidesplit.runtime.camera.picture import Skipped, SourceError
from tidesplit.runtime.camera.source import ahead, stream


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
    monkeypatch.setattr(camera, "LIVE_S", 0.2)
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
    monkeypatch.setattr(camera, "LIVE_S", 0.2)
    file, writing = pipe
    thread = shoot(writing, 10, [jpeg(n) for n in range(8)], start_s=0.1)
    ages = [time.perf_counter() - p.taken_s for p in stream(file, 16) if p.taken_s is not None]
    thread.join()
    assert len(ages) >= 4
    assert max(ages) < 0.09


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
    assert {(p.taken_s, p.skipped) for p in pictures} == {(None, 0)}
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
        (b"", "0 bytes received, MJPEG expected"),
        (b"no picture", "10 bytes received"),
        (jpeg()[:-50], "none of the 1 pictures"),
        (b"\0" * (9 << 20), "without a whole JPEG"),
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
    assert "no picture on the stream" in said[0]


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
