"""The physical numbers of the world, each once with its unit and source, and the random course of one episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.traces import Trace

Floats = NDArray[np.float64]


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
    """Mean wait at a server that is calm or busy, and how long it stays so, assumed. In three tiers it is the edge
    server's: the cloud has always a machine free."""
    onward_rtt_s: float = 0.020
    """Round trip between edge server and cloud where the trace of the second link gives none: Scission's (Lockhart et
    al., UCC 2020), which assumes 50 Mbit/s for it too."""
    onward_rtt_jitter: float = 0.01
    """Its relative (log-normal) spread: wired, nobody is asked for leave to send; assumed."""

    @property
    def usual_rtt_s(self) -> float:
        """What a device believes of a request's round trip before it knows."""
        return self.rtt_s + self.request_s

    @property
    def usual_onward_rtt_s(self) -> float:
        """The same of the second link: what goes on is one more request."""
        return self.onward_rtt_s + self.request_s


class Course(NamedTuple):
    """The random course of an episode, drawn before it begins so that every controller meets the same one.

    Shapes ``[N]`` for one episode of N frames, ``[B, N]`` for a batch. ``slow_down`` multiplies compute times;
    ``byte_noise`` is a standard normal, scaled by each point's own spread. The second link's are None in two tiers.
    """

    rtt_s: Floats
    rtt_base_s: Floats
    slow_down: Floats
    server_wait_s: Floats
    byte_noise: Floats
    onward_rtt_s: Floats | None = None
    onward_rtt_base_s: Floats | None = None

    @classmethod
    def none(cls, lanes: int, tiers: int = 2) -> Course:
        """No frames yet, ``[B, 0]``."""
        return cls(*(np.zeros((lanes, 0)) for _ in range(5 if tiers == 2 else 7)))


def draw_course(
    world: World, trace: Trace, offset_s: float, frames: int, period_s: float, rng: np.random.Generator
) -> Course:
    """Draw one episode of ``frames`` frames, ``period_s`` apart, starting ``offset_s`` into the trace."""
    moments = offset_s + np.arange(frames, dtype=np.float64) * period_s
    base = _rtt_at(trace, moments, world.rtt_s)
    hot = _two_state(frames, period_s, world.mean_cool_s, world.mean_hot_s, rng)
    busy = _two_state(frames, period_s, world.mean_calm_s, world.mean_busy_s, rng)
    noise = rng.standard_normal((4, frames))
    mean_wait = np.where(busy, world.busy_wait_s, world.calm_wait_s)
    return Course(
        rtt_s=base * np.exp(world.rtt_jitter * noise[0]) + world.request_s * np.exp(world.request_spread * noise[3]),
        rtt_base_s=base + world.request_s,
        slow_down=np.where(hot, world.throttled_slowdown, 1.0) * np.exp(world.compute_jitter * noise[1]),
        server_wait_s=mean_wait * rng.standard_exponential(frames),
        byte_noise=noise[2],
    )


def with_onward(
    course: Course, world: World, trace: Trace, offset_s: float, period_s: float, rng: np.random.Generator
) -> Course:
    """The course with the second link's round trips, drawn after all else: what the first link has in store stays."""
    frames = len(course.rtt_s)
    base = _rtt_at(trace, offset_s + np.arange(frames, dtype=np.float64) * period_s, world.onward_rtt_s)
    noise = np.exp(np.array([[world.onward_rtt_jitter], [world.request_spread]]) * rng.standard_normal((2, frames)))
    return course._replace(
        onward_rtt_s=base * noise[0] + world.request_s * noise[1], onward_rtt_base_s=base + world.request_s
    )


def _rtt_at(trace: Trace, moments_s: Floats, default_s: float) -> Floats:
    if trace.rtt_s is None:
        return np.full(len(moments_s), default_s)
    row = np.searchsorted(trace.time_s, np.mod(moments_s, trace.duration_s), side="right") - 1
    return trace.rtt_s[np.maximum(row, 0)]


def _two_state(
    frames: int, period_s: float, mean_off_s: float, mean_on_s: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Exponential stays in two states, begun in the stationary share. Shape ``[N]``, true where on."""
    total_s = frames * period_s
    stays = int(2 * total_s / (mean_off_s + mean_on_s) + 10)
    on_first = rng.random() < mean_on_s / (mean_on_s + mean_off_s)
    while True:
        means = np.where((np.arange(stays) + on_first) % 2 == 1, mean_on_s, mean_off_s)
        ends = np.cumsum(means * rng.standard_exponential(stays))
        if ends[-1] >= total_s:
            break
        stays *= 2
    switches: NDArray[np.int64] = np.searchsorted(ends, np.arange(frames) * period_s, side="right")
    on: NDArray[np.bool_] = (switches + on_first) % 2 == 1
    return on
