"""The random course of one episode: round trips, compute noise, waits, byte noise, motion, the air's temperature."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.hop import RoundTrip
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Floats


class Course(NamedTuple):
    """The random course of an episode, drawn before it begins so that every controller meets the same one.

    Shapes ``[N]`` for one episode of N frames, ``[B, N]`` for a batch.
    """

    slow_down: Floats  # factor on the device's compute times, beside that of heat and jitter: 1
    compute_noise: Floats  # standard normals, scaled by each point's own jitter
    server_wait_s: Floats  # wait at the first server, seconds
    byte_noise: Floats  # standard normals, scaled by each point's own spread of bytes
    ambient_c: Floats  # temperature of the air
    motion: Floats  # factor on the bytes of streams, see `profiling.points.motion`
    hops: tuple[RoundTrip, ...]  # round trips of each hop

    @classmethod
    def none(cls, lanes: int, hops: int = 1) -> Course:
        """A course of no frames, ``[B, 0]``."""

        def nothing() -> Floats:
            return np.zeros((lanes, 0))

        trips = tuple(RoundTrip(nothing(), nothing()) for _ in range(hops))
        return cls(nothing(), nothing(), nothing(), nothing(), nothing(), nothing(), trips)


def draw_course(
    world: World, trace: Trace, offset_s: float, frames: int, period_s: float, rng: np.random.Generator
) -> Course:
    """Draw the course of an episode with one hop.

    `draw_round_trip` draws further hops afterwards, so that they do not change the rest of the course.

    The episode begins ``offset_s`` into the uplink's ``trace`` and has ``frames`` frames, ``period_s`` apart.
    """
    busy = _two_state(frames, period_s, world.mean_calm_s, world.mean_busy_s, rng)
    jitter, compute, size, request = rng.standard_normal((4, frames))
    mean_wait = np.where(busy, world.busy_wait_s, world.calm_wait_s)
    return Course(
        slow_down=np.ones(frames),
        compute_noise=compute,
        server_wait_s=mean_wait * rng.standard_exponential(frames),
        byte_noise=size,
        ambient_c=np.full(frames, rng.uniform(world.coolest_c, world.warmest_c)),
        motion=np.full(frames, world.motion),
        hops=(_round_trip(world, 0, trace, offset_s, period_s, jitter, request),),
    )


def draw_round_trip(
    world: World, hop: int, trace: Trace, offset_s: float, frames: int, period_s: float, rng: np.random.Generator
) -> RoundTrip:
    """Draw the round trips of a hop beyond the first, ``[N]``. ``trace`` and ``offset_s`` are the hop's own."""
    return _round_trip(world, hop, trace, offset_s, period_s, *rng.standard_normal((2, frames)))


def _round_trip(
    world: World, hop: int, trace: Trace, offset_s: float, period_s: float, jitter: Floats, request: Floats
) -> RoundTrip:
    """Round trips ``[N]`` from two standard normals a frame, one for the link and one for the request."""
    usual_s, spread = world.round_trip(hop)
    base_s = _rtt_at(trace, offset_s + np.arange(len(jitter), dtype=np.float64) * period_s, usual_s)
    request_s = world.request_s * np.exp(world.request_spread * request)
    return RoundTrip(base_s * np.exp(spread * jitter) + request_s, base_s + world.request_s)


def _rtt_at(trace: Trace, moments_s: Floats, default_s: float) -> Floats:
    if trace.rtt_s is None:
        return np.full(len(moments_s), default_s)
    row = np.searchsorted(trace.time_s, np.mod(moments_s, trace.duration_s), side="right") - 1
    return trace.rtt_s[np.maximum(row, 0)]


def _two_state(
    frames: int, period_s: float, mean_off_s: float, mean_on_s: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """A process of two states with exponential stays, begun at random. Shape ``[N]``, True where on."""
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
