"""Estimates the energy of a device and of its radio, from the times of its runs and the sizes of its messages."""

from __future__ import annotations

import numpy as np

from tidesplit.envs.world.physics import World
from tidesplit.profiling.points.table import Machine


class Meter:
    """Adds up joules from frame to frame, by the rules of the world.

    A run or a message counts when it is known, so that a frame may have some of the energy of the one before. Sums and
    means are right.

    Args:
        machine: gives the watts of the device.
        world: gives the radio.
        now_s: moment of the last message before the first frame, on the device's clock.
    """

    def __init__(self, machine: Machine, world: World, now_s: float) -> None:
        self._machine, self._world = machine, world
        self._awake_s = now_s + world.radio.tail_s
        self._busy_s = self._light_s = self._radio_j = 0.0

    def ran(self, run_s: float, *, light: bool) -> None:
        """Take a run of the device. `light`: on one thread, as the encoding of a picture is."""
        if light:
            self._light_s += run_s
        else:
            self._busy_s += run_s

    def sent(self, ready_s: float, uplink_s: float, payload: int) -> None:
        """Take a message: the moment at which it was ready, the time of its bytes on the link, and their number."""
        radio = self._world.radio
        ready, left, awake = np.array([[ready_s], [ready_s + uplink_s], [self._awake_s]])
        size = np.array([payload + self._world.overhead_bytes])
        self._radio_j += float(radio.joules(ready, ready, left, size, awake)[0])
        self._awake_s = max(self._awake_s, ready_s + uplink_s + radio.tail_s)

    def take(self, period_s: float) -> float | None:
        """Joules since the last call, with one frame period of idle watts. None where the watts are not known."""
        device_j = self._machine.joules(period_s, self._busy_s, self._light_s)
        joules = device_j + self._radio_j
        self._busy_s = self._light_s = self._radio_j = 0.0
        return joules if self._machine.busy_w else None
