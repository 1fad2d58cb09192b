"""Faults of a link as values: what Toxiproxy does to a connection, written as text and placed on the trace's clock.

One fault is ``KIND@START[+DURATION][=VALUE]``, times in seconds; without a duration it lasts for ever. So
``blackhole@10+8`` is a link gone from 10 s to 18 s, and ``latency@30+5=200`` a round trip longer by 200 ms for 5 s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

PACKET_BYTES = 1_448  # what one Ethernet frame leaves for data: 1500 less IPv4, TCP and its time stamps


class FaultError(ValueError):
    """The fault given by the user cannot be used; the message is one sentence."""


class Kind(NamedTuple):
    """One kind of fault: what its value means (None: it takes none), the values it may take, whether it lasts."""

    unit: str | None
    low: float
    high: float
    lasts: bool
    what: str


KINDS = {
    "latency": Kind("ms", 0.0, 60_000.0, True, "the round trip is longer by VALUE ms"),
    "jitter": Kind("ms", 0.0, 60_000.0, True, "each packet's way varies by VALUE ms (standard deviation)"),
    "bandwidth": Kind("share", 0.0, 1_000.0, True, "the uplink has VALUE times the trace's bandwidth"),
    "blackhole": Kind(None, 0.0, 0.0, True, "nothing passes; bytes are held and flow again afterwards"),
    "slicer": Kind("bytes", 1.0, PACKET_BYTES, True, f"packets of VALUE bytes in place of {PACKET_BYTES}"),
    "slow-close": Kind("ms", 0.0, 60_000.0, True, "the end of a connection is passed on VALUE ms late"),
    "reset": Kind(None, 0.0, 0.0, False, "every open connection is reset"),
    "half-close": Kind(None, 0.0, 0.0, False, "clients read the end of the stream, servers still hear them"),
}
SYNTAX = "KIND@START[+DURATION][=VALUE], such as blackhole@10+8"
PATTERN = re.compile(r"(?P<kind>[a-z-]+)@(?P<start>[0-9.]+)(\+(?P<lasts>[0-9.]+))?(=(?P<value>[0-9.]+))?")


@dataclass(frozen=True)
class Conditions:
    """What a link suffers from at one moment; the default is a sound link.

    ``extra_latency_s`` is added to the round trip, half each way; ``jitter_s`` is the standard deviation of each way.
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
    """One fault: of ``kind`` from ``start_s`` to ``end_s`` on the trace's clock; ``value`` in the kind's own unit."""

    kind: str
    start_s: float
    end_s: float
    value: float = 0.0

    def worsens(self, now: Conditions) -> Conditions:
        """The conditions ``now`` with this fault on top."""
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
        return now  # a stroke, not a condition: see `Script.strokes`


@dataclass(frozen=True)
class Script:
    """Faults over time."""

    faults: tuple[Fault, ...] = ()

    def conditions(self, time_s: float, sound: Conditions) -> Conditions:
        """The conditions at ``time_s`` of a link that would otherwise be as ``sound``."""
        for fault in self.faults:
            if fault.start_s <= time_s < fault.end_s:
                sound = fault.worsens(sound)
        return sound

    def next_s(self, after_s: float) -> float:
        """The first moment later than ``after_s`` at which a fault begins or ends; infinity if none does."""
        moments = (moment for fault in self.faults for moment in (fault.start_s, fault.end_s) if moment > after_s)
        return min(moments, default=math.inf)

    def strokes(self, time_s: float) -> list[str]:
        """Kinds of the faults that have no duration and fall on exactly ``time_s``."""
        return [fault.kind for fault in self.faults if not KINDS[fault.kind].lasts and fault.start_s == time_s]


def parse(text: str) -> Fault:
    """The fault that ``text`` describes.

    Raises:
        FaultError: not of the form ``KIND@START[+DURATION][=VALUE]``, or a value out of its kind's range.
    """
    found = PATTERN.fullmatch(text.strip())
    if found is None:
        raise FaultError(f"fault '{text}': expected {SYNTAX}.")
    kind = KINDS.get(found["kind"])
    if kind is None:
        raise FaultError(f"fault '{text}': no kind '{found['kind']}', expected one of {', '.join(KINDS)}.")
    if found["lasts"] is not None and not kind.lasts:
        raise FaultError(f"fault '{text}': {found['kind']} is a single stroke, expected no +DURATION.")
    start_s = _number(text, "START", found["start"])
    lasts_s = math.inf if found["lasts"] is None else _number(text, "DURATION", found["lasts"])
    return Fault(found["kind"], start_s, start_s + lasts_s, _value(text, kind, found["value"]))


def script(texts: Iterable[str]) -> Script:
    """The script of several faults in text form.

    Raises:
        FaultError: one of them cannot be used.
    """
    return Script(tuple(parse(text) for text in texts))


def help_text() -> str:
    """The syntax and a line per kind, for a terminal."""
    rows = (f"  {name + ('' if kind.unit is None else '=VALUE'):18}{kind.what}" for name, kind in KINDS.items())
    return "\n".join([f"faults: {SYNTAX}; seconds on the trace's clock", *rows])


def _value(text: str, kind: Kind, value: str | None) -> float:
    if kind.unit is None:
        if value is not None:
            raise FaultError(f"fault '{text}': got the value {value}, expected none for this kind.")
        return 0.0
    if value is None:
        raise FaultError(f"fault '{text}': got no value, expected ={kind.unit} at its end.")
    number = _number(text, "VALUE", value)
    if not kind.low <= number <= kind.high:
        raise FaultError(f"fault '{text}': got {value}, expected {kind.low:g} to {kind.high:g} ({kind.unit}).")
    return number


def _number(text: str, part: str, digits: str) -> float:
    try:
        return float(digits)
    except ValueError:
        raise FaultError(f"fault '{text}': got {part} {digits}, expected a number such as 2.5.") from None
