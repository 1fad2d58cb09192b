"""The link emulator in a process: a TCP relay whose client-to-server direction follows an uplink trace.

All connections through one `Link` share one uplink queue and one downlink queue (`shaper`). What user space
cannot do: the kernel itself answers a TCP handshake, so connecting costs no round trip and works in a blackhole; TCP's
slow start and retransmission time-outs do not show, and headers below TCP are not charged.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from tidesplit.envs.traces.trace import Trace
from tidesplit.runtime.emulator.faults import Conditions, Script
from tidesplit.runtime.emulator.lines import Lines, Setup
from tidesplit.runtime.emulator.relay import Cargo, Relay

JOIN_S = 1.0


class Status(NamedTuple):
    """What a link looks like at one moment; ``queued_s`` is what a byte entering now would wait for the uplink."""

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
    """A link on ``trace`` to the server ``to``; use it in a ``with``, connect to ``address``.

    The trace's clock starts at `start` or else with the first byte from either end. ``rtt_s`` counts where the trace
    has no round trip of its own; ``jitter_s`` is the standard deviation of each way, ``loss`` the share of packets that
    arrive a round trip late. Bandwidths in bits per second.
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
            OSError: the address to listen on is taken or not ours, or the server's name is not known.
        """
        family, _, _, _, to = socket.getaddrinfo(*self._to, type=socket.SOCK_STREAM)[0]
        own_family, _, _, _, own = socket.getaddrinfo(*self._listen, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server((str(own[0]), int(own[1])), family=own_family, backlog=64)
        host, port = listener.getsockname()[:2]
        self.address: tuple[str, int] = (str(host), int(port))
        self._relay = Relay(listener, (str(to[0]), int(to[1])), family, self._lines)
        self._thread = threading.Thread(target=self._relay.run, name="link", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close every socket; returns within `JOIN_S`; once more does no harm."""
        self._relay.stop()
        self._thread.join(JOIN_S)

    def start(self) -> None:
        """The trace's clock starts now, unless it runs already."""
        with self._lines.lock:
            self._lines.begin()
        self._relay.ring()

    def now_s(self) -> float:
        """Seconds on the trace's clock, 0 before it starts."""
        return self._lines.now_s()

    def status(self) -> Status:
        """What the link looks like now."""
        lines, relay = self._lines, self._relay
        with lines.lock:
            now_s = lines.now_s()
            counts = lines.up.held_bytes, relay.up_bytes, relay.down_bytes, len(relay.connections)
            return Status(now_s, lines.bandwidth_bps(), lines.up.queued_s(now_s), *counts, relay.failure, lines.now)

    def blackhole(self, on: bool = True) -> None:
        """The link is gone (what has left still arrives, all else is held), or back."""
        self._set(dark=on)

    @property
    def extra_latency_s(self) -> float:
        """Added to the round trip, half each way, of packets that have not left yet."""
        return self._lines.sound.extra_latency_s

    @extra_latency_s.setter
    def extra_latency_s(self, seconds: float) -> None:
        self._set(extra_latency_s=seconds)

    @property
    def jitter_s(self) -> float:
        """Standard deviation of each packet's way."""
        return self._lines.sound.jitter_s

    @jitter_s.setter
    def jitter_s(self, seconds: float) -> None:
        self._set(jitter_s=seconds)

    @property
    def bandwidth_factor(self) -> float:
        """The uplink has so many times the trace's bandwidth; 0 stops the uplink alone."""
        return self._lines.sound.bandwidth_factor

    @bandwidth_factor.setter
    def bandwidth_factor(self, factor: float) -> None:
        self._set(bandwidth_factor=factor)

    def reset(self) -> None:
        """Every open connection is reset at both ends, within a moment."""
        self._stroke("reset")

    def half_close(self) -> None:
        """Every client reads the end of its stream; what it sends still reaches the server."""
        self._stroke("half-close")

    def _set(self, **changed: Any) -> None:
        """Change fields of the conditions that hold apart from the script."""
        with self._lines.lock:
            self._lines.set(replace(self._lines.sound, **changed))
        self._relay.ring()

    def _stroke(self, kind: str) -> None:
        with self._lines.lock:
            self._lines.strokes.append(kind)
        self._relay.ring()
