"""Cameras that are opened by name through PyAV (the extra `video`): devices (V4L2) and addresses (RTSP, HTTP, TCP)."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tidesplit.runtime.camera.picture import Say, Skipped, SourceError
from tidesplit.runtime.camera.reading import PictureReader, Shot
from tidesplit.runtime.camera.video_frames import LIMITS, DecodedFrame, H264Decoder, frames_of, pyav

PAUSE_S = 0.010  # a network may pause within a picture; after so long the picture is taken for whole
OPEN_S, READ_S = 10.0, 5.0  # limits of opening an address, and of waiting for its next bytes
BACK_OFF_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # before attempts to open a lost source again; the last one repeats
# Begin with the first picture. FFmpeg would gather a second of them to find out the rate.
AT_ONCE = {"fflags": "nobuffer", "analyzeduration": "0", "fpsprobesize": "0", "probesize": "32768"}
# FFmpeg's parsers wait for the next picture's start. So packets of RTSP, and bytes of MJPEG and H.264 over HTTP
# or TCP, are taken as they come, and cut here.
RTSP = {**AT_ONCE, "rtsp_transport": "tcp", "fflags": "nobuffer+nofillin+noparse", "probesize": "32"}
RAW, BYTES = {"raw_packet_size": "65536"}, "data"
CUT_HERE = {"mpjpeg", "mjpeg", "h264"}


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
                found: list[bytes | DecodedFrame] = [bytes(packet)] if packet.size else []
            else:
                found = [DecodedFrame(frame) for frame in frames_of(packet, self._skipped, self.name)]
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
            for shots in PictureReader(file, lambda: H264Decoder(self._skipped), self._skipped, PAUSE_S):
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
    """The device, or the address's scheme and host. The rest may hold names and passwords."""
    scheme, slashes, rest = address.partition("://")
    return scheme + slashes + rest.rpartition("@")[2].partition("/")[0]
