"""Answers over MQTT: options as tables, a broker of a few lines, and mosquitto where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.deployed import CLASSES, DEMAND
from tests.runtime.waiting import LIMIT_S, until
from tidesplit.runtime.log.mqtt import Mqtt, Summary, discovery, read_login, read_place
from tidesplit.runtime.log.record import AnsweredBy, Record
from tidesplit.runtime.log.writer import Log
from tidesplit.runtime.wire.output_tensors import AnswerForm

BROKER = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def record(frame: int, by: AnsweredBy = "server", name: str = "dog") -> Record:
    made = Record(
        frame=frame, picture="", label=None, demand=DEMAND, decision="p1", row=0, state={},
        mask=np.ones(1, dtype=np.bool_), foreseen={},
    )  # fmt: skip
    made.answered_by = by
    if by != "miss":
        made.latency_s = 0.0832
        made.conclude(np.float32([2.0 * (known == name) for known in CLASSES]), AnswerForm.of_classes(CLASSES))
    return made


@pytest.mark.parametrize(
    ("text", "tls", "place"),
    [("localhost/a", False, "localhost:1883 a"), ("Broker.lan/home/door", True, "broker.lan:8883 home/door"),
     ("10.0.0.7:2000/a b", False, "10.0.0.7:2000 a b"), ("[::1]/x", False, "[::1]:1883 x"),
     ("[::1]:9/x", False, "[::1]:9 x")],
)  # fmt: skip
def test_places(text: str, tls: bool, place: str) -> None:
    address, topic = read_place(text, tls)
    assert f"{address} {topic}" == place


@pytest.mark.parametrize(
    "text", ["localhost", "localhost/", "/a", "localhost/a/#", "localhost/+", "mqtt://localhost/a", "localhost:0/a",
             "localhost:x/a", "localhost//a", "localhost/$SYS", ""],
)  # fmt: skip
def test_no_places(text: str) -> None:
    with pytest.raises(ValueError, match=r"--mqtt .* expected"):
        read_place(text, False)


def test_logins(tmp_path: Path) -> None:
    file = tmp_path / "login"
    assert read_login(None) is None
    file.write_text("me\na pass word\n")
    assert read_login(file) == ("me", "a pass word")
    for text in ("", "me", "\nx", "a\nb\nc"):
        file.write_text(text)
        with pytest.raises(ValueError, match="lines received, two expected"):
            read_login(file)
    with pytest.raises(ValueError, match="not a readable text file"):
        read_login(tmp_path / "none")


def test_plaintext_only_on_this_machine(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--mqtt 10\.0\.0\.7 .* in the clear: give --mqtt-ca, or --insecure"):
        Mqtt("10.0.0.7/a")
    Mqtt("10.0.0.7/a", insecure=True)
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(ValueError, match=r"--mqtt-ca .*: no certificates in PEM"):
        Mqtt("10.0.0.7/a", ca=tmp_path / "ca")


def test_the_message_has_the_newest_answer_and_counts() -> None:
    summary = Summary()
    for frame, by in enumerate(("server", "device", "miss")):
        summary.add(record(frame, by))  # type: ignore[arg-type]
    message = summary.message(5.0)
    assert {name: message[name] for name in ("frame", "class", "answered_by", "frames", "missed", "latency_ms")} == {
        "frame": 1, "class": "dog", "answered_by": "device", "frames": 3, "missed": 1, "latency_ms": 83.2,
    }  # fmt: skip
    assert message["top5"][0] == ["dog", message["confidence"]]
    empty = Summary()
    empty.add(record(7, "miss"))
    assert [empty.message(5.0)[name] for name in ("class", "latency_ms", "missed")] == [None, None, 1]


def test_discovery_names_topics_and_one_device() -> None:
    found = discovery("home/Front door")
    assert next(iter(found)) == "homeassistant/sensor/tidesplit_home_front_door/class/config"
    assert {config["availability_topic"] for config in found.values()} == {"home/Front door/available"}
    assert len({config["device"]["identifiers"][0] for config in found.values()}) == 1
    assert len({config["unique_id"] for config in found.values()}) == len(found)


class SmallBroker:
    """Takes connections and messages of MQTT 3.1.1, and keeps them. `code` is its answer to a connection."""

    def __init__(self, code: int = 0, silent: bool = False) -> None:
        self.code, self.silent = code, silent
        self.messages: list[tuple[str, bytes, bool]] = []
        self.wills: list[tuple[str, bytes]] = []
        self.sockets: list[socket.socket] = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self.listening.getsockname()[1]}/door"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self.listening.accept()
            except OSError:
                return
            self.sockets.append(connected)
            threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        with connected, connected.makefile("rb") as file:
            while head := file.read(1):
                size, shift = 0, 0
                while True:
                    (byte,) = file.read(1)
                    size, shift = size | (byte & 127) << shift, shift + 7
                    if byte < 128:
                        break
                self._take(connected, head[0], file.read(size))

    def _take(self, connected: socket.socket, head: int, body: bytes) -> None:
        def text(at: int) -> tuple[bytes, int]:
            (size,) = struct.unpack_from(">H", body, at)
            return body[at + 2 : at + 2 + size], at + 2 + size

        if head >> 4 == 1:
            _, at = text(10)
            topic, at = text(at)
            self.wills.append((topic.decode(), text(at)[0]))
            connected.sendall(bytes([0x20, 2, 0, self.code]))
        elif head >> 4 == 3:
            topic, at = text(0)
            self.messages.append((topic.decode(), body[at + 2 :], bool(head & 1)))
            if not self.silent:
                connected.sendall(bytes([0x40, 2]) + body[at : at + 2])

    def close(self) -> None:
        self.listening.close()
        for connected in self.sockets:
            connected.close()


@contextmanager
def broker(code: int = 0, silent: bool = False) -> Iterator[SmallBroker]:
    made = SmallBroker(code, silent)
    try:
        yield made
    finally:
        made.close()


def test_messages_are_retained_and_at_most_as_often_as_asked() -> None:
    with broker() as place:
        sink = Mqtt(place.place, every_s=1000.0, discover=True)
        for frame in range(5):
            sink(record(frame))
        sink.close()
    topics = [topic for topic, _, _ in place.messages]
    assert topics == [*discovery("door"), "door/available", "door/state", "door/available"]
    assert place.wills == [("door/available", b"offline")]
    assert [text for topic, text, _ in place.messages if topic == "door/available"] == [b"online", b"offline"]
    assert all(retained for _, _, retained in place.messages)
    assert json.loads(place.messages[-2][1])["class"] == "dog"


@pytest.mark.parametrize(
    ("code", "silent", "sentence"),
    [(5, False, "the broker does not let this device in: Not authorized"),
     (0, True, "the broker does not take the message")],
)  # fmt: skip
def test_brokers_that_refuse_or_hang(code: int, silent: bool, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidesplit.runtime.log.mqtt.SENT_S", 0.2)
    with broker(code, silent) as place, pytest.raises(ConnectionError, match=sentence):
        Mqtt(place.place)(record(0))


def test_a_broker_that_goes_takes_no_other_output_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said once, other outputs go on, and when it is back the sink connects by itself."""
    monkeypatch.setattr("tidesplit.runtime.log.writer.RETRY_S", 0.05)
    said: list[str] = []
    seen: list[int] = []
    with broker() as place:
        with Log([Mqtt(place.place, every_s=0.0), lambda r: seen.append(r.frame)], said.append) as log:
            log(record(0))
            until(lambda: len(place.messages) == 2)
            place.sockets[0].shutdown(socket.SHUT_RDWR)
            frames = 1
            end_s = time.monotonic() + LIMIT_S
            while place.messages[-1][0] != "door/state" or len(place.sockets) < 2:
                log(record(frames))
                frames += 1
                time.sleep(0.02)
                assert time.monotonic() < end_s
        assert seen == list(range(frames))
    assert len([text for text in said if "it is tried again" in text]) <= 1
    assert all(text.startswith("--mqtt 127.0.0.1:") for text in said)


def test_nobody_there_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidesplit.runtime.log.writer.RETRY_S", 0.01)
    said: list[str] = []
    with Log([Mqtt("127.0.0.1:1/a")], said.append) as log:
        for frame in range(5):
            log(record(frame))
            time.sleep(0.02)
    assert len(said) == 2
    assert "Connection refused. Frames go on; it is tried again" in said[0]
    assert "5 frames are missing in it" in said[1]


def listens(port: int) -> bool:
    with socket.socket() as opened:
        return opened.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def mosquitto(folder: Path, *lines: str) -> Iterator[int]:
    """A real broker with these lines in its configuration, for users in the file `users`."""
    if BROKER is None:
        pytest.skip("needs mosquitto")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "conf").write_text("\n".join([f"listener {port} 127.0.0.1", *lines]) + "\n")
    if os.getuid() == 0:
        (folder / "conf").write_text((folder / "conf").read_text() + "user root\n")
    process = subprocess.Popen([BROKER, "-c", str(folder / "conf")], stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port))
        yield port
    finally:
        process.terminate()
        process.wait(10)


def watching(port: int, ca: Path | None = None) -> tuple[Any, list[tuple[str, str]]]:
    """A subscriber to everything below `door`, and what it got."""
    client = pytest.importorskip("paho.mqtt.client")
    got: list[tuple[str, str]] = []
    made = client.Client(client.CallbackAPIVersion.VERSION2)
    made.on_connect = lambda *_: made.subscribe("door/#", qos=1)
    made.on_message = lambda _c, _d, message: got.append((message.topic, message.payload.decode()))
    if ca is not None:
        made.tls_set_context(ssl.create_default_context(cafile=str(ca)))
        made.username_pw_set("watcher", "x")
    made.connect("127.0.0.1" if ca is None else "localhost", port)
    made.loop_start()
    return made, got


def test_mosquitto_keeps_the_state_and_says_when_the_device_vanishes(tmp_path: Path) -> None:
    with mosquitto(tmp_path, "allow_anonymous true") as port:
        sink = Mqtt(f"127.0.0.1:{port}/door", every_s=0.0)
        sink(record(3))
        watcher, got = watching(port)
        until(lambda: len(got) == 2)
        assert dict(got)["door/available"] == "online"
        assert json.loads(dict(got)["door/state"])["class"] == "dog"
        sink._client.socket().shutdown(socket.SHUT_RDWR)  # as if the device lost its power
        until(lambda: got[-1] == ("door/available", "offline"))
        sink(record(4))
        until(lambda: json.loads(dict(got)["door/state"])["frame"] == 4)
        assert dict(got)["door/available"] == "online"
        sink.close()
        until(lambda: got[-1] == ("door/available", "offline"))
        watcher.disconnect()
        watcher.loop_stop()


# paho-mqtt leaves the socket of a failed TLS handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl:pytest.PytestUnraisableExceptionWarning")
def test_mosquitto_with_tls(tmp_path: Path, keys: Path) -> None:
    (tmp_path / "login").write_text("me\nsecret\n")
    lines = ("allow_anonymous true", f"cafile {keys / 'ca.pem'}", f"certfile {keys / 'server.pem'}",
             f"keyfile {keys / 'server.key'}")  # fmt: skip
    with mosquitto(tmp_path, *lines) as port:
        sink = Mqtt(f"localhost:{port}/door", ca=keys / "ca.pem", login=tmp_path / "login")
        sink(record(3))
        watcher, got = watching(port, keys / "ca.pem")
        until(lambda: len(got) == 2)
        sink.close()
        watcher.disconnect()
        watcher.loop_stop()
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            Mqtt(f"localhost:{port}/door", ca=keys / "stranger.pem")(record(4))
