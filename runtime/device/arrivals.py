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


class Arrivals:
    """The schedule of a source's frames, from `start_s` on at most one a period in the long run."""

    def __init__(self, start_s: float, period_s: float) -> None:
        self._from_s, self._period_s, self._count = start_s, period_s, 0

    def next_s(self, came_s: float | None) -> float:
        """Arrival of the next frame. `came_s` is when its picture came, None for one that was there already."""
        nominal_s = self._from_s + self._count * self._period_s
        self._count += 1
        if came_s is None or not math.isfinite(came_s):
            return nominal_s
        if came_s > nominal_s:
            self._from_s, self._count = came_s, 1
        return max(came_s, nominal_s - EARLY * self._period_s)
