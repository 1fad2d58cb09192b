"""The link emulator as an object: a TCP relay whose direction from client to server follows an uplink trace.

All connections through one `Link` share one uplink queue and one downlink queue. A relay in user space has limits. The
kernel answers TCP handshakes itself, so connecting costs no round trip and works in a blackhole. TCP's slow start and
retransmission time-outs do not appear, and headers below TCP cost no bytes. `namespaces` has none of these limits.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from tidesplit.envs.traces.trace import Trace
from tidesplit.runtime.emulator.faults import Conditions, Script
from tidesplit.runtime.emulator.lines import Lines, Setup
from tidesplit.runtime.emulator.places import listeners, places_of
from tidesplit.runtime.emulator.relay import Cargo, Relay
from tidesplit.runtime.wire.address import Address

JOIN_S = 1.0


class Status(NamedTuple):
    """A link's state at one moment.

    ``queued_s`` is the uplink's queue, as the wait of a byte that enters now. ``failure`` is the reason why the server
    was not reached last, None where it was.
    """

    time_s: float
    bandwidth_bps: float
    queued_s: float
    held_bytes: int
    up_bytes: int
    down_bytes: int
    connections: int
    failure: str | None
    conditions: Conditions


class Link:
    """A link to the server ``to``, for use in a ``with`` block. Clients connect to ``address``.

    It listens on every address of ``listen``, of which ``address`` is the first, and tries every address of ``to``.

    The trace's clock starts with `start` or with the first byte from either end.

    Args:
        trace: uplink bandwidth over time, bits per second, and possibly round trips.
        to: host and port of the server.
        rtt_s: round trip where the trace has none.
        jitter_s: standard deviation of one-way delays.
        loss: share of packets that arrive a round trip late.
        downlink_bps: constant bandwidth from server to client, bits per second.
        rng: generator of jitter and loss.
        listen: host and port for clients; port 0 is any free port.
        script: scheduled faults.
    """

    def __init__(
        self,
        trace: Trace,
        to: tuple[str, int],
        rtt_s: float = 0.060,
        jitter_s: float = 0.0,
        loss: float = 0.0,
        downlink_bps: float = 50e6,
        rng: np.random.Generator | None = None,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        script: Script | None = None,
    ) -> None:
        setup = Setup(trace, rtt_s, jitter_s, loss, downlink_bps, script or Script())
        self._lines: Lines[Cargo] = Lines(setup, rng or np.random.default_rng())
        self._to, self._listen = to, listen

    def __enter__(self) -> Link:
        """Listen and serve.

        Raises:
            OSError: the address to listen on is taken or not this machine's, or the server's name is unknown.
        """
        to = places_of(*self._to)
        own = listeners(*self._listen)
        host, port = own[0].getsockname()[:2]
        self.address: tuple[str, int] = (str(host), int(port))
        self._relay = Relay(own, to, self._lines)
        self._thread = threading.Thread(target=self._relay.run, name="link", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every socket, within `JOIN_S`. May be called again."""
        self._relay.stop()
        self._thread.join(JOIN_S)

    def start(self) -> None:
        """Start the trace's clock, unless it runs already."""
        with self._lines.lock:
            self._lines.begin()
        self._relay.ring()

    def now_s(self) -> float:
        """Seconds on the trace's clock; 0 before it starts."""
        return self._lines.now_s()

    def status(self) -> Status:
        """The link's present state."""
        lines, relay = self._lines, self._relay
        with lines.lock:
            now_s = lines.now_s()
            counts = lines.up.held_bytes, relay.up_bytes, relay.down_bytes, len(relay.connections)
            failure = relay.failure and f"{Address(*self._to)}: {relay.failure}"
            return Status(now_s, lines.bandwidth_bps(), lines.up.queued_s(now_s), *counts, failure, lines.now)

    def blackhole(self, on: bool = True) -> None:
        """Take the link away or bring it back. Bytes that had left still arrive; all others are held."""
        self.change(dark=on)

    def change(self, **fields: Any) -> None:
        """Change fields of the `Conditions` without scripted faults, as in ``change(bandwidth_factor=0.5)``."""
        with self._lines.lock:
            self._lines.set(replace(self._lines.sound, **fields))
        self._relay.ring()

    def reset(self) -> None:
        """Reset every open connection at both ends."""
        self._stroke("reset")

    def half_close(self) -> None:
        """End every client's incoming stream. Its own bytes still reach the server."""
        self._stroke("half-close")

    def _stroke(self, kind: str) -> None:
        with self._lines.lock:
            self._lines.strokes.append(kind)
        self._relay.ring()
