"""Both directions of an emulated link on one clock: two shapers, scripted faults, and conditions set by hand.

This module reads the clock but knows no sockets. Hold ``lock`` for every call, because one thread serves the sockets
and others change the conditions.
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
    """A link without faults. ``loss`` is a share of packets, in [0, 1]."""

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
    """Uplink and downlink. ``strokes`` are the faults of a single moment that are due and not carried out yet."""

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
        self._origin_s: float | None = None  # time.perf_counter() at the trace's start
        self._played_s = -1.0

    def now_s(self) -> float:
        """Seconds on the trace's clock; 0 before it starts."""
        return 0.0 if self._origin_s is None else time.perf_counter() - self._origin_s

    def begin(self) -> None:
        """Start the trace's clock, unless it runs already."""
        if self._origin_s is None:
            self._origin_s = time.perf_counter()
            self.play(0.0)

    def set(self, sound: Conditions) -> None:
        """Set the conditions that hold without scripted faults, from now on."""
        self.sound = sound
        self._change(self.now_s())

    def play(self, until_s: float) -> None:
        """Apply the scripted faults that begin or end by ``until_s``, each at its own moment even if called late."""
        if self._origin_s is None:
            return
        while (moment_s := self._script.next_s(self._played_s)) <= until_s:
            self._played_s = moment_s
            self.strokes += self._script.strokes(moment_s)
            self._change(moment_s)

    def next_s(self) -> float:
        """Time of the next arrival or scripted change; infinity where there is none."""
        scripted_s = math.inf if self._origin_s is None else self._script.next_s(self._played_s)
        return min(self.up.next_s(), self.down.next_s(), scripted_s)

    def bandwidth_bps(self) -> float:
        """The uplink's present bandwidth, bits per second."""
        share = 0.0 if self.now.dark else self.now.bandwidth_factor
        return 8.0 * share * float(self._line.rate_at(LANE, np.array([self.now_s()]))[0])

    def _change(self, at_s: float) -> None:
        self.now = self._script.conditions(at_s, self.sound)
        self.up.change(at_s, self.now)
        self.down.change(at_s, replace(self.now, bandwidth_factor=1.0))  # the factor applies to the uplink only
