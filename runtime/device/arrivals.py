"""The moments at which frames arrive: those of the demand's rate, or those at which a camera's pictures come.

No camera keeps the device's clock. If frame k arrived at k / fps whatever the camera does, the wait of its frames would
grow without end. So a live picture arrives when its last byte comes. Of a camera that is faster than the demand's rate,
pictures are passed over.
"""

from __future__ import annotations

import math

__all__ = ["Arrivals"]

# A live picture may come sooner than the rate allows by so many periods. With one period, a camera of 31 fps under a
# demand of 30 loses one picture in 31. The quarter more keeps the jitter of one of 60 fps from making odd gaps.
EARLY = 1.25


class Arrivals:
    """The schedule of a source's frames, from `start_s` on at most one a period in the long run."""

    def __init__(self, start_s: float, period_s: float) -> None:
        self._start_s, self._period_s = start_s, period_s
        self._from_s, self._count = start_s, 0
        self._soonest_s = -math.inf

    @property
    def soonest_s(self) -> float:
        """Live pictures that came before this moment are passed over. None are before the first frame."""
        return self._soonest_s

    def stored(self, ready_s: float | None = None) -> float:
        """Arrival of the next frame of a folder or a recording: its nominal moment, or later where it was not ready."""
        nominal_s = self._from_s + self._count * self._period_s
        if ready_s is not None and ready_s > nominal_s:
            self._from_s, self._count, nominal_s = ready_s, 0, ready_s
        self._count += 1
        return nominal_s

    def live(self, came_s: float) -> float:
        """Arrival of a live picture that came at `came_s`. The first frame may have come before the loop began."""
        arrival_s = max(came_s, self._start_s)
        self.stored(arrival_s)
        self._soonest_s = self._from_s + self._count * self._period_s - EARLY * self._period_s
        return arrival_s
