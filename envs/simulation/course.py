"""The random course of one episode: round trips, slow-down, waits and byte noise, drawn before it begins."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Floats


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
