"""What the device's loop itself costs a frame, without the CNN and the codec: decision, record and message."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np

from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.envs.world.observation import Controller, Observation
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Ints
from tidesplit.profiling.measuring.clock import time_interleaved
from tidesplit.profiling.points.table import PointTable
from tidesplit.runtime.camera.picture import Picture
from tidesplit.runtime.choosing.deciding import FrameDecider
from tidesplit.runtime.choosing.device_situation import DeviceSituation
from tidesplit.runtime.choosing.safeguard import Safeguard
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.wire.estimator import Estimator, Settled
from tidesplit.runtime.wire.messages import Request, build_request

FRAMES = 300
PAYLOAD = bytes(500)  # about as many as a cut sends


class Decider:
    """Decides frames of drawn links and answers as the device's loop does.

    Args:
        table: the points among which it chooses.
        demand: of every frame.
        policy: None where there is none. Then the points are taken in turn, which costs nothing.
    """

    def __init__(self, table: PointTable, demand: Demand, policy: Controller | None) -> None:
        self._table, self._demand, world = table, demand, World()
        safeguard = Safeguard(demand.period_s)
        self._decider = FrameDecider(policy or _InTurn(), table, demand, world, safeguard)
        self._picture = Picture(natural_picture(32), "drawn")
        self._links = tuple(Estimator(world.window) for _ in table.hops)
        self._reference_age = [1.0] * table.streams.count

    def hear(self, k: int) -> None:
        """Take the answers that came since the frame before, some with a delay."""
        for link in self._links:
            link.sent(k, k / 30, Settled(900.0, tail_s=0.008))
            link.answered(k, k / 30 + 0.08, 5.0 + k / 30 + 0.03 + 0.001 * (k % 7), 0.001)

    def decide(self, k: int) -> Record:
        """Observe, choose a point, and write it down."""
        messages, last = tuple(link.rows() for link in self._links), k % self._table.size
        decision = self._decider.decide(
            DeviceSituation(k / 30 + 0.09, 0.0, messages, 1.0, last, 0.0, 50.0, False, self._reference_age)
        )
        return Record.of(k, self._picture, self._demand, self._table, decision.believed, decision.row)


class _InTurn:
    """Takes the points in turn."""

    name = "in turn"

    def __init__(self) -> None:
        self._decided = count()

    def predict(self, observation: Observation) -> Ints:
        """The next row."""
        return np.array([next(self._decided) % observation.mask.shape[1]])


def loop_s(table: PointTable, demand: Demand, policy: Controller | None, frames: int = FRAMES) -> float:
    """Seconds that the loop takes for a frame, the median of many. Without a policy its run is not in them."""
    one = _frame(Decider(table, demand, policy))
    return time_interleaved({"loop": one}, rounds=frames, runs=1, warm=0)["loop"].median_s


def _frame(decider: Decider) -> Callable[[], None]:
    numbers = count()

    def one() -> None:
        k = next(numbers)
        decider.hear(k)
        record = decider.decide(k)
        build_request(Request("cnn", 1, "0" * 16, str(k), PAYLOAD, record.decision)).SerializeToString()

    return one
