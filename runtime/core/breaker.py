"""The breaker stops sending while the link or the server fails, and notices when it works again.

It is a state machine over values, without socket or clock. Closed: frames are sent. Open: only a probe is sent, after a
back-off. Half-open: that probe is under way. Its answer closes the breaker, its failure opens it again for longer. The
observation's mask excludes points that the breaker blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

__all__ = ["Breaker", "State"]

State = Literal["closed", "open", "half-open"]


@dataclass
class Breaker:
    """The back-off doubles from `first_s` to `last_s` and varies at random by the share `jitter`.

    The longest back-off bounds the time until a link's return is noticed. Frames shall be sent again within one second:
    0.5 s of back-off leave 0.5 s for connecting and for the probe. For a reason that waiting does not mend, the
    back-off doubles from `first_lasting_s` to `last_lasting_s`. Somebody has to change something, and a clock or a
    server that was just started may be the reason.
    """

    rng: np.random.Generator
    first_s: float = 0.1
    last_s: float = 0.5
    first_lasting_s: float = 1.0
    last_lasting_s: float = 60.0
    jitter: float = 0.2
    state: State = "closed"
    reason: str = ""
    retry_s: float = field(default=0.0, init=False)
    _backoff_s: float = field(default=0.0, init=False)

    @property
    def blocked(self) -> bool:
        """True while no frame may be sent."""
        return self.state != "closed"

    def failed(self, now_s: float, reason: str, pause_s: float = 0.0, lasts: bool = False) -> None:
        """A message failed: refused, reset, or unanswered for too long.

        Args:
            now_s: the time.
            reason: a sentence for the log.
            pause_s: time for which the server asks the device not to send. The spread only lengthens it.
            lasts: True where waiting does not mend the reason.
        """
        if self.state == "open":  # messages sent before it opened fail together, and the back-off runs already
            self.retry_s = max(self.retry_s, now_s + pause_s)
            return
        first_s, last_s = (self.first_lasting_s, self.last_lasting_s) if lasts else (self.first_s, self.last_s)
        doubled = 2.0 * self._backoff_s if self.state == "half-open" else first_s
        self._backoff_s = min(max(doubled, first_s), last_s)
        spread = self.jitter * float(self.rng.uniform(-1.0, 1.0))
        self.state, self.reason = "open", reason
        self.retry_s = now_s + max(self._backoff_s * (1.0 + spread), pause_s * (1.0 + abs(spread)))

    def wants_probe(self, now_s: float) -> bool:
        """True where a probe is due."""
        return self.state == "open" and now_s >= self.retry_s

    def probing(self) -> None:
        """The due probe was sent."""
        self.state = "half-open"

    def succeeded(self) -> bool:
        """An answer came. Returns True where it closed the breaker."""
        closes = self.state != "closed"
        self.state, self.reason, self._backoff_s = "closed", "", 0.0
        return closes
