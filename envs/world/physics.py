"""The physical numbers of the world, each once with its unit and source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """What surrounds the CNN. ``assumed`` marks a number that no measurement of ours stands behind yet."""

    rtt_s: float = 0.060
    """Round trip of an empty message where the trace gives none: LTE in the United States, assumed."""
    request_s: float = 0.0066
    """What a request usually takes beyond the link's round trip, its bytes, and the profile's decode and tail: gRPC,
    hand-overs between threads, a tail that does not run in a hot loop. benchmarks/request_overhead.py: 6.6 ms in the
    median (n = 1,080), more behind pictures (10.1) than behind late cuts (4.5), whose tails are shorter."""
    request_spread: float = 0.4
    """Its log-normal spread: quartiles of 4.9 and 8.8 ms and a 95th percentile of 11.8 were found."""
    rtt_jitter: float = 0.05
    """Relative (log-normal) spread of the round trip from frame to frame: an LTE uplink grant is asked for every 10 ms
    (3GPP TS 36.213), which spreads it by 10 / sqrt(12) = 3 of 60 ms."""
    overhead_bytes: float = 150.0
    """Per message beside the payload: HTTP/2 and gRPC headers, a TLS record, TCP and IP; counted from the formats."""
    initial_window_bytes: float = 14_600.0
    """TCP sends ten segments before the first acknowledgement (RFC 6928) ..."""
    idle_s: float = 1.0
    """... and again after this idle time, the minimum retransmission time-out of RFC 6298 (RFC 5681, 4.1)."""
    probe_after_s: float = 0.5
    """A probe is sent when nothing else was for this long (22 kbit/s): bandwidth is seen only by sending."""
    probe_bytes: float = 1_350.0
    """A probe fills one packet."""
    window: int = 8
    """Messages that may be unanswered at a time; a link that answers nothing is not fed more."""
    guard_s: float = 0.005
    """Reserve that the fallback keeps before the deadline."""
    throttled_slowdown: float = 1.5
    """A hot Raspberry Pi 4 goes from 1.5 to 1.0 GHz."""
    mean_cool_s: float = 60.0
    mean_hot_s: float = 10.0
    """How long the device stays at either clock, assumed."""
    compute_jitter: float = 0.03
    """Relative (log-normal) spread of compute times from frame to frame, assumed."""
    calm_wait_s: float = 0.001
    busy_wait_s: float = 0.015
    mean_calm_s: float = 30.0
    mean_busy_s: float = 5.0
    """Mean wait at a server that is calm or busy, and how long it stays so, assumed. The machine
    behind the first hop makes messages wait. A machine further away always has a worker free."""
    wired_rtt_s: float = 0.020
    """Round trip between two servers where the trace of their hop gives none. Scission (Lockhart et al., UCC 2020) uses
    this value, and 50 Mbit/s."""
    wired_rtt_jitter: float = 0.01
    """Relative log-normal jitter between servers. Small, because a wired link has no uplink grants. Assumed."""

    def round_trip(self, hop: int) -> tuple[float, float]:
        """Round trip of an empty message over a hop (0: the mobile uplink), seconds, and its relative jitter."""
        return (self.wired_rtt_s, self.wired_rtt_jitter) if hop else (self.rtt_s, self.rtt_jitter)

    def usual_rtt_s(self, hop: int = 0) -> float:
        """Round trip of a request that the device assumes before it has measured one. Every hop is one more request."""
        return self.round_trip(hop)[0] + self.request_s
