"""Many episodes side by side: draws them, steps them through the pipeline, and says what each lane's device knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidesplit.envs.simulation.course import Course, draw_course
from tidesplit.envs.simulation.second_link import SecondLink
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.traces.uplink import TraceUplink
from tidesplit.envs.world.observation import Observation, Situation, observe
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame, Queues, advance, turn_s
from tidesplit.envs.world.vocabulary import Bools, Demand, Demands, Floats, Ints, Outcome, Transfers, each
from tidesplit.profiling.points.table import PointTable


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What episodes are drawn from: traces, demands, the operating points, the world.

    ``episode_s``: length of an episode, begun at a random moment of a random trace; None plays a whole trace from its
    start. ``table_spread``: log-normal spread by which an episode's device, server and payloads differ from the table,
    so that a policy learns to read the table instead of learning it by heart. ``trace_spread``: the same for the
    bandwidth and round trip of an episode's link, so that a policy learns other links than those at hand.
    ``backlog_s``: an episode's device may begin busy, for up to so long: it then meets queues that its own decisions
    would hardly lead it into, but a hiccup of a real device does.
    ``onward``: traces of the second link, of which an episode draws one; for tables of three tiers alone.
    """

    traces: tuple[Trace, ...]
    demands: tuple[Demand, ...]
    table: PointTable
    world: World = field(default_factory=World)
    episode_s: float | None = None
    table_spread: float = 0.0
    trace_spread: float = 0.0
    backlog_s: float = 0.0
    onward: tuple[Trace, ...] = ()

    def __post_init__(self) -> None:
        if not self.traces or not self.demands:
            raise ValueError("a scenario needs at least one trace and one demand")
        if bool(self.onward) != (self.tiers == 3):
            raise ValueError(f"{len(self.onward)} traces of a second link received for a table of {self.tiers} tiers")

    @property
    def tiers(self) -> int:
        """Two, or three with a second link."""
        return self.table.tiers


class Simulation:
    """``lanes`` episodes of a scenario, each with a random generator of its own (``rngs``, one a lane).

    With ``trace_of`` every lane plays that trace, otherwise a random one.
    """

    def __init__(self, scenario: Scenario, rngs: Sequence[np.random.Generator], trace_of: Ints | None = None) -> None:
        self.scenario = scenario
        self.rngs = list(rngs)
        self.lanes = len(self.rngs)
        self._fixed_trace = trace_of
        self._all = np.arange(self.lanes)
        self._link = TraceUplink.of(scenario.traces)
        self._table = _spread_out(scenario.table, self.lanes) if scenario.table_spread else scenario.table
        self.demands = Demands.of(*(scenario.demands[:1] * self.lanes))
        self.frames = np.zeros(self.lanes, dtype=np.int64)
        self._course = Course.none(self.lanes, scenario.tiers)
        self.trace_of = np.zeros(self.lanes, dtype=np.int64)
        self.offset_s = np.zeros(self.lanes)
        self.scale = np.ones(self.lanes) if scenario.trace_spread else None
        self.frame = np.zeros(self.lanes, dtype=np.int64)
        self.queues = Queues.idle(self.lanes, scenario.tiers)
        self.transfers = Transfers.none(self.lanes, scenario.world.window)
        self.second = (
            SecondLink(scenario.onward, scenario.world, self.lanes, scenario.trace_spread) if scenario.onward else None
        )
        self.slow_down = np.ones(self.lanes)
        self.last_point = np.full(self.lanes, -1, dtype=np.int64)
        self._observation: Observation | None = None
        self.reset(self._all)

    @property
    def table(self) -> PointTable:
        """The operating points, columns ``[A]``, or ``[B, A]`` where each lane has its own."""
        return self._table

    @property
    def uplink(self) -> TraceUplink:
        """The true link of every lane, known to those alone who are allowed to know the future."""
        return self._link.starting(self.trace_of, self.offset_s, self.scale)

    def reset(self, lanes: Ints) -> None:
        """Begin a new episode in these lanes."""
        drawn = [self._draw(int(lane)) for lane in lanes]
        longest = max((len(course.rtt_s) for course in drawn), default=0)
        self._widen(longest)
        for lane, course in zip(lanes, drawn, strict=True):
            for store, values in _present(self._course, course):
                store[lane, : len(values)] = values
        self.frame[lanes] = 0
        for now, idle in _present(self.queues, Queues.idle(len(lanes), self.scenario.tiers)):
            now[lanes] = idle
        if self.scenario.backlog_s:
            backlogs = [max(self.rngs[lane].uniform(-1.0, 1.0), 0.0) for lane in lanes]  # half of them begin idle
            self.queues.device_free_s[lanes] = self.scenario.backlog_s * np.array(backlogs)
        for ring, empty in zip(self.transfers, Transfers.none(len(lanes), self.scenario.world.window), strict=True):
            ring[lanes] = empty
        if self.second is not None:
            self.second.forget(lanes)
        self.slow_down[lanes] = 1.0
        self.last_point[lanes] = -1
        self._observation = None

    def frame_at(self, ahead: int = 0, lanes: Ints | None = None) -> Frame:
        """The frame of each lane, or the one ``ahead`` frames later (clipped to the episode)."""
        lanes = self._all if lanes is None else lanes
        k = np.minimum(self.frame[lanes] + ahead, self.frames[lanes] - 1)
        arrival_s = (self.frame[lanes] + ahead) * self.demands.period_s[lanes]
        return Frame(arrival_s, *each(lambda values: values[lanes, k], self._course))

    def situation(self) -> Situation:
        """What the devices know now that their frames' turn has come."""
        arrival_s = self.frame * self.demands.period_s
        now_s = turn_s(self.queues, arrival_s)
        return Situation(
            now_s=now_s,
            waited_s=now_s - arrival_s,
            transfers=self.transfers,
            slow_down=self.slow_down,
            last_point=self.last_point,
            onward=None if self.second is None else self.second.transfers,
        )

    def observation(self) -> Observation:
        """The observation of every lane."""
        if self._observation is None:
            world = self.scenario.world
            self._observation = observe(
                self.situation(),
                self._table,
                self.demands,
                world.usual_rtt_s,
                world.overhead_bytes,
                world.guard_s,
                world.usual_onward_rtt_s,
            )
        return self._observation

    def expected_s(self, points: Ints) -> Floats:
        """Latency that the devices expect of these points, by which they plan their fallbacks, ``[B]``."""
        return self.observation().of_points("latency_s")[self._all, points].astype(np.float64)

    def step(self, points: Ints) -> tuple[Outcome, Bools]:
        """Answer one frame a lane; also says which lanes' episodes end with it. Call ``reset`` for those."""
        points = np.array(points, dtype=np.int64)  # a copy: it is kept, and reset writes to it
        frame = self.frame_at()
        before = self.queues
        expected_s = self.expected_s(points)
        self.queues, outcome, message = advance(
            before,
            points,
            frame,
            table=self._table,
            demands=self.demands,
            world=self.scenario.world,
            uplink=self.uplink,
            lane=self._all,
            slow_belief=self.slow_down,
            expected_s=expected_s,
            onward=None if self.second is None else self.second.uplink,
        )
        if self.second is not None and message.crossing is not None:
            self.second.remember(message.crossing, frame, *self._foreseen(points))
        begun_s = np.maximum(message.sent_s, before.link_free_s)
        # Timed at the far end, an uplink time holds what this message's one-way delay differs from the usual one.
        timed_s = message.sent_s + message.uplink_s - begun_s + (frame.rtt_s - frame.rtt_base_s)
        self.transfers = self.transfers.push(
            message.sent,
            message.sent_s,
            message.answered_s,
            message.payload,
            timed_s,
            frame.rtt_s,
            frame.server_wait_s,  # a probe's answer tells it too: else one long wait would keep all frames away
            message.due_s,
            message.finish_s,
            message.tail_s,
        )
        self.slow_down = np.where(outcome.head_s > 0.0, frame.slow_down, self.slow_down)
        self.last_point = points
        self.frame = self.frame + 1
        self._observation = None
        return outcome, self.frame >= self.frames

    def _foreseen(self, points: Ints) -> tuple[Floats, Floats]:
        """When the devices believe that their frames are ready for the second link, and half the first round trip."""
        told = self.observation()
        at_s = told.of_points("onward_at_s")[self._all, points].astype(np.float64)
        return self.situation().now_s + at_s, 0.5 * told.of("rtt_s").astype(np.float64)

    def _draw(self, lane: int) -> Course:
        scenario, rng = self.scenario, self.rngs[lane]
        demand = scenario.demands[int(rng.integers(len(scenario.demands)))]
        for column, value in zip(self.demands, Demands.of(demand), strict=True):
            column[lane] = value[0]
        chosen = int(rng.integers(len(scenario.traces))) if self._fixed_trace is None else int(self._fixed_trace[lane])
        trace = scenario.traces[chosen]
        whole = scenario.episode_s is None
        length_s = trace.duration_s if scenario.episode_s is None else scenario.episode_s
        self.trace_of[lane] = chosen
        self.offset_s[lane] = 0.0 if whole else rng.uniform(0.0, trace.duration_s)
        self.frames[lane] = max(1, round(length_s * demand.fps))
        if scenario.table_spread:
            _vary(self._table, scenario.table, lane, scenario.table_spread, rng)
        course = draw_course(
            scenario.world, trace, float(self.offset_s[lane]), int(self.frames[lane]), demand.period_s, rng
        )
        if self.scale is not None:
            self.scale[lane], rtt = np.exp(scenario.trace_spread * np.array([1.0, RTT_SPREAD]) * rng.standard_normal(2))
            course = course._replace(rtt_s=rtt * course.rtt_s, rtt_base_s=rtt * course.rtt_base_s)
        if self.second is None:
            return course
        return self.second.draw(lane, course, demand.period_s, whole, RTT_SPREAD, rng)

    def _widen(self, length: int) -> None:
        short = length - self._course.rtt_s.shape[1]
        if short > 0:
            # Transposed in memory: the lanes of one frame lie side by side, and are read together.
            self._course = each(lambda values: np.pad(values.T, ((0, short), (0, 0))).T, self._course)


RTT_SPREAD = 0.4  # round trips differ less from link to link than bandwidths do
VARIED = {"head_s": 0, "finish_s": 0, "server_s": 1, "bytes_mean": 2}  # columns, and which factor each follows
VARIED_ONWARD = {"middle_s": 1, "bytes_mean": 2}


def _present(now: tuple[Any, ...], new: tuple[Any, ...]) -> list[tuple[Floats, Floats]]:
    """Columns of both side by side, without the second link's where there is none."""
    return [(one, other) for one, other in zip(now, new, strict=True) if one is not None]


def _spread_out(table: PointTable, lanes: int) -> PointTable:
    """The table with every column repeated a lane, shape ``[B, A]``, writeable, lanes side by side in memory."""
    return table.with_columns(lambda column: np.repeat(column[:, None], lanes, axis=1).T, table.ids)


def _vary(out: PointTable, table: PointTable, lane: int, spread: float, rng: np.random.Generator) -> None:
    factors: Floats = np.exp(spread * rng.standard_normal(3))
    for name, which in VARIED.items():
        getattr(out, name)[lane] = getattr(table, name) * factors[which]
    for name, which in VARIED_ONWARD.items() if table.onward is not None else ():
        getattr(out.onward, name)[lane] = getattr(table.onward, name) * factors[which]
