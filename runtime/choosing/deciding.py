"""A frame's decision: values in, values out. The policy chooses, or the safeguard's rule in its place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tidesplit.envs.budget.account import Account
from tidesplit.envs.world.observation import Controller, Observation
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.choosing.device_situation import DeviceSituation
from tidesplit.runtime.choosing.observing import Observer
from tidesplit.runtime.choosing.refused_video import RefusedVideo
from tidesplit.runtime.choosing.safeguard import Safeguard, as_drawn, quickest, rule

__all__ = ["Decision", "FrameDecider", "too_late"]


@dataclass(frozen=True)
class Decision:
    """The decision for one frame.

    Args:
        row: of the table.
        believed: the observation as the device believes it.
        given: the observation that the row was chosen by.
        by_rule: True where the safeguard chose it.
        late: True where the frame is dropped.
        slow_down: factor by which the device plans the frame's runs.
    """

    row: int
    believed: Observation
    given: Observation
    by_rule: bool
    late: bool
    slow_down: float


@dataclass(frozen=True)
class FrameDecider:
    """Decides frames, under budgets at the prices of the `account`.

    If not `guarded`, the controller decides every one, also where all of its frames fail.
    """

    controller: Controller
    table: PointTable
    demand: Demand
    world: World
    safeguard: Safeguard
    guarded: bool = True
    refused_video: RefusedVideo | None = None
    account: Account | None = None

    def decide(self, situation: DeviceSituation) -> Decision:
        """The decision in this situation."""
        if self.account is not None:
            self._observer.charge(*self.account.prices)
        believed = self._observe(situation)
        row, given, by_rule = self._choose(situation, believed)
        slow_down = situation.slow_down
        late = self._late(row, situation, slow_down)
        if late and self.guarded and self.safeguard.starved():
            # Only a run can show that the frame would not have been late after all.
            row, by_rule, slow_down = quickest(believed), True, min(slow_down, 1.0)
            late = self._late(row, situation, slow_down)
        return Decision(row, believed, given, by_rule, late, slow_down)

    def _observe(self, situation: DeviceSituation) -> Observation:
        found = self._observer.observe(situation)
        return self.refused_video.left_out(found, situation.now_s) if self.refused_video else found

    @cached_property
    def _observer(self) -> Observer:
        return Observer(self.table, self.demand, self.world)

    def _choose(self, situation: DeviceSituation, believed: Observation) -> tuple[int, Observation, bool]:
        """The row of the frame's point, the observation that it was chosen by, and if the safeguard chose it."""
        if not self.guarded:
            return int(self.controller.predict(believed)[0]), believed, False
        if self.safeguard.rules(situation.now_s):
            return rule(believed, self.demand, self.world.guard_s), believed, True
        drawn = as_drawn(situation, self.world)
        given = believed if drawn is situation else self._observe(drawn)
        return int(self.controller.predict(given)[0]), given, False

    def _late(self, row: int, situation: DeviceSituation, slow_down: float) -> bool:
        light, head_s = self._runs[row]
        queued_s = 0.0 if light else situation.worker_s
        return too_late(self.demand, situation.waited_s + queued_s, head_s * slow_down)

    @cached_property
    def _runs(self) -> list[tuple[bool, float]]:
        """For each row of the table, True where the device only encodes, and the time of its run."""
        return list(zip(self.table.light.tolist(), self.table.head_s.tolist(), strict=True))


def too_late(demand: Demand, waited_s: float, head_s: float) -> bool:
    """True where a frame is dropped at its turn. See `envs.world.pipeline.hopeless`."""
    return waited_s + head_s > demand.deadline_s
