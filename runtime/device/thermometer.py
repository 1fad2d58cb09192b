"""The temperature that the device believes: the processor's, or the usual one where the system does not tell it."""

from __future__ import annotations

import math
from collections.abc import Callable

from tidesplit.envs.world.physics import World
from tidesplit.profiling.points.table import Machine
from tidesplit.runtime.device.temperature import read_celsius

__all__ = ["Thermometer", "usual_c"]

FRESH_S = 1.0  # a processor with its metal and board takes many seconds to warm by a degree


class Thermometer:
    """Reads the temperature at most once a second, because a reading may ask the firmware."""

    def __init__(self, read: Callable[[], float | None] = read_celsius) -> None:
        self._read, self._read_s = read, -math.inf
        self._newest: float | None = None

    def at(self, now_s: float) -> float | None:
        """Degrees Celsius at `now_s`; None where the system does not know them."""
        if now_s - self._read_s >= FRESH_S:
            self._read_s, self._newest = now_s, self._read()
        return self._newest


def usual_c(world: World, machine: Machine) -> float:
    """Degrees that are believed where the system does not know them: those of half the load in usual air."""
    ambient_c = 0.5 * (world.coolest_c + world.warmest_c)
    return ambient_c + world.cooling.kelvin_per_watt * (machine.idle_w + 0.5 * machine.run_w)
