"""A stand-in for a camera, in a process of its own. A picture that cannot be written at its moment is lost.

Every picture shows its number, and the camera notes the moment at which it began to write it.
"""

from __future__ import annotations

import base64
import io
import multiprocessing
import os
import re
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from multiprocessing.connection import Connection
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from tidesplit.compression.codec.pixels import Pixels, natural_picture

NUMBERS = 512  # pictures show their number modulo this, as nine squares
SIDE = 3
SIZE = (640, 480)
LATE_S = 0.002  # the camera is still writing: a picture is lost
KEY_EVERY = 30  # pictures of the H.264 stream
PACKET = 1400  # bytes of a picture in one RTP packet


class Moment(NamedTuple):
    """What the camera writes `at_s` after its begin. A number below 0: no picture."""

    at_s: float
    number: int
    data: bytes


def numbered(number: int) -> Image.Image:
    """A picture that shows a number."""
    shown = _scene().copy()
    for bit, square in enumerate(_squares(shown)):
        square += np.uint8(190 * (number >> bit & 1))
    return Image.fromarray(shown)


@cache
def _scene() -> Pixels:
    return np.asarray(Image.fromarray(natural_picture(256)).resize(SIZE)) // 4


def number_in(pixels: Pixels) -> int:
    """The number that a picture shows, modulo `NUMBERS`."""
    return sum(int(square.mean() > 128) << bit for bit, square in enumerate(_squares(pixels)))


def _squares(pixels: Pixels) -> list[Pixels]:
    rows, columns = (np.linspace(0, side, SIDE + 1).astype(int) for side in pixels.shape[:2])
    return [
        pixels[rows[i] : rows[i + 1], columns[j] : columns[j + 1]] for i in range(SIDE) for j in range(SIDE)
    ]  # fmt: skip


def jpegs(count: int) -> list[bytes]:
    """Numbered pictures as JPEGs of about 20 kB."""
    files = [io.BytesIO() for _ in range(count)]
    for number, file in enumerate(files):
        numbered(number % NUMBERS).save(file, "JPEG", quality=90)
    return [file.getvalue() for file in files]


def with_segment(jpeg: bytes, payload: bytes) -> bytes:
    """The JPEG with application data (EXIF)."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def h264(count: int) -> list[bytes]:
    """Numbered pictures as one H.264 stream, as a Pi's encoder writes it: no later picture is needed for one."""
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt, context.time_base = *SIZE, "yuv420p", Fraction(1, 30)
    parameters = f"keyint={KEY_EVERY}:repeat-headers=1:threads=1"
    context.options = {"tune": "zerolatency", "preset": "ultrafast", "x264-params": parameters}
    units: list[bytes] = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(np.asarray(numbered(number % NUMBERS)), format="rgb24")
        frame.pts = number
        units += [bytes(packet) for packet in context.encode(frame)]
    return units


@contextmanager
def camera(plan: Sequence[Moment], to: str, away: tuple[float, float] = (0.0, 0.0)) -> Iterator[tuple[str, Connection]]:
    """A camera that waits for a True to begin, and its address. At the end it sends what it wrote, and what was lost.

    `to` is a named pipe, or empty for an RTSP server that goes away at a moment, for so many seconds.
    """
    ours, theirs = multiprocessing.Pipe()
    target, words = (film, (plan, to, theirs)) if to else (serve, (plan, away, theirs))
    process = multiprocessing.get_context("spawn").Process(target=target, args=words)
    process.start()
    try:
        yield (to or ours.recv()), ours
    finally:
        process.join(2)
        process.kill()


def _due(plan: Sequence[Moment], lost: list[int]) -> Iterator[Moment]:
    """What is to be written, when it is."""
    begin_s = time.perf_counter()
    for moment in plan:
        early_s = begin_s + moment.at_s - time.perf_counter()
        if early_s < -LATE_S:
            lost.append(moment.number)
            continue
        time.sleep(max(0.0, early_s))
        yield moment


def film(plan: Sequence[Moment], to: str, pipe: Connection) -> None:
    """Write the plan into the named pipe `to`, once a True has come through `pipe`."""
    wrote: list[tuple[int, float]] = []
    lost: list[int] = []
    with open(to, "wb", buffering=0) as file:
        pipe.recv()
        for moment in _due(plan, lost):
            wrote.append((moment.number, time.perf_counter()))
            view = memoryview(moment.data)
            while view:
                view = view[os.write(file.fileno(), view) :]
    pipe.send((wrote, lost))


def serve(plan: Sequence[Moment], away: tuple[float, float], pipe: Connection) -> None:
    """Serve the plan over RTSP (RFC 2326), as RTP within the connection (RFC 6184)."""
    wrote: list[tuple[int, float]] = []
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    pipe.send(f"rtsp://user:secret@127.0.0.1:{port}/camera")
    pipe.recv()
    parameters = [unit for unit in _units(plan[0].data) if unit[0] & 0x1F in (7, 8)]
    client: socket.socket | None = None
    left = list(plan)
    begin_s, sequence, key = time.perf_counter(), 0, False
    while left:
        now_s = time.perf_counter() - begin_s
        if away[0] <= now_s < sum(away):
            server.close()
            if client:
                client.close()
            time.sleep(begin_s + sum(away) - time.perf_counter())
            server, client = socket.create_server(("127.0.0.1", port)), None
        if client is None:
            client, key = _asked(server, parameters), False
            if away[1]:  # what was due meanwhile is gone
                left = [moment for moment in left if begin_s + moment.at_s >= time.perf_counter()] or left[-1:]
        moment = left.pop(0)
        time.sleep(max(0.0, begin_s + moment.at_s - time.perf_counter()))
        key = key or any(unit[0] & 0x1F == 5 for unit in _units(moment.data))
        if key:
            wrote.append((moment.number, time.perf_counter()))
            packets = _packets(moment, sequence)
            sequence += len(packets)
            client.sendall(b"".join(packets))
    pipe.send((wrote, []))
    server.close()
    if client:
        client.close()


def _units(data: bytes) -> list[bytes]:
    return [unit for unit in re.split(rb"\x00?\x00\x00\x01", data) if unit]


def _packets(moment: Moment, sequence: int) -> list[bytes]:
    """A picture's RTP packets. The last one has the marker."""
    parts: list[bytes] = []
    for unit in _units(moment.data):
        if len(unit) <= PACKET:
            parts.append(unit)
            continue
        for at in range(1, len(unit), PACKET):
            ends = at + PACKET >= len(unit)
            kind = unit[0] & 0x1F | (0x80 if at == 1 else 0) | (0x40 if ends else 0)
            parts.append(bytes((unit[0] & 0x60 | 28, kind)) + unit[at : at + PACKET])
    packets = []
    for number, part in enumerate(parts):
        marked = 0x80 if number == len(parts) - 1 else 0
        head = struct.pack(">BBHII", 0x80, 96 | marked, (sequence + number) & 0xFFFF, int(9e4 * moment.at_s), 1)
        packets.append(b"$\0" + struct.pack(">H", len(head) + len(part)) + head + part)
    return packets


def _asked(server: socket.socket, parameters: list[bytes]) -> socket.socket:
    """Take a client, and answer it until it asks to play."""
    client, _ = server.accept()
    sets = ",".join(base64.b64encode(unit).decode() for unit in parameters)
    body = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
        f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:video\r\n"
    )
    answers = {
        "OPTIONS": "Public: DESCRIBE, SETUP, PLAY\r\n\r\n",
        "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}",
        "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
        "PLAY": "Session: 1\r\n\r\n",
    }
    with client.makefile("rb") as file:
        method = ""
        while method != "PLAY":
            lines = [line.decode() for line in iter(lambda: file.readline().strip(), b"")]
            method = lines[0].split()[0]
            number = next(line for line in lines if line.lower().startswith("cseq"))
            client.sendall(f"RTSP/1.0 200 OK\r\n{number}\r\n{answers[method]}".encode())
    return client
