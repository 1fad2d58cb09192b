"""The limits of one client: requests under way, and requests a second. The time is passed in.

A client is a device, by the id in its metadata, or else an address. Ids are no proof: a client may make up many. So
these limits hold for devices that misbehave by mistake; tokens and certificates keep strangers out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import grpc

from tidesplit.runtime.wire.refusals import RefusedError
from tidesplit.runtime.wire.stream_place import DEVICE_METADATA

__all__ = ["ClientLimits", "Limit", "client_of", "device_of"]

Limit = Literal["rate", "share", "full", "displaced", "wait"]  # why a request was refused; the last three: the queue's
# Two seconds' frames may come at once: so long a device waits for an answer, and a link that stalled holds them back.
BURST_S = 2.0
# A client that was refused is admitted again with this part of its burst. Otherwise it would be refused at every frame.
RESUMES = 0.5
MOST_ID_CHARACTERS = 64
PORT = re.compile(r":\d+$")


def device_of(metadata: Iterable[tuple[str, Any]] | None) -> str:
    """The device's id in a call's metadata, empty where there is none."""
    return next((str(value)[:MOST_ID_CHARACTERS] for key, value in metadata or () if key == DEVICE_METADATA), "")


def client_of(device: str, peer: str) -> str:
    """A client's name, from the id of its device and its address with port. No id equals an address."""
    return f"device {device}" if device else PORT.sub("", peer)


@dataclass
class _Counts:
    """One client: its requests under way, and those that it may still send at once at the time `at_s`."""

    held: int
    left: float
    at_s: float
    paused: bool = False


class ClientLimits:
    """Admits requests. `most` is the number under way for one client; `rate` is in requests a second, 0 is any."""

    def __init__(self, most: int, rate: float = 0.0) -> None:
        self._most, self._rate, self._burst = most, rate, max(1.0, BURST_S * rate)
        self._full_s = self._burst / rate if rate else 0.0  # after so long without a request, a whole burst is left
        self._clients: dict[str, _Counts] = {}
        self._swept_s = -math.inf

    def __len__(self) -> int:
        return len(self._clients)

    def check_rate(self, name: str, now_s: float) -> None:
        """Count a request. RefusedError where the client has sent too many; it then has to pause."""
        if not self._rate:
            return
        client = self._client(name, now_s)
        client.left = min(self._burst, client.left + self._rate * (now_s - client.at_s))
        client.at_s = now_s
        enough = max(1.0, RESUMES * self._burst) if client.paused else 1.0
        client.paused = client.left < enough
        if client.paused:
            resumes = max(1.0, RESUMES * self._burst)
            raise RefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"more than {self._rate:g} requests a second from this device, the limit here",
                limit="rate", pushback_s=(resumes - client.left) / self._rate,
            )  # fmt: skip
        client.left -= 1.0

    def has_share(self, name: str) -> bool:
        """True where the client has its share under way."""
        return name in self._clients and self._clients[name].held >= self._most

    def over_share(self, name: str, pushback_s: float) -> RefusedError | None:
        """The refusal of one more request of a client that has its share under way; None where it has less."""
        if not self.has_share(name):
            return None
        return RefusedError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"{self._most} requests of this device are under way, its share here",
            limit="share", pushback_s=pushback_s,
        )  # fmt: skip

    def enter(self, name: str, now_s: float) -> None:
        """A request begins."""
        self._client(name, now_s).held += 1

    def leave(self, name: str) -> None:
        """A request that had begun ended."""
        client = self._clients[name]
        client.held -= 1
        if not (client.held or self._rate):
            del self._clients[name]

    def _client(self, name: str, now_s: float) -> _Counts:
        if now_s - self._swept_s > self._full_s:  # nothing needs to be known of the others any more
            self._swept_s = now_s
            self._clients = {n: c for n, c in self._clients.items() if c.held or now_s - c.at_s <= self._full_s}
        return self._clients.setdefault(name, _Counts(0, self._burst, now_s))
