"""Faults of a link: written as text, scheduled on the trace's clock. The kinds are those of Toxiproxy.

A fault reads ``KIND@START[+DURATION][=VALUE]``, with times in seconds. Without a duration it lasts forever. In
``blackhole@10+8`` nothing passes from 10 s to 18 s; ``latency@30+5=200`` makes the round trip 200 ms longer for 5 s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

PACKET_BYTES = 1_448  # data of one Ethernet frame: 1500 less IPv4, TCP and its time stamps


class FaultError(ValueError):
    """A fault that cannot be used. The message is one sentence."""


class Kind(NamedTuple):
    """One kind of fault.

    ``unit`` is that of its value, None where it has no value; ``low`` and ``high`` are the value's limits. ``lasts`` is
    False for a fault of a single moment.
    """

    unit: str | None
    low: float
    high: float
    lasts: bool
    what: str


KINDS = {
    "latency": Kind("ms", 0.0, 60_000.0, True, "the round trip is longer by VALUE ms"),
    "jitter": Kind("ms", 0.0, 60_000.0, True, "one-way delays vary by VALUE ms (standard deviation)"),
    "bandwidth": Kind("share", 0.0, 1_000.0, True, "the uplink has VALUE times the trace's bandwidth"),
    "blackhole": Kind(None, 0.0, 0.0, True, "nothing passes; bytes are held and flow on afterwards"),
    "slicer": Kind("bytes", 1.0, PACKET_BYTES, True, f"packets have VALUE bytes instead of {PACKET_BYTES}"),
    "slow-close": Kind("ms", 0.0, 60_000.0, True, "the end of a connection arrives VALUE ms late"),
    "reset": Kind(None, 0.0, 0.0, False, "every open connection is reset"),
    "half-close": Kind(None, 0.0, 0.0, False, "clients read the end of the stream; servers still hear them"),
}
SYNTAX = "KIND@START[+DURATION][=VALUE], such as blackhole@10+8"
NUMBER = r"[0-9]*\.?[0-9]+"
PATTERN = re.compile(rf"(?P<kind>[a-z-]+)@(?P<start>{NUMBER})(\+(?P<lasts>{NUMBER}))?(=(?P<value>{NUMBER}))?")


@dataclass(frozen=True)
class Conditions:
    """A link's state at one moment. The default is a link without faults.

    ``extra_latency_s`` is added to the round trip, half each way. ``jitter_s`` is the standard deviation of one-way
    delays. While ``dark``, nothing passes.
    """

    extra_latency_s: float = 0.0
    jitter_s: float = 0.0
    bandwidth_factor: float = 1.0
    dark: bool = False
    packet_bytes: int = PACKET_BYTES
    slow_close_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("extra_latency_s", "jitter_s", "bandwidth_factor", "slow_close_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"got {name} {value}, expected a finite number not below 0")
        if self.packet_bytes < 1:
            raise ValueError(f"got packet_bytes {self.packet_bytes}, expected 1 or more")


@dataclass(frozen=True)
class Fault:
    """A fault from ``start_s`` to ``end_s`` on the trace's clock. ``value`` is in the kind's unit."""

    kind: str
    start_s: float
    end_s: float
    value: float = 0.0

    def worsens(self, now: Conditions) -> Conditions:
        """The conditions ``now`` with this fault added."""
        match self.kind:
            case "latency":
                return replace(now, extra_latency_s=now.extra_latency_s + self.value / 1e3)
            case "jitter":
                return replace(now, jitter_s=math.hypot(now.jitter_s, self.value / 1e3))
            case "bandwidth":
                return replace(now, bandwidth_factor=now.bandwidth_factor * self.value)
            case "blackhole":
                return replace(now, dark=True)
            case "slicer":
                return replace(now, packet_bytes=min(now.packet_bytes, int(self.value)))
            case "slow-close":
                return replace(now, slow_close_s=now.slow_close_s + self.value / 1e3)
        return now  # a fault of a single moment changes no condition, see `Script.strokes`


@dataclass(frozen=True)
class Script:
    """The faults of a run."""

    faults: tuple[Fault, ...] = ()

    def conditions(self, time_s: float, sound: Conditions) -> Conditions:
        """The conditions at ``time_s``. Without faults they would be ``sound``."""
        for fault in self.faults:
            if fault.start_s <= time_s < fault.end_s:
                sound = fault.worsens(sound)
        return sound

    def next_s(self, after_s: float) -> float:
        """The first moment after ``after_s`` at which a fault begins or ends; infinity where there is none."""
        moments = (moment for fault in self.faults for moment in (fault.start_s, fault.end_s) if moment > after_s)
        return min(moments, default=math.inf)

    def strokes(self, time_s: float) -> list[str]:
        """Kinds of the single-moment faults at exactly ``time_s``."""
        return [fault.kind for fault in self.faults if not KINDS[fault.kind].lasts and fault.start_s == time_s]


def parse(text: str) -> Fault:
    """The fault that ``text`` describes.

    Raises:
        FaultError: the text has another form, or its value is out of range.
    """
    found = PATTERN.fullmatch(text.strip())
    if found is None:
        raise FaultError(f"fault '{text}': expected {SYNTAX}")
    kind = KINDS.get(found["kind"])
    if kind is None:
        raise FaultError(f"fault '{text}': no kind '{found['kind']}', expected one of {', '.join(KINDS)}")
    if found["lasts"] is not None and not kind.lasts:
        raise FaultError(f"fault '{text}': {found['kind']} takes a single moment, expected no +DURATION")
    start_s, lasts_s = float(found["start"]), float(found["lasts"] or math.inf)
    return Fault(found["kind"], start_s, start_s + lasts_s, _value(text, kind, found["value"]))


def script(texts: Iterable[str]) -> Script:
    """The script of several faults, given as text.

    Raises:
        FaultError: one of them cannot be used.
    """
    return Script(tuple(parse(text) for text in texts))


def help_text() -> str:
    """The syntax of faults and one line for each kind, for a terminal."""
    rows = (f"  {name + ('' if kind.unit is None else '=VALUE'):18}{kind.what}" for name, kind in KINDS.items())
    return "\n".join([f"faults: {SYNTAX}; seconds on the trace's clock", *rows])


def _value(text: str, kind: Kind, value: str | None) -> float:
    if kind.unit is None:
        if value is not None:
            raise FaultError(f"fault '{text}': got the value {value}, expected none for this kind")
        return 0.0
    if value is None:
        raise FaultError(f"fault '{text}': got no value, expected ={kind.unit} at its end")
    if not kind.low <= float(value) <= kind.high:
        raise FaultError(f"fault '{text}': got {value}, expected {kind.low:g} to {kind.high:g} ({kind.unit})")
    return float(value)
