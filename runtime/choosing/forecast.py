"""The forecast of every operating point in one situation: `envs.world.foresight` for one lane and one hop.

It is equal to that in every bit. All that does not depend on the situation is computed once, and every array is kept
from frame to frame, because with some fifty points NumPy spends its time on making arrays and not on numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.belief import UNKNOWN_AGE_S
from tidesplit.envs.world.fields import NEEDS_KEY, Seen, foreseen, laid_out, seen
from tidesplit.envs.world.observation import Observation
from tidesplit.envs.world.physics import World
from tidesplit.profiling.points.stream_columns import OLDEST
from tidesplit.profiling.points.table import PointTable

Floats32 = NDArray[np.float32]
LONGEST = int(NEEDS_KEY) - 1  # age that stands for older references too
NO_REFERENCE, NO_STREAM = LONGEST + 1, LONGEST + 2
SHOWN = np.array([*range(LONGEST + 1), NEEDS_KEY, 0.0], np.float32)  # the column `reference_age` of each of these


class Forecast:
    """Forecasts the points of one table. ``usual``: any observation of it in one lane.

    Columns are ``[A]``, in single precision. Numbers of the state are ``[]``, which costs a third of what ``[1]`` does.
    """

    def __init__(self, table: PointTable, world: World, usual: Observation) -> None:
        single, radio, machine = np.float32, world.radio, table.machine
        self._state = usual.state[0].copy()
        self._columns = np.ascontiguousarray(usual.points[0])  # those that the situation does not change stay
        numbers = [self._state[i : i + 1].reshape(()) for i in range(len(self._state))]
        self._now, self._out = seen(numbers), foreseen(self._columns)
        self._none, self._oldest = np.zeros(table.size, single), np.full(table.size, UNKNOWN_AGE_S, single)
        self._least = -self._oldest
        self._leaves, self._away, self._later, self._spare = (np.empty_like(self._none) for _ in range(4))
        sends, races = table.hops[0].sends, table.races
        self._local, self._crosses, self._heavy = table.local, sends.astype(single), ~table.light
        self._head_s = table.head_s.astype(single)
        self._finish_s = np.minimum(table.finish_s.astype(single), UNKNOWN_AGE_S) * self._crosses
        self._races = races.astype(single) if races.any() else None
        self._race_w = (races * machine.run_w).astype(single)
        self._head_j = self._head_s * np.where(table.light, single(machine.light_w), single(machine.run_w))
        self._awake_w = sends * single(radio.tail_w)
        self._waking_s = self._crosses * single(radio.promotion_s)
        self._waking_j = sends * single(radio.promotion_s * (radio.promotion_w - radio.tail_w))
        self._sending_w, self._byte_j = single(radio.sending_w - radio.tail_w), single(radio.joules_per_byte)
        self._guard_s, self._tail_s = single(world.guard_s), np.full_like(self._none, radio.tail_s)
        self._streams, self._last_row = table.streams if table.streams.count else None, -1
        bare = (table.hops[0].bytes_mean.astype(single) + single(world.overhead_bytes)) * self._crosses
        self._growth = _Growth(table, bare)
        self._motion: list[float] | None = None
        self._first = np.arange(table.size) * len(SHOWN)  # places of each point's factors
        self._steady = self._first + np.where(table.streams.of >= 0, 1, NO_STREAM)

    def foresee(
        self, now: Seen, last_row: int, reference_age: list[float] | None, motion: list[float] | None = None
    ) -> tuple[Floats32, Floats32]:
        """State ``[S]`` and points ``[F, A]`` of an observation. ``now`` is the state in plain floats."""
        out, self._state[:] = self._out, laid_out(now)
        out.is_last[self._last_row] = 0.0
        if last_row >= 0:
            out.is_last[last_row] = 1.0
        self._last_row = last_row
        if self._streams is not None:
            self._foresee_streams(reference_age or [math.inf] * self._streams.count, motion)
        self._foresee_times(asleep=bool(self._now.awake_s <= 0.0))
        return self._state.copy(), self._columns.copy()

    def _foresee_times(self, asleep: bool) -> None:
        out, now, link, spare = self._out, self._now, self._now.hops[0], self._spare
        leaves, away, later = self._leaves, self._away, self._later
        head, finish = out.head_s, np.multiply(self._finish_s, now.slow_down, out=out.finish_s)
        np.multiply(self._head_s, now.slow_down, out=head)
        if now.worker_s:
            head += now.worker_s * self._heavy
        if now.finish_pending_s:
            head += now.finish_pending_s * (self._heavy & (now.finish_due_s < head))
        if link.queue_s:
            np.maximum(head, np.multiply(self._crosses, link.queue_s, out=leaves), out=leaves)
        else:
            leaves[:] = head
        if asleep:
            leaves += self._waking_s
        byte_s = 1.0 / link.goodput
        leaves += np.multiply(out.payload, byte_s, out=spare)
        np.add(out.server_s, link.rtt_s + now.server_wait_s, out=away)
        away *= self._crosses
        away += leaves
        away += now.waited_s
        np.multiply(out.payload, 1.0 / link.goodput_low - byte_s, out=later)
        if link.stalled_s:
            later += np.multiply(self._crosses, link.stalled_s, out=spare)
        latency = self._bounded(away, out.latency_s)
        slack = np.subtract(now.deadline_s, latency, out=out.slack_s)
        np.maximum(np.subtract(slack, later, out=spare), self._least, out=out.slack_low_s)
        self._foresee_energy(asleep)
        busy = np.maximum(head, now.worker_s, out=away)
        if self._races is not None:
            busy += np.multiply(finish, self._races, out=spare)
        busy += now.waited_s - now.period_s
        np.maximum(busy, self._none, out=out.device_queue_s)
        np.copyto(leaves, link.queue_s, where=self._local)
        leaves -= now.period_s
        self._bounded(leaves, out.link_queue_s)
        np.add(head, finish, out=spare)
        np.subtract(now.deadline_s - self._guard_s - now.waited_s, spare, out=out.finish_slack_s)

    def _foresee_energy(self, asleep: bool) -> None:
        out, now, spare = self._out, self._now, self._spare
        joules = np.multiply(self._head_j, now.slow_down, out=out.joules)
        if self._races is not None:
            joules += np.multiply(out.finish_s, self._race_w, out=spare)
        joules += np.multiply(out.payload, self._sending_w / now.hops[0].goodput + self._byte_j, out=spare)
        if asleep:
            joules += self._waking_j
        self._foresee_cost()
        longer = np.maximum(out.head_s, now.awake_s, out=spare)
        np.subtract(self._leaves, longer, out=longer)
        longer += self._tail_s
        longer *= self._awake_w
        joules += longer

    def _foresee_cost(self) -> None:
        """From the joules without those of a radio that stays awake for longer."""
        out, now, spare = self._out, self._now, self._spare
        if not (now.joule_price or now.byte_price):
            out.cost.fill(0.0)
            return
        np.add(out.joules, np.multiply(self._awake_w, now.period_s, out=spare), out=out.cost)
        np.multiply(out.cost, now.joule_price, out=out.cost)
        np.add(out.cost, np.multiply(out.payload, now.byte_price, out=spare), out=out.cost)

    def _foresee_streams(self, ages: list[float], motion: list[float] | None) -> None:
        assert self._streams is not None
        # The last one is for -1, which is no stream.
        columns = np.array([*(NO_REFERENCE if age == math.inf else min(int(age), LONGEST) for age in ages), NO_STREAM])
        of_points = columns.take(self._streams.of)
        SHOWN.take(of_points, out=self._out.reference_age, mode="clip")
        of_points += self._first
        if motion != self._motion:
            self._motion = None if motion is None else motion.copy()
            still = motion or [1.0] * self._streams.count
            self._growth.motion = np.array([*still, 1.0], np.float32).take(self._streams.of)
            self._growth.fill(self._out.steady_payload, self._steady, self._spare)
        self._growth.fill(self._out.payload, of_points, self._spare)

    def _bounded(self, values: Floats32, out: Floats32) -> Floats32:
        """Values between zero and the greatest age. With arrays as bounds this takes a third as long as `np.clip`."""
        return np.minimum(np.maximum(values, self._none, out=out), self._oldest, out=out)


class _Growth:
    """The points' payloads by age of the reference, for each of `SHOWN`, and by motion."""

    def __init__(self, table: PointTable, bare: Floats32) -> None:
        shown = np.array([*(min(age, OLDEST + 1) for age in range(LONGEST + 1)), 0, 0])
        self._factors = table.streams.factors.astype(np.float32)[:, shown]
        # What is in no stream, and a key, have their bytes in any motion.
        still = (shown == 0) | (table.streams.of < 0)[:, None]
        self._least = np.where(still, self._factors, np.float32(0.0))
        self._most = np.where(
            still, self._factors, np.maximum(self._factors, table.streams.cap.astype(np.float32)[:, None])
        )
        self._body, self._bare = table.hops[0].bytes_mean.astype(np.float32), bare
        self.motion = np.ones_like(self._body)

    def fill(self, out: Floats32, places: NDArray[np.int64], spare: Floats32) -> None:
        """Payloads ``[A]`` at these places of the flat arrays."""
        self._factors.take(places, out=out, mode="clip")
        out *= self.motion
        np.maximum(out, self._least.take(places, out=spare, mode="clip"), out=out)
        np.minimum(out, self._most.take(places, out=spare, mode="clip"), out=out)
        out -= np.float32(1.0)
        out *= self._body
        out += self._bare
