"""The second link of many lanes: which trace each plays, and what its messages' answers tell. Three tiers alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidesplit.envs.simulation.course import Course, with_onward
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.traces.uplink import TraceUplink
from tidesplit.envs.world.hop import Crossing
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame
from tidesplit.envs.world.vocabulary import Floats, Ints, Transfers


class SecondLink:
    """From edge server to cloud, for ``lanes`` lanes; ``spread``: of bandwidth and round trip about the trace's."""

    def __init__(self, traces: Sequence[Trace], world: World, lanes: int, spread: float) -> None:
        self._traces, self._world, self._spread = tuple(traces), world, spread
        self._link = TraceUplink.of(traces)
        self.trace_of = np.zeros(lanes, dtype=np.int64)
        self.offset_s = np.zeros(lanes)
        self.scale = np.ones(lanes) if spread else None
        self.transfers = Transfers.none(lanes, world.window)

    @property
    def uplink(self) -> TraceUplink:
        """The true second link of every lane, known to those alone who are allowed to know the future."""
        return self._link.starting(self.trace_of, self.offset_s, self.scale)

    def draw(
        self, lane: int, course: Course, period_s: float, whole: bool, rtt_spread: float, rng: np.random.Generator
    ) -> Course:
        """Begin a new episode in a lane: a random trace, from its start where ``whole`` traces are played."""
        chosen = int(rng.integers(len(self._traces)))
        trace = self._traces[chosen]
        self.trace_of[lane] = chosen
        self.offset_s[lane] = 0.0 if whole else rng.uniform(0.0, trace.duration_s)
        drawn = with_onward(course, self._world, trace, float(self.offset_s[lane]), period_s, rng)
        if self.scale is None or drawn.onward_rtt_s is None or drawn.onward_rtt_base_s is None:
            return drawn
        noise = rng.standard_normal(2)
        self.scale[lane], rtt = np.exp(self._spread * np.array([1.0, rtt_spread]) * noise)
        return drawn._replace(onward_rtt_s=rtt * drawn.onward_rtt_s, onward_rtt_base_s=rtt * drawn.onward_rtt_base_s)

    def forget(self, lanes: Ints) -> None:
        """Nothing was sent in these lanes yet."""
        for ring, empty in zip(self.transfers, Transfers.none(len(lanes), self._world.window), strict=True):
            ring[lanes] = empty

    def remember(self, crossing: Crossing, frame: Frame, foreseen_s: Floats, back_s: Floats) -> None:
        """Keep what was put on the link; the edge server times it.

        ``foreseen_s``: when the device believes that the edge server has it ready. ``back_s``: what it believes an
        answer takes from the edge server to itself.
        """
        assert frame.onward_rtt_s is not None
        assert frame.onward_rtt_base_s is not None
        timed_s = crossing.left_s - crossing.begun_s + (frame.onward_rtt_s - frame.onward_rtt_base_s)
        self.transfers = self.transfers.push(
            crossing.sent,
            foreseen_s,
            crossing.answered_s,
            crossing.payload,
            timed_s,
            frame.onward_rtt_s,
            np.zeros_like(timed_s),  # the cloud lets nobody wait
            crossing.due_s,
            crossing.finish_s,
            crossing.tail_s + back_s,
        )
