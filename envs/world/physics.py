"""The physical numbers of the world, each once with its unit and source."""

from __future__ import annotations

from dataclasses import dataclass

from tidesplit.envs.world.heat import BARE, Cooling
from tidesplit.envs.world.radio import LTE, WIRED, Radio


@dataclass(frozen=True)
class World:
    """Everything around the CNN. "Assumed" marks a number that we have not measured."""

    rtt_s: float = 0.060
    """Round trip of an empty message where the trace has none. LTE in the United States, assumed."""
    request_s: float = 0.0066
    """Time of a request beyond the link's round trip, its bytes, and the profile's decode and tail. It goes to gRPC, to
    hand-overs between threads, and to a tail that runs colder than in the profile's loop. Source:
    benchmarks/request_overhead.py, median 6.6 ms (n = 1,080); 10.1 ms with pictures, 4.5 ms with late cuts, whose tails
    are shorter."""
    request_spread: float = 0.4
    """Log-normal spread of ``request_s``. Measured: quartiles 4.9 and 8.8 ms, 95th percentile 11.8 ms."""
    rtt_jitter: float = 0.05
    """Relative log-normal spread of the round trip from frame to frame. An LTE device asks for an uplink grant every
    10 ms (3GPP TS 36.213), which spreads the round trip by 10 / sqrt(12) = 3 of 60 ms."""
    overhead_bytes: float = 150.0
    """Bytes of an empty message: HTTP/2 and gRPC headers, a TLS record, TCP and IP. Counted from the formats."""
    initial_window_bytes: float = 14_600.0
    """Bytes that TCP sends before the first acknowledgement: ten segments (RFC 6928)."""
    idle_s: float = 1.0
    """Idle time after which TCP starts again with the initial window (RFC 5681, 4.1): the shortest retransmission
    time-out of RFC 6298."""
    probe_after_s: float = 0.5
    """Silence after which a probe is sent, because bandwidth is seen only by sending. Costs at most 22 kbit/s.
    Infinity: never."""
    probe_bytes: float = 1_350.0
    """Size of a probe: it fills one packet."""
    window: int = 8
    """Unanswered messages at which a link is full. Nothing more is offered to a link that does not answer."""
    answer_limit_s: float = 2.0
    """Time after which a message counts as lost. Its stream then needs a key. The runtime waits for as long."""
    guard_s: float = 0.005
    """Time before the deadline by which a fallback is planned to end."""
    cooling: Cooling = BARE
    """How the device gets hot by its work, and slow by its heat."""
    jitter: float = 1.0
    """Factor on the spread of compute times that the device's table has. 0: a run always takes the same time."""
    coolest_c: float = 15.0
    warmest_c: float = 40.0
    """Range of the air's temperature about the device, of which each episode draws one. Assumed."""
    radio: Radio = LTE
    """The mobile uplink's radio."""
    grant_s: float = 0.0
    """Extra delay of a message that finds the link idle. A trace is recorded on a saturated link, where grants for the
    uplink come one after the other. Replaying it flatters small messages: round trips are underestimated by some 15 %
    (CellReplay, NSDI 2025), which are 9 of 60 ms. 0: as the trace says."""
    calm_wait_s: float = 0.001
    busy_wait_s: float = 0.015
    mean_calm_s: float = 30.0
    mean_busy_s: float = 5.0
    """Mean wait at a calm and at a busy server, and mean time that it stays so, assumed. Only the server behind the
    first hop makes messages wait. A server further away always has a free worker."""
    wired_rtt_s: float = 0.020
    """Round trip between two servers where the trace of their hop has none. Scission (Lockhart et al., UCC 2020) uses
    this value."""
    wired_rtt_jitter: float = 0.01
    """Relative log-normal jitter between servers. Small, because a wired link has no uplink grants. Assumed."""

    def round_trip(self, hop: int) -> tuple[float, float]:
        """Round trip of an empty message over a hop in seconds, and its relative spread. Hop 0 is the mobile uplink."""
        return (self.wired_rtt_s, self.wired_rtt_jitter) if hop else (self.rtt_s, self.rtt_jitter)

    def radio_of(self, hop: int) -> Radio:
        """The radio that sends over a hop. Only hop 0 has one."""
        return WIRED if hop else self.radio

    def usual_rtt_s(self, hop: int = 0) -> float:
        """Round trip of a request over a hop, in seconds, that the device believes before it has measured one."""
        return self.round_trip(hop)[0] + self.request_s
