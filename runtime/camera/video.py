"""Video through PyAV (the extra `video`): H.264 from a pipe, files, devices (V4L2) and addresses (RTSP, HTTP)."""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from PIL import Image

from tidesplit.compression.codec.pixels import MAX_PIXELS, Pixels, load_square, squash
from tidesplit.runtime.camera.picture import Picture, Say, Skipped, SourceError
from tidesplit.runtime.camera.reading import Reader, Shot

if TYPE_CHECKING:
    import av

PAUSE_S = 0.010  # a network may pause within a picture; after so long the picture is taken for whole
DAMAGED = 60  # pictures after a broken one are built on it, up to the next key picture or so many
OPEN_S, READ_S = 10.0, 5.0  # limits of opening an address, and of waiting for its next bytes
BACK_OFF_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # before attempts to open a lost source again; the last one repeats
LIMITS = {"max_pixels": str(MAX_PIXELS)}
# Begin with the first picture. FFmpeg would gather a second of them to find out the rate.
AT_ONCE = {"fflags": "nobuffer", "analyzeduration": "0", "fpsprobesize": "0", "probesize": "32768"}
# FFmpeg's parsers wait for the next picture's start. So packets of RTSP, and bytes of MJPEG and H.264 over HTTP
# or TCP, are taken as they come, and cut here.
RTSP = {**AT_ONCE, "rtsp_transport": "tcp", "fflags": "nobuffer+nofillin+noparse", "probesize": "32"}
RAW, BYTES = {"raw_packet_size": "65536"}, "data"
CUT_HERE = {"mpjpeg", "mjpeg", "h264"}
RATE_OFF = 0.03  # of a recording, from the loop's
SECRET = re.compile(r"(?<=://)[^/@]*@")


class Frame:
    """A decoded video frame. Its length is that of its pixels in memory, in bytes."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self._frame = frame

    def __len__(self) -> int:
        return self._frame.width * self._frame.height * 3 // 2

    def square(self, px: int) -> Pixels:
        """Pixels `[px, px, 3]`, upright."""
        image: Image.Image = self._frame.to_image()  # type: ignore[no-untyped-call]
        turns = round(self._frame.rotation / 90) % 4
        return squash(image.rotate(90 * turns, expand=True) if turns else image, px)


def square(data: bytes | Frame, px: int) -> Pixels:
    """A shot's data as pixels `[px, px, 3]`."""
    return data.square(px) if isinstance(data, Frame) else load_square(io.BytesIO(data), px)


def pyav(source: str) -> Any:
    """The module. `source` is what needs it."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise SourceError(f"{source} needs PyAV: pip install 'tidesplit[video]'") from error
    av.logging.set_level(av.logging.PANIC)  # FFmpeg's own lines on each damaged packet
    return av


class H264Decoder:
    """Decodes the pictures of an H.264 stream in their order, each at once."""

    def __init__(self, skipped: Skipped) -> None:
        self._av, self._skipped = pyav("H.264"), skipped
        self._context = self._av.CodecContext.create("h264", "r")
        self._context.thread_count = 1  # threads of frames would each hold one back
        self._context.flags |= self._av.codec.context.Flags.low_delay
        self._context.options = LIMITS
        self._came_s: dict[int, float] = {}
        self._count = self._damaged = 0

    def __call__(self, unit: bytes, came_s: float) -> list[tuple[Frame, float]]:
        """Frames that are complete now, and when their last bytes came."""
        packet = self._av.Packet(unit)
        packet.pts = self._count
        self._came_s[self._count] = came_s
        self._came_s.pop(self._count - DAMAGED, None)  # of a picture that never became a frame
        self._count += 1
        try:
            frames = self._context.decode(packet)
        except self._av.error.FFmpegError as error:
            self._skip(error.strerror)
            return []
        whole = [(frame, self._came_s.pop(frame.pts, came_s)) for frame in frames]
        return [(Frame(frame), when_s) for frame, when_s in whole if self._sound(frame)]

    def _skip(self, reason: str) -> None:
        self._damaged = DAMAGED
        self._skipped("a picture of the stream", reason)

    def _sound(self, frame: av.VideoFrame) -> bool:
        """False where parts are missing that the decoder has made up, here or in a picture that this one builds on."""
        if frame.is_corrupt:
            self._skip("parts of it are missing")
            return False
        self._damaged = 0 if frame.key_frame else max(0, self._damaged - 1)
        if self._damaged:
            self._skipped("a picture of the stream", "it builds on a broken one")
        return not self._damaged


def recording(path: str, px: int, fps: float, skipped: Skipped, say: Say) -> Iterator[Picture]:
    """Every picture of a video file. A rate that is not `fps` is said."""
    module, count = pyav(f"the video {path}"), 0
    try:
        with module.open(path) as container:
            if not container.streams.video:
                raise SourceError(f"{path} holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            stream.codec_context.options = LIMITS
            if (rate := float(stream.average_rate or fps)) and abs(rate / fps - 1.0) > RATE_OFF:
                say(f"{path} has {rate:.4g} pictures a second, it is played at {fps:g}")
            for packet in container.demux(stream):
                for frame in _frames(packet, skipped, path):
                    yield Picture(Frame(frame).square(px), f"{path}:{count}")
                    count += 1
    except module.error.FFmpegError as error:
        raise SourceError(f"{path} is no video that can be read: {error.strerror}") from error
    if not count:
        raise SourceError(f"no picture of the video {path} can be decoded")


def _frames(packet: Any, skipped: Skipped, name: str) -> list[av.VideoFrame]:
    try:
        frames: list[av.VideoFrame] = packet.decode()
    except pyav(name).error.FFmpegError as error:
        skipped(f"a picture of {name}", error.strerror)
        return []
    return frames


class Camera:
    """The pictures of a device or an address, opened again where it was lost."""

    def __init__(self, address: str, fps: float, skipped: Skipped, say: Say) -> None:
        self._av, self._address, self._fps = pyav(f"the camera {shown(address)}"), address, fps
        self._skipped, self._say = skipped, say
        self.name, self._pictures = shown(address), 0

    def __str__(self) -> str:
        return f"{self._pictures} pictures from {self.name}"

    def __iter__(self) -> Iterator[list[Shot]]:
        """Pictures as they come, without end."""
        for shots in again(self._shots, self.name, self._say, time.sleep):
            self._pictures += len(shots)
            yield shots

    def _shots(self) -> Iterator[list[Shot]]:
        """Pictures until the camera is lost."""
        try:
            with self._open() as container:
                if not container.streams.video and container.format.name != BYTES:
                    raise SourceError(f"{self.name} holds no video")
                yield from self._read(container)
        except self._av.error.FFmpegError as error:
            raise SourceError(f"{self.name}: {error.strerror}") from error

    def _open(self) -> Any:
        if self._address.startswith("/dev/"):
            wanted = {"framerate": f"{self._fps:g}"}
            with contextlib.suppress(self._av.error.FFmpegError):  # not every camera has MJPEG
                return self._av.open(self._address, format="v4l2", options={**wanted, "input_format": "mjpeg"})
            return self._av.open(self._address, format="v4l2")
        if self._address.startswith("tcp:"):
            return self._connect(RAW, BYTES)
        container = self._connect(RTSP if self._address.startswith("rtsp") else AT_ONCE)
        if container.format.name not in CUT_HERE:
            return container
        container.close()
        return self._connect(RAW, BYTES)

    def _connect(self, options: dict[str, str], kind: str | None = None) -> Any:
        return self._av.open(self._address, format=kind, options=options, timeout=(OPEN_S, READ_S))

    def _read(self, container: Any) -> Iterator[list[Shot]]:
        stream, kind = container.streams[0], container.format.name
        if kind == BYTES:
            yield from self._cut(container, stream, b"")
            return
        stream = container.streams.video[0]
        codec = stream.codec_context
        if codec.name == "h264" and kind == "rtsp":
            yield from self._cut(container, stream, codec.extradata or b"")
            return
        codec.thread_count = 1
        codec.flags |= self._av.codec.context.Flags.low_delay
        codec.options = LIMITS
        for packet in container.demux(stream):
            now_s = time.perf_counter()
            if codec.name == "mjpeg":
                found: list[bytes | Frame] = [bytes(packet)] if packet.size else []
            else:
                found = [Frame(frame) for frame in _frames(packet, self._skipped, self.name)]
            yield [Shot(data, now_s, True, True) for data in found]

    def _cut(self, container: Any, stream: Any, start: bytes) -> Iterator[list[Shot]]:
        """Cut what comes in pieces, through a pipe: its reader notices a pause of the camera."""
        reading, writing = os.pipe()
        failed: list[Exception] = []

        def pump() -> None:
            try:
                with os.fdopen(writing, "wb", buffering=0) as file:
                    file.write(start)
                    for packet in container.demux(stream):
                        file.write(bytes(packet))
            except (self._av.error.FFmpegError, OSError) as error:
                failed.append(error)

        thread = threading.Thread(target=pump, daemon=True, name="packets")
        thread.start()
        with os.fdopen(reading, "rb") as file:
            for shots in Reader(file, lambda: H264Decoder(self._skipped), self._skipped, PAUSE_S):
                yield [shot._replace(waited=True, live=True) for shot in shots]
        thread.join()
        if failed:
            raise failed[0]


def again(
    shots: Callable[[], Iterator[list[Shot]]], name: str, say: Say, wait: Callable[[float], None]
) -> Iterator[list[Shot]]:
    """The shots of a source that is opened again, with back-off, wherever it ends or fails.

    Raises:
        SourceError: the source failed before it gave its first picture.
    """
    given, lost, failures = False, False, 0
    while True:
        reason = f"{name} has ended"
        try:
            for some in shots():
                if some and lost:
                    say(f"{name} is back")
                if some:
                    given, lost, failures = True, False, 0
                yield some
        except SourceError as error:
            reason = str(error)
        if not given:
            raise SourceError(reason)
        if not lost:
            say(f"camera lost: {reason}. It is opened again until it is back")
        lost = True
        wait(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])
        failures += 1


def shown(address: str) -> str:
    """The address without a name and password."""
    return SECRET.sub("", address)
