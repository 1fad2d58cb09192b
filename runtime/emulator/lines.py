"""Both directions of an emulated link under one clock: two shapers, the faults scripted for them and those set by hand.

Knows the time but no socket. Everything here is called with ``lock`` held, by the thread that serves the sockets or by
one that changes the conditions.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from tidesplit.envs.traces.trace import Trace
from tidesplit.runtime.emulator.faults import Conditions, Script
from tidesplit.runtime.emulator.shaper import LANE, Shaper, constant, round_trip, uplink_of

T = TypeVar("T")


@dataclass(frozen=True)
class Setup:
    """What a link is before any fault: seconds, bits per second; ``loss`` is a share of packets, in [0, 1]."""

    trace: Trace
    rtt_s: float
    jitter_s: float
    loss: float
    downlink_bps: float
    script: Script

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rtt_s) and self.rtt_s >= 0.0):
            raise ValueError(f"got rtt_s {self.rtt_s}, expected a finite number not below 0")
        if not 0.0 <= self.loss <= 1.0:
            raise ValueError(f"got loss {self.loss}, expected a share from 0 to 1")
        if not (math.isfinite(self.downlink_bps) and self.downlink_bps > 0.0):
            raise ValueError(f"got downlink_bps {self.downlink_bps}, expected a finite number above 0")


class Lines(Generic[T]):
    """Uplink and downlink; ``strokes`` are the scripted faults without duration that are due and not yet done."""

    def __init__(self, setup: Setup, rng: np.random.Generator) -> None:
        self.lock = threading.Lock()
        self.strokes: list[str] = []
        self.sound = self.now = Conditions(jitter_s=setup.jitter_s)
        self._script = setup.script
        self._line = uplink_of(setup.trace)
        way, (up, down) = round_trip(setup.trace, setup.rtt_s), rng.spawn(2)
        back = uplink_of(constant(setup.downlink_bps))
        self.up: Shaper[T] = Shaper(self._line, way, loss=setup.loss, rng=up, conditions=self.now)
        self.down: Shaper[T] = Shaper(back, way, loss=setup.loss, rng=down, conditions=self.now)
        self._origin_s: float | None = None  # the trace's zero by time.perf_counter
        self._played_s = -1.0

    def now_s(self) -> float:
        """Seconds on the trace's clock, 0 before it starts."""
        return 0.0 if self._origin_s is None else time.perf_counter() - self._origin_s

    def begin(self) -> None:
        """The trace's clock starts now, unless it runs already."""
        if self._origin_s is None:
            self._origin_s = time.perf_counter()
            self.play(0.0)

    def set(self, sound: Conditions) -> None:
        """The link is so from now on, apart from what is scripted."""
        self.sound = sound
        self._change(self.now_s())

    def play(self, until_s: float) -> None:
        """Scripted faults that begin or end by then, each at its very moment however late this is called."""
        if self._origin_s is None:
            return
        while (moment_s := self._script.next_s(self._played_s)) <= until_s:
            self._played_s = moment_s
            self.strokes += self._script.strokes(moment_s)
            self._change(moment_s)

    def next_s(self) -> float:
        """When something arrives or a scripted fault begins or ends; infinity if nothing does."""
        scripted_s = math.inf if self._origin_s is None else self._script.next_s(self._played_s)
        return min(self.up.next_s(), self.down.next_s(), scripted_s)

    def bandwidth_bps(self) -> float:
        """The uplink's at this moment."""
        share = 0.0 if self.now.dark else self.now.bandwidth_factor
        return 8.0 * share * float(self._line.rate_at(LANE, np.array([self.now_s()]))[0])

    def _change(self, at_s: float) -> None:
        self.now = self._script.conditions(at_s, self.sound)
        self.up.change(at_s, self.now)
        self.down.change(at_s, replace(self.now, bandwidth_factor=1.0))  # the trace and its factor are the uplink's
