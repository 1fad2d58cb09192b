"""An output for home automation: what the camera shows, as JSON over MQTT 3.1.1 (paho-mqtt, the extra `mqtt`).

TOPIC/state       one JSON object, at most once in `every_s` seconds, retained
TOPIC/available   "online" or "offline", retained; the broker says "offline" where the device vanishes (last will)

With discovery, Home Assistant finds its sensors by itself.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import ssl
import threading
import time
from pathlib import Path
from typing import Any

from tidesplit.runtime.log.record import Record
from tidesplit.runtime.wire.address import Address, read_address
from tidesplit.runtime.wire.security import check_plaintext

__all__ = ["Mqtt", "read_login", "read_place"]

PLAIN_PORT, TLS_PORT = 1883, 8883
KEEPALIVE_S = 15  # after half as much again without a word the broker says "offline"
CONNECT_S = SENT_S = 5.0  # so long a broker may need to let a device in, and to take a message
WAKE_S = 0.05  # between looks at a connection that may be lost meanwhile
TOPIC = re.compile(r"[^+#\0/$][^+#\0]{0,199}")
DISCOVERY = "homeassistant/sensor"
SENSORS = (  # name, field of the state, what stands for null, unit, icon
    ("Class", "class", " or 'unknown'", "", "mdi:cctv"),
    ("Confidence", "confidence", "", "", "mdi:percent"),
    ("Latency", "latency_ms", "", "ms", "mdi:timer-outline"),
)


def read_place(text: str, tls: bool) -> tuple[Address, str]:
    """Broker and topic of --mqtt HOST[:PORT]/TOPIC.

    Raises:
        ValueError: one sentence with the form expected.
    """
    where, _, topic = text.strip().partition("/")
    if "://" in text or not where or TOPIC.fullmatch(topic) is None:
        raise ValueError(
            f"--mqtt {text}: HOST[:PORT]/TOPIC expected, such as 127.0.0.1/tidesplit/door, without + and #"
        )
    has_port = re.search(r":\d+$", where) and (where.count(":") == 1 or "]" in where)
    return read_address("--mqtt", where if has_port else f"{where}:{TLS_PORT if tls else PLAIN_PORT}"), topic


def read_login(path: Path | None) -> tuple[str, str] | None:
    """User and password, the two lines of a file.

    Raises:
        ValueError: the file cannot be read, or has other lines.
    """
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--mqtt-login {path}: not a readable text file ({error})") from error
    if len(lines) != 2 or not lines[0]:
        raise ValueError(f"--mqtt-login {path}: {len(lines)} lines received, two expected: user and password")
    return lines[0], lines[1]


def _tls(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"--mqtt-ca {ca}: no certificates in PEM ({error})") from error


class Summary:
    """What is sent: the newest answer, and counts since the message before."""

    def __init__(self) -> None:
        self._newest: Record | None = None
        self._frames = self._missed = 0

    def add(self, record: Record) -> None:
        """Take a settled frame's record."""
        self._frames += 1
        self._missed += record.answered_by == "miss"
        if record.answered_by != "miss" or self._newest is None:
            self._newest = record

    def message(self, now_s: float) -> dict[str, Any]:
        """The message at the time of day `now_s`."""
        record = self._newest
        assert record is not None
        top = [[name, float(f"{share:.4g}")] for name, share in record.top()]
        return {
            "time": round(now_s, 3), "frame": record.frame, "class": record.answer,
            "confidence": top[0][1] if top else None, "top5": top, "tensors": record.written_tensors(),
            "answered_by": record.answered_by,
            "latency_ms": round(1e3 * record.latency_s, 1) if math.isfinite(record.latency_s) else None,
            "decision": record.decision, "frames": self._frames, "missed": self._missed, "error": record.error,
        }  # fmt: skip


def discovery(topic: str) -> dict[str, dict[str, Any]]:
    """Home Assistant's descriptions of the sensors, by topic."""
    device = "tidesplit_" + re.sub(r"[^a-z0-9]+", "_", topic.lower()).strip("_")
    return {
        f"{DISCOVERY}/{device}/{field}/config": {
            "name": name, "unique_id": f"{device}_{field}", "icon": icon,
            "state_topic": f"{topic}/state", "availability_topic": f"{topic}/available",
            "value_template": f"{{{{ value_json['{field}']{unknown} }}}}",
            **({"unit_of_measurement": unit} if unit else {"json_attributes_topic": f"{topic}/state"}),
            "device": {"identifiers": [device], "name": f"Tidesplit {topic}"},
        }
        for name, field, unknown, unit, icon in SENSORS
    }  # fmt: skip


class Mqtt:
    """Publishes. A broker that is not there raises at each record, and is tried again by the log.

    Raises:
        ValueError: an option cannot be used, or paho-mqtt is not installed.
    """

    def __init__(
        self, place: str, ca: Path | None = None, login: Path | None = None, every_s: float = 1.0,
        discover: bool = False, insecure: bool = False,
    ) -> None:  # fmt: skip
        try:
            from paho.mqtt import client
        except ImportError as error:
            raise ValueError("--mqtt needs a package that is missing: pip install 'tidesplit[mqtt]'") from error
        self._paho: Any = client  # its names are not all exported for type checkers
        self._every_s, self._discover = every_s, discover
        self._address, self._topic = read_place(place, ca is not None)
        check_plaintext("--mqtt", self._address.host, ca is not None, insecure, "--mqtt-ca")
        self._tls, self._login = None if ca is None else _tls(ca), read_login(login)
        self.title = f"--mqtt {place}"
        self._summary, self._next_s = Summary(), -math.inf
        self._client: Any = None  # None while there is no connection
        self._answer = ""  # the broker's to the last attempt to connect
        self._answered = threading.Event()

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        self._summary.add(record)
        if (now_s := time.monotonic()) < self._next_s:
            return
        if self._client is None or not self._client.is_connected():
            self._connect()
        self._publish("state", json.dumps(self._summary.message(time.time())))
        self._summary, self._next_s = Summary(), now_s + self._every_s

    def close(self) -> None:
        """Say that the device is offline, and go."""
        if self._client is not None and self._client.is_connected():
            self._publish("available", "offline")
        self._leave()

    def _connect(self) -> None:
        self._leave()
        made = self._paho.Client(
            self._paho.CallbackAPIVersion.VERSION2, f"tidesplit-{secrets.token_hex(8)}", reconnect_on_failure=False
        )
        if self._tls is not None:
            made.tls_set_context(self._tls)
        if self._login is not None:
            made.username_pw_set(*self._login)
        made.will_set(f"{self._topic}/available", "offline", qos=1, retain=True)
        made.connect_timeout = CONNECT_S
        self._answer, made.on_connect = "", self._connected
        self._answered.clear()
        made.connect(self._address.host, self._address.port, KEEPALIVE_S)
        made.loop_start()
        self._client = made
        if not self._answered.wait(CONNECT_S) or self._answer != "Success":
            self._leave()
            raise ConnectionError(f"the broker does not let this device in: {self._answer or 'no answer'}")
        for topic, content in discovery(self._topic).items() if self._discover else ():
            self._send(topic, json.dumps(content))
        self._publish("available", "online")

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        """Take the broker's answer. Runs on paho's thread."""
        self._answer = str(reason)
        self._answered.set()

    def _publish(self, name: str, text: str) -> None:
        self._send(f"{self._topic}/{name}", text)

    def _send(self, topic: str, text: str) -> None:
        """Send a message and wait until the broker has it, so that nothing piles up here."""
        sent = self._client.publish(topic, text, qos=1, retain=True)
        try:
            end_s = time.monotonic() + SENT_S
            while self._client.is_connected() and not sent.is_published() and time.monotonic() < end_s:
                sent.wait_for_publish(WAKE_S)
        except (RuntimeError, ValueError) as error:
            raise ConnectionError(f"the message could not be sent: {error}") from error
        if not sent.is_published():
            self._leave()
            raise ConnectionError("the broker does not take the message")

    def _leave(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
        self._client = None
