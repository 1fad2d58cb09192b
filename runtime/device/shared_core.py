"""The device's core behind one lock, for the threads that feed it events."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tidesplit.runtime.core.core import Core
from tidesplit.runtime.core.events import Action, Event, Settle, WaitUntil
from tidesplit.runtime.log.record import Record

__all__ = ["SharedCore"]

NAP_S = 0.5  # longest wait without a look at the core


class SharedCore:
    """Feeds events to `core`, one at a time. Settled frames go to `log` in the order of their ends, under the lock."""

    def __init__(self, core: Core, clock: Callable[[], float], log: Callable[[Record], None]) -> None:
        self.core, self._now_s, self._log = core, clock, log
        self.lock = threading.Condition()
        self._closing = False

    def tell(self, event: Event) -> list[Action]:
        """What is to be done after an event."""
        with self.lock:
            return self._handled(event)

    def ask(self, question: Callable[[float], Event]) -> list[Action]:
        """Ask until the answer is another one than to wait. Empty where none will come, because the device closes.

        `question` makes the event of a moment.
        """
        with self.lock:
            while True:
                actions = self._handled(question(self._now_s()))
                if not isinstance(wait := actions[-1], WaitUntil):
                    return actions
                if self._closing and not self.core.under_way:
                    return []
                self.lock.wait(min(max(wait.at_s - self._now_s(), 0.0), NAP_S))

    def wake(self) -> None:
        """Let all who wait ask again."""
        with self.lock:
            self.lock.notify_all()

    def close(self) -> None:
        """Let all who wait for a run or a deadline end when all frames have their end."""
        with self.lock:
            self._closing = True
            self.lock.notify_all()

    def _handled(self, event: Event) -> list[Action]:
        actions = self.core.handle(event)
        for action in actions:
            if isinstance(action, Settle):
                self._log(action.record)
                if self._closing:
                    self.lock.notify_all()
        return actions
