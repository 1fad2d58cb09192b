"""The device's background: one worker computes there at low priority, and all open frames end in time.

The worker runs whole local nets, local halves of races, and fallbacks, one after the other. Encoding and sending never
wait for it. A second thread, the timekeeper, ends frames at their deadlines, also while the worker computes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from tidesplit.runtime.core.events import Logits, RunEnded, RunNet, Tick, WorkerReady
from tidesplit.runtime.device import priority
from tidesplit.runtime.device.pacer import Pacer
from tidesplit.runtime.device.shared_core import SharedCore

__all__ = ["Worker"]


class Worker:
    """The two threads. `compute` makes the logits of a run."""

    def __init__(self, core: SharedCore, pacer: Pacer, compute: Callable[[RunNet], Logits]) -> None:
        self._core, self._pacer, self._compute = core, pacer, compute
        parts = {"worker": self._run_all, "timekeeper": self._end_all}
        self._threads = [threading.Thread(target=part, name=name, daemon=True) for name, part in parts.items()]

    def __enter__(self) -> Worker:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until all frames have their end."""
        self._core.close()
        for thread in self._threads:
            thread.join()

    def _run_all(self) -> None:
        priority.lower()
        while actions := self._core.ask(WorkerReady):
            (run,) = actions
            assert isinstance(run, RunNet)
            self._pacer.run_begins(run.begin_s)
            logits, error = self._result(run)
            end_s = self._pacer.end_s(run.begin_s, run.expected_s)
            self._pacer.run_ends()
            self._core.tell(RunEnded(end_s, run.number, logits, error))
            self._core.wake()

    def _result(self, run: RunNet) -> tuple[Logits | None, str | None]:
        """The logits of a run, or the reason why there are none."""
        try:
            return self._compute(run), None
        except Exception as error:  # ONNX Runtime has no public class. The frame is missed, the next ones go on.
            return None, f"the device could not finish the frame: {error}"

    def _end_all(self) -> None:
        self._core.ask(Tick)
