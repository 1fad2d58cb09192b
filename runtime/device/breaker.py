"""The breaker: stops sending into a link or to a server that fails, and finds out when it is back.

A state machine over values, without socket or clock. Closed: frames cross. Open: nothing crosses but a probe when its
back-off has passed. Half-open: that probe is under way; its answer closes the breaker, its failure opens it again for
longer. What the breaker allows is in the observation's mask.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

__all__ = ["Breaker", "State"]

State = Literal["closed", "open", "half-open"]


@dataclass
class Breaker:
    """`first_s` to `last_s`: back-off after the first failure, doubling. `jitter`: it is spread by this share.

    The longest back-off bounds how late a link's return is noticed: half a second leaves the other half of the second
    within which frames are to cross again to connecting and to the probe's round trip.
    """

    rng: np.random.Generator
    first_s: float = 0.1
    last_s: float = 0.5
    jitter: float = 0.2
    state: State = "closed"
    reason: str = ""
    retry_s: float = field(default=0.0, init=False)
    _backoff_s: float = field(default=0.0, init=False)

    @property
    def blocked(self) -> bool:
        """Whether frames may not cross."""
        return self.state != "closed"

    def failed(self, now_s: float, reason: str) -> None:
        """A message failed: refused, reset, or unanswered for too long."""
        if self.state == "open":
            return  # the back-off runs already: those sent before it opened all fail together
        doubled = 2.0 * self._backoff_s if self.state == "half-open" else self.first_s
        self._backoff_s = min(max(doubled, self.first_s), self.last_s)
        spread = 1.0 + self.jitter * float(self.rng.uniform(-1.0, 1.0))
        self.state, self.reason = "open", reason
        self.retry_s = now_s + self._backoff_s * spread

    def wants_probe(self, now_s: float) -> bool:
        """Whether a probe is due that would find out if the link is back."""
        return self.state == "open" and now_s >= self.retry_s

    def probing(self) -> None:
        """That probe was sent."""
        self.state = "half-open"

    def succeeded(self) -> bool:
        """An answer came; returns whether this closed the breaker."""
        closes = self.state != "closed"
        self.state, self.reason, self._backoff_s = "closed", "", 0.0
        return closes
