"""The moments at which frames arrive: those of the demand's rate, or those of a camera that is slower than it.

No camera keeps the device's clock. If frame k arrived at k / fps whatever the camera does, the wait of its frames would
grow without end. So a picture that comes later than its nominal moment arrives when it comes, and the schedule goes on
from there.
"""

from __future__ import annotations

import math

__all__ = ["Arrivals"]

# A picture may arrive earlier than its nominal moment by this share of a period. Otherwise one late picture of a camera
# would make all later ones wait.
EARLY = 0.25
SOONER = 0.01  # a camera's schedule runs faster by this share, so that pictures do not lie for good after a long pause


class Arrivals:
    """The schedule of a source's frames, from `start_s` on at most one a period in the long run."""

    def __init__(self, start_s: float, period_s: float) -> None:
        self._from_s, self._period_s, self._count = start_s, period_s, 0

    @property
    def soonest_s(self) -> float:
        """The earliest moment at which the next frame of a camera may arrive."""
        return self._nominal_s - EARLY * self._period_s

    @property
    def _nominal_s(self) -> float:
        return self._from_s + self._count * self._period_s

    def next_s(self, came_s: float | None) -> float:
        """Arrival of the next frame. `came_s` is when its picture came, None for one that was there already."""
        nominal_s, soonest_s = self._nominal_s, self.soonest_s
        self._count += 1
        if came_s is None or not math.isfinite(came_s):
            return nominal_s
        if came_s > nominal_s:
            self._from_s, self._count = came_s, 1
        self._from_s -= SOONER * self._period_s
        return max(came_s, soonest_s)
