"""The device's observation: `envs.world.observation.observe` for one lane and one hop, equal to it in every bit.

The batched form spends its time on the overhead of small arrays, which on a small device is milliseconds a frame. Here
the belief is computed in plain floats, and whatever of the forecast does not depend on the situation is computed once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.fields import Seen
from tidesplit.envs.world.observation import Observation, Situation, observe
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Demands, Transfers
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.choosing.forecast import Forecast
from tidesplit.runtime.choosing.one_link import believe_alone


class Observer:
    """Builds the observations of one device with one table, demand and world, on one thread at a time."""

    def __init__(self, table: PointTable, demand: Demand, world: World) -> None:
        self._table, self._demand, self._world = table, demand, world
        self._demands = Demands.of(demand)
        nothing = Transfers.none(1, world.window)
        zero, one, none = np.zeros(1), np.ones(1), np.array([-1])
        usual = Situation(zero, zero, (nothing,) * len(table.hops), one, none, worker_s=zero, heat_c=zero)
        first = observe(usual, table, self._demands, world)
        self._forecast = Forecast(table, world, first)
        self._accurate: NDArray[np.bool_] = first.mask[0]
        self._accurate_here: NDArray[np.bool_] = self._accurate & table.local

    def observe(self, situation: Situation) -> Observation:
        """The observation of a situation of one lane."""
        if len(self._table.hops) > 1:
            return observe(situation, self._table, self._demands, self._world)
        now = self._now(situation)
        ages = None if situation.reference_age is None else situation.reference_age[0].tolist()
        state, points = self._forecast.foresee(now, int(situation.last_point[0]), ages)
        return Observation(state[None], points[None], self._allowed(situation, now)[None])

    def _now(self, situation: Situation) -> Seen:
        """The state in plain floats."""
        now_s, world, demand = float(situation.now_s[0]), self._world, self._demand
        link = believe_alone(situation.transfers[0], now_s, world.usual_rtt_s())
        tail_s = world.radio.tail_s
        awake_s = max(float(situation.transfers[0].sent_s[0, 0]), 0.0) + tail_s - now_s
        known: dict[str, Any] = {
            "waited_s": float(situation.waited_s[0]),
            "deadline_s": demand.deadline_s,
            "period_s": demand.period_s,
            "for_latency": demand.objective == "latency",
            "server_wait_s": link.server_wait_s,
            "finish_pending_s": link.finish_pending_s,
            "finish_due_s": link.finish_due_s,
            "slow_down": float(situation.slow_down[0]),
            "worker_s": float(situation.worker_s[0]),
            "heat_c": float(situation.heat_c[0]),
            "awake_s": min(max(awake_s, 0.0), tail_s),
        }
        return Seen(**known, hops=(link.hop,))

    def _allowed(self, situation: Situation, now: Seen) -> NDArray[np.bool_]:
        """The mask `[A]` of `envs.world.observation.allowed`."""
        blocked = situation.blocked is not None and bool(situation.blocked[0])
        full = bool(now.hops[0].in_flight == self._world.window)
        return self._accurate_here if (blocked or full) and self._accurate_here.any() else self._accurate
