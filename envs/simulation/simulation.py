"""Many episodes in one batch: drawn, stepped through the pipeline, and observed as each lane's device would."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tidesplit.envs.budget.prices import USUAL_PRICES, Budgets, Ledger, PriceDraw, Prices
from tidesplit.envs.budget.rest import Rest, lead_of
from tidesplit.envs.simulation.course import Course, draw_course, draw_round_trip
from tidesplit.envs.simulation.links import Links
from tidesplit.envs.simulation.runs import Pace, Runs
from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.traces.uplink import TraceUplink
from tidesplit.envs.world.chain import Picker
from tidesplit.envs.world.hop import Crossing
from tidesplit.envs.world.observation import Observation, Situation, observe
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.pipeline import Frame, advance
from tidesplit.envs.world.queues import Queues, decided_s
from tidesplit.envs.world.vocabulary import Bools, Demand, Demands, Floats, Ints, Outcome, each
from tidesplit.profiling.points.motion import believed, faded, videos
from tidesplit.profiling.points.stream_columns import column_of
from tidesplit.profiling.points.table import PointTable


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """The traces, demands, operating points and physical numbers that episodes are drawn from.

    Raises:
        ValueError: no trace of a hop, no demand, or another number of hops than in the table.
    """

    traces: tuple[Trace, ...]  # of the uplink; an episode draws one
    demands: tuple[Demand, ...]  # an episode draws one
    table: PointTable  # one hop for each link
    world: World = field(default_factory=World)
    # Seconds of an episode, which begins at a random moment of its trace. None: a whole trace.
    episode_s: float | None = None
    # Log-normal spread of an episode's device, servers and payloads about the table. It makes a policy read the table
    # instead of learning it by heart.
    table_spread: float = 0.0
    # The same of an episode's bandwidth, round trip and jitter about its traces, for links other than these.
    trace_spread: float = 0.0
    # Half of the episodes begin with a busy device, for up to this many seconds. Good decisions rarely lead into such
    # queues, but a hiccup of a real device does.
    backlog_s: float = 0.0
    further: tuple[tuple[Trace, ...], ...] = ()  # traces of each hop beyond the first
    # Prices that an episode draws and keeps. None: they move so that the demand's budgets are met.
    price_draw: PriceDraw | None = None

    def __post_init__(self) -> None:
        if not all(self.links) or not self.demands:
            raise ValueError("a scenario needs at least one trace and one demand")
        if len(self.links) != len(self.table.hops):
            raise ValueError(f"traces of {len(self.links)} hops received for a table of {len(self.table.hops)} hops")

    @property
    def unvaried(self) -> Scenario:
        """The scenario with table and links as they are."""
        return replace(self, table_spread=0.0, trace_spread=0.0)

    @property
    def links(self) -> tuple[tuple[Trace, ...], ...]:
        """Traces of every hop."""
        return (self.traces, *self.further)


class Simulation:
    """Episodes of a scenario in one batch, one a lane.

    Each lane has a random generator of ``rngs`` and plays the uplink trace of number ``trace_of`` ``[B]``, or a random
    one.
    """

    def __init__(self, scenario: Scenario, rngs: Sequence[np.random.Generator], trace_of: Ints | None = None) -> None:
        self.scenario = scenario
        self.rngs = list(rngs)
        self.lanes = len(self.rngs)
        self._fixed_trace = trace_of
        self._all = np.arange(self.lanes)
        # Columns [A], or [B, A] where each lane has its own.
        self.table = _spread_out(scenario.table, self.lanes) if scenario.table_spread else scenario.table
        self.demands = Demands.of(*(scenario.demands[:1] * self.lanes))
        self.budgets = Budgets.of(*(scenario.demands[:1] * self.lanes))
        self.ledger = Ledger.empty(self.lanes)
        self.first_prices = Prices.of(*USUAL_PRICES, self.lanes)  # where they move: those to begin with
        self.rest: Rest | None = None  # of the radios, where they may, see `begin_with`
        self.frames = np.zeros(self.lanes, dtype=np.int64)  # in each lane's episode
        hops = len(scenario.links)
        self._course = Course.none(self.lanes, hops)
        self.links = [Links(traces, self.lanes, scenario.world, scenario.trace_spread) for traces in scenario.links]
        self.frame = np.zeros(self.lanes, dtype=np.int64)  # number of the next one
        self.queues = Queues.idle(self.lanes, hops, scenario.table.streams.count)
        self._runs = Runs.none(self.lanes)
        self._pace = Pace(self.lanes)
        # Motion that each device believes of each stream, and when a payload told it, [B, S].
        self._motion = np.ones((self.lanes, scenario.table.streams.count))
        self._motion_s, self._videos = np.zeros_like(self._motion), videos(scenario.table)
        self.last_point = np.full(self.lanes, -1, dtype=np.int64)
        self.outcome: Outcome | None = None  # of the last frames, for controllers that learn by them
        self._situation: Situation | None = None
        self._observation: Observation | None = None
        self.reset(self._all)

    @property
    def uplinks(self) -> tuple[TraceUplink, ...]:
        """The true links of every hop. Only those who may know the future may read them."""
        return tuple(links.uplink for links in self.links)

    @property
    def slow_down(self) -> Floats:
        """Slow-down that each device believes, ``[B]``."""
        return self.situation().slow_down

    def reset(self, lanes: Ints) -> None:
        """Begin a new episode in these lanes."""
        drawn = [self._draw(int(lane)) for lane in lanes]
        self._widen(max((len(course.slow_down) for course in drawn), default=0))
        for lane, course in zip(lanes.tolist(), drawn, strict=True):
            each(lambda store, values, lane=lane: _put(store, (lane, slice(len(values))), values), self._course, course)
        self.frame[lanes] = 0
        idle = Queues.idle(len(lanes), len(self.links), self.table.streams.count)
        each(lambda now, new: _put(now, lanes, new), self.queues, idle)
        self.queues.hops[0].awake_s[lanes] = self.scenario.world.radio.tail_s  # the device has greeted the server
        self.queues.heat_c[lanes] = self._first_heat_c(lanes)
        if self.scenario.backlog_s:
            backlogs = [max(self.rngs[lane].uniform(-1.0, 1.0), 0.0) for lane in lanes]  # half of them begin idle
            self.queues.device_free_s[lanes] = self.scenario.backlog_s * np.array(backlogs)
        for links in self.links:
            links.forget(lanes)
        self._runs.forget(lanes)
        self._pace.forget(lanes)
        self._motion[lanes] = 1.0
        self._motion_s[lanes] = 0.0
        self.last_point[lanes] = -1
        each(lambda debts: _put(debts, lanes, 0.0), self.ledger)
        if self.rest is not None:
            each(lambda now, new: _put(now, lanes, new), self.rest, Rest.none(len(lanes)))
        self._move_prices()
        self._situation = self._observation = None

    def begin_with(self, prices: Prices, rests: bool = False) -> None:
        """Let prices that move begin with these, in every lane whose episode has not begun.

        ``rests``: radios may rest, in lanes with a budget of energy.
        """
        self.rest = Rest.none(self.lanes) if rests else None
        self.first_prices = Prices(*(np.broadcast_to(price, self.lanes).copy() for price in prices))
        self._move_prices()
        self._situation = self._observation = None

    def forked(self, lanes: Ints) -> Simulation:
        """A simulation that goes on from the present of these lanes, ``[N]``, which may be named many times.

        Copies of a lane meet the same course of events. Their episodes cannot begin again.
        """
        fork = copy(self)
        fork.rngs, fork.lanes, fork._all = [], len(lanes), np.arange(len(lanes))
        for name in ("demands", "budgets", "ledger", "first_prices", "queues", "_course"):
            setattr(fork, name, each(lambda values: values[lanes], getattr(self, name)))
        for name in ("frames", "frame", "last_point", "_motion", "_motion_s"):
            setattr(fork, name, getattr(self, name)[lanes])
        if self.scenario.table_spread:
            fork.table = self.table.with_columns(lambda column: column.T[:, lanes].T, self.table.ids)
        fork.links = [links.forked(lanes) for links in self.links]
        fork._runs, fork._pace = self._runs.forked(lanes), self._pace.forked(lanes)
        if self.rest is not None:
            fork.rest = each(lambda values: values[lanes], self.rest)
        fork._situation = fork._observation = None
        return fork

    def _move_prices(self) -> None:
        if self.scenario.price_draw is None:
            moved = self.ledger.prices(self.first_prices, self.budgets)
            self.demands.joule_price[:], self.demands.byte_price[:] = moved

    def frame_at(self, ahead: int = 0, lanes: Ints | None = None) -> Frame:
        """The next frame of each lane, or the one ``ahead`` frames after it.

        After an episode's end its last random numbers are repeated.
        """
        lanes = self._all if lanes is None else lanes
        k = np.minimum(self.frame[lanes] + ahead, self.frames[lanes] - 1)
        arrival_s = (self.frame[lanes] + ahead) * self.demands.period_s[lanes]
        return Frame(arrival_s, *each(lambda values: values[lanes, k], self._course))

    def situation(self) -> Situation:
        """The devices' knowledge at the decision of their next frames."""
        if self._situation is None:
            self._situation = self._now()
        return self._situation

    def _now(self) -> Situation:
        arrival_s = self.frame * self.demands.period_s
        now_s = decided_s(self.queues, arrival_s)
        for slow_down in self._runs.ended(now_s):
            self._pace.measured(slow_down)
        return Situation(
            now_s=now_s,
            waited_s=now_s - arrival_s,
            transfers=tuple(links.transfers for links in self.links),
            slow_down=self._pace.slow_down,
            last_point=self.last_point,
            worker_s=self._runs.busy_s(now_s),
            heat_c=self.queues.heat_c,
            blocked=None if self.rest is None else self.rest.resting,
            reference_age=self._reference_age(arrival_s, now_s),
            motion=faded(self._motion, now_s[:, None] - self._motion_s) if self.table.streams.count else None,
        )

    def _reference_age(self, arrival_s: Floats, now_s: Floats) -> Floats | None:
        if not self.table.streams.count:
            return None
        return self.queues.references.age(arrival_s, now_s, self.demands.period_s)

    def observation(self) -> Observation:
        """The observation of every lane."""
        if self._observation is None:
            self._observation = observe(self.situation(), self.table, self.demands, self.scenario.world)
        return self._observation

    def expected_s(self, points: Ints) -> Floats:
        """Latency ``[B]`` that the devices expect of these points and plan their fallbacks with."""
        return self.observation().foreseen.latency_s[self._all, points].astype(np.float64)

    def step(self, points: Ints) -> tuple[Outcome, Bools]:
        """Run one frame a lane. Returns its outcome, and True where the episode ends with it: ``reset`` these lanes."""
        points = np.array(points, dtype=np.int64)  # a copy: it is kept, and reset writes to it
        frame = self.frame_at()
        expected_s, worker_s = self.expected_s(points), self.situation().worker_s
        self.queues, outcome, crossings = advance(
            self.queues,
            points,
            frame,
            table=self.table,
            demands=self.demands,
            world=self.scenario.world,
            uplinks=self.uplinks,
            lane=self._all,
            slow_belief=self.slow_down,
            expected_s=expected_s,
            worker_s=worker_s,
        )
        self._runs = self._runs.push(outcome.run, frame.arrival_s + self.demands.deadline_s)
        self._remember(points, frame, crossings)
        self._learn_motion(points, outcome)
        self.last_point = points
        joules, sent = outcome.device_j + outcome.radio_j, outcome.hops[0].sent_bytes
        self._let_rest(outcome, joules)
        self.ledger = self.ledger.after(joules, sent, self.demands.period_s, self.budgets)
        self._move_prices()
        self.frame = self.frame + 1
        self._situation = self._observation = None
        self.outcome = outcome
        self._pace.measured(np.where(outcome.run.slow_down > 0.0, 0.0, outcome.slow_down))  # of a head
        return outcome, self.frame >= self.frames

    def _let_rest(self, outcome: Outcome, joules: Floats) -> None:
        """Let the frames that have ended tell if it pays to keep the radios awake."""
        if self.rest is None:
            return
        demands, prices = self.demands, (self.demands.joule_price, self.first_prices.joule)
        own = self.scenario.world.utility
        lead = lead_of(outcome.utility, joules, self.table, demands, self.slow_down, prices, own)
        awake = (self.observation().seen.awake_s > 0.0) & np.isfinite(self.budgets.watts)
        self.rest = self.rest.after(lead, awake, demands.period_s)

    def _learn_motion(self, points: Ints, outcome: Outcome) -> None:
        """Let the payloads of these points tell the devices the motion. Those outside of streams and keys do not."""
        situation, streams = self.situation(), self.table.streams
        if situation.reference_age is None or situation.motion is None:
            return
        of = streams.of[points]
        lanes = np.flatnonzero((of >= 0) & (outcome.hops[0].sent_bytes > 0.0) & ~outcome.dropped)
        lanes = lanes[np.isfinite(situation.reference_age[lanes, of[lanes]])]
        column = column_of(situation.reference_age[lanes, of[lanes]])
        usual = Picker(points[lanes], lanes)(self.table.hops[0].bytes_mean) * streams.factors[points[lanes], column]
        ratio = (outcome.hops[0].sent_bytes[lanes] - self.scenario.world.overhead_bytes) / usual
        told = self._videos == self._videos[of[lanes], None]
        self._motion[lanes] = np.where(told, believed(situation.motion[lanes], ratio[:, None]), self._motion[lanes])
        self._motion_s[lanes] = np.where(told, situation.now_s[lanes, None], self._motion_s[lanes])

    def _first_heat_c(self, lanes: Ints) -> Floats:
        """Temperature of the device when an episode begins, ``[L]``: settled under some load between none and full."""
        machine, cooling = self.scenario.table.machine, self.scenario.world.cooling
        load = np.array([self.rngs[lane].random() for lane in lanes])
        ambient_c = self._course.ambient_c[lanes, 0]
        return cooling.settled(ambient_c, machine.idle_w + load * machine.run_w)

    def _remember(self, points: Ints, frame: Frame, crossings: tuple[Crossing, ...]) -> None:
        """Remember each hop's messages as the device knows them. It only believes the sending times of further hops."""
        none = back_s = np.zeros(self.lanes)
        # A probe's answer has the server's wait too. Otherwise one long wait would keep all later frames away.
        self.links[0].remember(crossings[0], frame.hops[0], crossings[0].ready_s, frame.server_wait_s, none)
        for hop, links in enumerate(self.links[1:], start=1):
            now = self.observation()
            ready_s = now.foreseen.further[hop - 1].ready_s[self._all, points].astype(np.float64)
            back_s = back_s + 0.5 * now.seen.hops[hop - 1].rtt_s.astype(np.float64)
            links.remember(crossings[hop], frame.hops[hop], self.situation().now_s + ready_s, none, back_s)

    def _draw(self, lane: int) -> Course:
        scenario, rng = self.scenario, self.rngs[lane]
        demand = scenario.demands[int(rng.integers(len(scenario.demands)))]
        for column, value in zip(self.demands, Demands.of(demand), strict=True):
            column[lane] = value[0]
        for column, value in zip(self.budgets, Budgets.of(demand), strict=True):
            column[lane] = value[0]
        first, *further = self.links
        whole = scenario.episode_s is None
        fixed = None if self._fixed_trace is None else int(self._fixed_trace[lane])
        played = first.choose(lane, fixed, whole, rng)
        length_s = played.trace.duration_s if scenario.episode_s is None else scenario.episode_s
        frames = self.frames[lane] = max(1, round(length_s * demand.fps))
        if scenario.table_spread:
            _vary(self.table, scenario.table, lane, scenario.table_spread, rng)
        course = draw_course(scenario.world, *played, frames, demand.period_s, rng)
        trips = [first.vary(lane, course.hops[0], rng)]
        for hop, links in enumerate(further, start=1):
            played = links.choose(lane, None, whole, rng)
            trip = draw_round_trip(scenario.world, hop, *played, frames, demand.period_s, rng)
            trips.append(links.vary(lane, trip, rng))
        if scenario.price_draw is not None:
            prices = scenario.price_draw.draw(Budgets.of(demand), rng)
            self.demands.joule_price[lane], self.demands.byte_price[lane] = prices.joule[0], prices.byte[0]
        return course._replace(hops=tuple(trips))

    def _widen(self, length: int) -> None:
        short = length - self._course.slow_down.shape[1]
        if short > 0:
            # Transposed in memory, because the lanes of one frame are read together.
            self._course = each(lambda values: np.pad(values.T, ((0, short), (0, 0))).T, self._course)


def _put(store: Floats, where: Any, values: Floats | float) -> None:
    store[where] = values


def _spread_out(table: PointTable, lanes: int) -> PointTable:
    """The table with a writeable copy of every column for each lane, ``[B, A]``. A point's lanes are neighbours."""
    return table.with_columns(lambda column: np.repeat(column[:, None], lanes, axis=1).T, table.ids)


def _vary(out: PointTable, table: PointTable, lane: int, spread: float, rng: np.random.Generator) -> None:
    """Draw a lane's device, servers and payloads about those of the table."""
    device, server, size = np.exp(spread * rng.standard_normal(3))
    out.head_s[lane] = table.head_s * device
    out.finish_s[lane] = table.finish_s * device
    out.server_s[lane] = table.server_s * server
    for varied, hop in zip(out.hops, table.hops, strict=True):
        varied.compute_s[lane] = hop.compute_s * server
        varied.bytes_mean[lane] = hop.bytes_mean * size
