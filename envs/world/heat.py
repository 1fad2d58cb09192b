"""The device's temperature, made by its own work, and the clock that falls when it is hot."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tidesplit.envs.world.vocabulary import Floats


@dataclass(frozen=True, kw_only=True)
class Cooling:
    """A first-order model: the processor settles at a temperature in proportion to the watts, with one time constant.

    The defaults are a bare Raspberry Pi 4. Fitted to the curves of stressberry (github.com/nschloe/stressberry, stress
    on four cores for 300 s). 9 K/W also gives its idle temperature. Both are uncertain by about a quarter.
    """

    kelvin_per_watt: float = 9.0
    settling_s: float = 60.0
    soft_c: float = 80.0  # the clock begins to fall (Raspberry Pi documentation, frequency management)
    hard_c: float = 85.0  # the clock is at its lowest
    slowest: float = 1.5  # factor on compute times there: a Raspberry Pi 4 goes from 1.5 to 1.0 GHz

    def slow_down(self, heat_c: Floats) -> Floats:
        """Factor on compute times at a temperature, 1 while it is cool, ``[B]``."""
        above = (heat_c - self.soft_c) / (self.hard_c - self.soft_c)
        share = np.minimum(np.maximum(above, 0.0), 1.0)  # faster than np.clip
        return np.asarray(1.0 + (self.slowest - 1.0) * share)

    def settled(self, ambient_c: Floats, watts: Floats | float) -> Floats:
        """Temperature at which the device settles under a constant load, ``[B]``."""
        return ambient_c + self.kelvin_per_watt * watts

    def after(self, heat_c: Floats, ambient_c: Floats, watts: Floats, seconds: Floats) -> Floats:
        """Temperature after some seconds at these watts, ``[B]``."""
        settled = self.settled(ambient_c, watts)
        return np.asarray(settled + (heat_c - settled) * np.exp(-seconds / self.settling_s))


BARE = Cooling()
HEAT_SINK = Cooling(kelvin_per_watt=4.5, settling_s=180.0)
"""A case that is a heat sink, from the same source."""
FAN = Cooling(kelvin_per_watt=3.2, settling_s=32.0)
"""A case with a fan, from the same source."""
NO_HEAT = Cooling(kelvin_per_watt=0.0, slowest=1.0, settling_s=math.inf)
"""A device that never gets hot."""
