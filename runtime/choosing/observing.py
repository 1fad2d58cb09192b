"""The device's observation: `envs.world.observation.observe` for one lane and one hop, equal to it in every bit.

The batched form spends its time on the overhead of small arrays, which on a small device is milliseconds a frame. Here
the belief is computed in plain floats, and whatever of the forecast does not depend on the situation is computed once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.fields import Seen
from tidesplit.envs.world.observation import Observation, observe
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Demands
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.choosing.device_situation import DeviceSituation
from tidesplit.runtime.choosing.forecast import Forecast
from tidesplit.runtime.choosing.one_link import believe_alone
from tidesplit.runtime.wire.estimator import UNUSED

_SEEN: Callable[..., Seen] = Seen  # of plain numbers in place of columns


class Observer:
    """Builds the observations of one device with one table, demand and world, on one thread at a time."""

    def __init__(self, table: PointTable, demand: Demand, world: World) -> None:
        self._table, self._demand, self._world = table, demand, world
        self._demands, self._prices = Demands.of(demand), (0.0, 0.0)
        idle = ([UNUSED] * world.window,) * len(table.hops)
        first = observe(DeviceSituation(0.0, 0.0, idle, 1.0, -1, 0.0, 0.0).as_lane(), table, self._demands, world)
        self._forecast = Forecast(table, world, first)
        self._accurate: NDArray[np.bool_] = first.mask[0]
        self._accurate_here: NDArray[np.bool_] = self._accurate & table.local

    def charge(self, joule_price: float, byte_price: float) -> None:
        """Let a joule and a byte cost so much utility from now on."""
        self._prices = joule_price, byte_price
        self._demands.joule_price[:], self._demands.byte_price[:] = self._prices

    def observe(self, situation: DeviceSituation) -> Observation:
        """The observation in this situation."""
        if len(self._table.hops) > 1:
            return observe(situation.as_lane(), self._table, self._demands, self._world)
        now = self._now(situation)
        state, points = self._forecast.foresee(now, situation.last_point, situation.reference_age, situation.motion)
        return Observation(state[None], points[None], self._allowed(situation, now)[None])

    def _now(self, situation: DeviceSituation) -> Seen:
        """The state in plain floats."""
        now_s, world, demand, rows = situation.now_s, self._world, self._demand, situation.messages[0]
        link = believe_alone(rows, now_s, world.usual_rtt_s())
        tail_s = world.radio.tail_s
        awake_s = max(rows[0][0], 0.0) + tail_s - now_s
        return _SEEN(
            waited_s=situation.waited_s,
            deadline_s=demand.deadline_s,
            period_s=demand.period_s,
            for_latency=demand.objective == "latency",
            joule_price=self._prices[0],
            byte_price=self._prices[1],
            server_wait_s=link.server_wait_s,
            finish_pending_s=link.finish_pending_s,
            finish_due_s=link.finish_due_s,
            slow_down=situation.slow_down,
            worker_s=situation.worker_s,
            heat_c=situation.heat_c,
            awake_s=min(max(awake_s, 0.0), tail_s),
            hops=(link.hop,),
        )

    def _allowed(self, situation: DeviceSituation, now: Seen) -> NDArray[np.bool_]:
        """The mask `[A]` of `envs.world.observation.allowed`."""
        full = bool(now.hops[0].in_flight == self._world.window)
        return self._accurate_here if (situation.blocked or full) and self._accurate_here.any() else self._accurate
