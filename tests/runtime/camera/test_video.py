"""H.264 in a pipe, recordings, and cameras at an address: real streams of a few small pictures."""

import io
import multiprocessing
import sys
import threading
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from tests.runtime.punctual import on_time
from tidesplit.benchmarks.stand_in_camera import Moment, serve
from tidesplit.runtime.camera import opened, video_frames
from tidesplit.runtime.camera.picture import Skipped, SourceError
from tidesplit.runtime.camera.reading import PictureReader, Shot
from tidesplit.runtime.camera.source import ahead, source, stream

av = pytest.importorskip("av")
SIZE, SHADES, KEY_EVERY = (64, 48), [20 * n for n in range(12)], 6


def encoded(shades=SHADES):
    """A picture of each shade, as the units of one H.264 stream."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt, context.time_base = *SIZE, "yuv420p", Fraction(1, 25)
    parameters = f"keyint={KEY_EVERY}:repeat-headers=1:threads=1"
    context.options = {"tune": "zerolatency", "preset": "ultrafast", "x264-params": parameters}
    frames = [av.VideoFrame.from_ndarray(np.full((*SIZE[::-1], 3), shade, np.uint8), "rgb24") for shade in shades]
    return [bytes(packet) for frame in frames for packet in context.encode(frame)]


@pytest.fixture(scope="module")
def units():
    return encoded()


def shades(pictures):
    return [round(float(picture.pixels.mean())) for picture in pictures]


@pytest.mark.parametrize("size", [50, 100_000])
def test_h264_in_a_pipe_gives_every_picture(units, size):
    class Pieces(io.BytesIO):
        def read(self, _=-1):
            return super().read(size)

    found = shades(stream(Pieces(b"noise\0\0\1" + b"".join(units)), 32))
    assert found == pytest.approx(SHADES, abs=3)


def test_pictures_that_build_on_a_broken_one_are_skipped_to_the_next_key_picture(units):
    said = []
    skipped = Skipped(said.append)
    broken = [*units[:2], units[2][:-4], *units[3:]]
    shots = [
        shot
        for shots in PictureReader(io.BytesIO(b"".join(broken)), lambda: video_frames.H264Decoder(skipped), skipped)
        for shot in shots
    ]
    assert [round(float(video_frames.square(shot.data, 16).mean())) for shot in shots] == pytest.approx(
        SHADES[:2] + SHADES[KEY_EVERY:], abs=3
    )
    assert skipped.count == KEY_EVERY - 2
    assert sum("builds on a broken one" in sentence for sentence in said) == KEY_EVERY - 3
    assert all(len(shot.data) == 64 * 48 * 3 // 2 for shot in shots)


def written(path, units, rate):
    """The stream in a file of the kind that its name says."""
    with av.open(io.BytesIO(b"".join(units)), format="h264") as of, av.open(str(path), "w") as file:
        copy = file.add_stream_from_template(of.streams.video[0])
        for number, packet in enumerate(p for p in of.demux(video=0) if p.size):
            packet.stream, packet.time_base, packet.duration = copy, Fraction(1, rate), 1
            packet.pts = packet.dts = number
            file.mux(packet)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_recording_gives_every_picture_and_its_rate_is_said(tmp_path, units, name):
    written(tmp_path / name, units, 25)
    said = []
    pictures = list(ahead(source(str(tmp_path / name), 32, 30.0, Skipped(said.append), said.append)))
    assert shades(pictures) == pytest.approx(SHADES, abs=3)
    assert {(p.taken_s, p.skipped) for p in pictures} == {(None, 0)}
    assert said == [f"{tmp_path / name} has 25 pictures a second, it is played at 30"]


def test_a_file_of_jpegs_needs_no_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    data = io.BytesIO()
    Image.new("RGB", SIZE, (90, 90, 90)).save(data, "jpeg")
    (tmp_path / "a.mjpeg").write_bytes(data.getvalue() * 3)
    assert shades(source(str(tmp_path / "a.mjpeg"), 32, 30.0, Skipped())) == [90] * 3


@pytest.mark.parametrize("where", ["a.mp4", "rtsp://user:secret@camera/stream", "/dev/null"])
def test_without_pyav_a_sentence_says_how_to_get_it(tmp_path, monkeypatch, units, where):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"0")
    with pytest.raises(SourceError, match=r"needs PyAV: pip install 'tidesplit\[video\]'") as error:
        next(source(str(tmp_path / where) if where == "a.mp4" else where, 32, 30.0, Skipped()))
    assert "secret" not in str(error.value)
    with pytest.raises(SourceError, match=r"H\.264 needs PyAV"):
        next(stream(io.BytesIO(units[0]), 32))


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("nowhere", "is not a folder of pictures, a video file"),
        ("text", "is no video that can be read|no picture of the video"),
        ("/dev/null", "/dev/null: Inappropriate ioctl"),
        ("rtsp://user:secret@127.0.0.1:1/stream", "rtsp://127.0.0.1:1: Connection refused"),
        ("http://127.0.0.1:1/stream", "Connection refused"),
        ("camera://stream", "Protocol not found"),
    ],
)
def test_a_source_that_is_none_is_a_users_mistake(tmp_path, monkeypatch, where, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("no video")
    with pytest.raises(SourceError, match=sentence) as error:
        next(source(where, 32, 30.0, Skipped()))
    assert "user" not in str(error.value)


def test_a_frame_is_shown_upright():
    """A phone's recording says by how much it is turned."""

    class Turned:
        rotation = 90

        def to_image(self):
            return Image.fromarray(np.repeat(np.array([[[0], [255]]], np.uint8), 3, axis=2))  # dark on the left

    upright = video_frames.DecodedFrame(Turned()).square(2)
    assert upright[0].mean() > upright[1].mean()


def shot(data):
    return [Shot(data, 0.0, True, True)]


def test_a_lost_camera_is_said_once_and_opened_again_with_back_off():
    lives = iter([[1, 2], OSError, OSError, [3], [], [4]])
    said, waits = [], []

    def lived():
        life = next(lives)
        if life is OSError:
            raise SourceError("camera: No route to host")
        for data in life:
            yield shot(data)

    shots = opened.again(lived, "camera", said.append, waits.append)
    assert [next(shots) for _ in range(4)] == [shot(n) for n in (1, 2, 3, 4)]
    assert waits == [*opened.BACK_OFF_S[:3], *opened.BACK_OFF_S[:2]]
    lost = "camera lost: camera has ended. It is opened again until it is back"
    assert said == [lost, "camera is back", lost, "camera is back"]


def test_a_camera_that_never_gave_a_picture_is_not_opened_again():
    with pytest.raises(SourceError, match="camera has ended"):
        next(opened.again(lambda: iter(()), "camera", str, lambda _: pytest.fail("waits")))


@on_time
def test_pictures_of_rtsp_come_at_once(units):
    """Real sockets: pictures come one by one, and none waits for the next one's start."""
    ours, theirs = multiprocessing.Pipe()
    plan = [Moment(0.03 * number, number, unit) for number, unit in enumerate(units)]
    server = threading.Thread(target=serve, args=(plan, (0.0, 0.0), theirs))
    server.start()
    address = ours.recv()
    ours.send(True)
    camera = opened.Camera(address, 30.0, Skipped(), str)
    shots = [shot for shots in camera._shots() for shot in shots]
    server.join()
    wrote, _ = ours.recv()
    assert [round(float(video_frames.square(shot.data, 16).mean())) for shot in shots] == pytest.approx(SHADES, abs=3)
    assert np.median([shot.came_s - at_s for shot, (_, at_s) in zip(shots, wrote, strict=True)]) < 0.015
    assert all(shot.live for shot in shots)


@pytest.mark.parametrize(
    ("address", "printed"),
    [
        ("rtsp://camera:8554/stream?password=secret", "rtsp://camera:8554"),
        ("rtsp://user:a/b@camera/stream", "rtsp://camera"),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_no_name_or_password_is_printed(address, printed):
    assert opened.shown(address) == printed
