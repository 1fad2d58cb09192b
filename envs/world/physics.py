"""The physical numbers of the world, each once with its unit and source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidesplit.envs.world.heat import BARE, Cooling
from tidesplit.envs.world.radio import LTE, WIRED, Radio
from tidesplit.envs.world.vocabulary import Bools, Demand, Utility, byte_rate_of

Real = TypeVar("Real", np.float32, np.float64)
Part = TypeVar("Part", "World", Cooling, Radio)
TEMPERATURES = {"coolest_c", "warmest_c", "soft_c", "hard_c"}  # may be below 0
POSITIVE = {"cold", "motion", "window", "mean_calm_s", "mean_busy_s", "settling_s", "slowest"}
ENDLESS = {"probe_after_s", "settling_s"}  # may be infinite
PROBE_SHARE = 0.1
"""Most of a budget of data that probes may take. Without any, a device that was cut off does not learn that the link is
back; every half second they would take 7 GB a month."""
SPARING_S = 60.0
"""Silence before a probe under a budget of energy. Each keeps the radio awake for 12 s, so they draw 0.2 W at most."""


class WorldError(ValueError):
    """Physical numbers that make no world. The message is one sentence."""


@dataclass(frozen=True)
class World:
    """Everything around the CNN. "Assumed" marks a number that we have not measured."""

    rtt_s: float = 0.060
    """Round trip of an empty message where the trace has none. LTE in the United States, assumed."""
    request_s: float = 0.0038
    """Time of a request beyond the link's round trip, its bytes and its server's run. It goes to gRPC and to hand-overs
    between threads. Source of this and the next two: three runs of benchmarks/request_overhead.py (n = 270 requests of
    each of four points and run). Least squares through the twelve medians, which were 8.7 to 10.1 ms with pictures, 6.4
    to 6.9 at cut 1, 5.2 to 5.6 at cut 2 and 4.1 to 4.6 at cut 5. The fit is off by 0.7 ms at most."""
    cold: float = 1.29
    """Factor on a server's times in the profile. A run 30 times a second finds colder caches than in the profile's
    loop."""
    picture_s: float = 0.0029
    """Additional time of a server that decodes a picture."""
    request_spread: float = 0.4
    """Log-normal spread of ``request_s``. Measured: quartiles 0.8 ms below and 1.2 ms above the median of a point, 95th
    percentile 3.0 ms above."""
    rtt_jitter: float = 0.05
    """Relative log-normal spread of the round trip from frame to frame. An LTE device asks for an uplink grant every
    10 ms (3GPP TS 36.213), which spreads the round trip by 10 / sqrt(12) = 3 of 60 ms."""
    overhead_bytes: float = 150.0
    """Bytes of an empty message: HTTP/2 and gRPC headers, a TLS record, TCP and IP. Counted from the formats."""
    initial_window_bytes: float = 14_600.0
    """Bytes that TCP sends before the first acknowledgement: ten segments (RFC 6928)."""
    idle_s: float = 1.0
    """Idle time after which TCP starts again with the initial window (RFC 5681, 4.1): the shortest retransmission
    time-out of RFC 6298."""
    probe_after_s: float = 0.5
    """Silence after which a probe is sent, because bandwidth is seen only by sending. Costs at most 22 kbit/s.
    Infinity: never. Under budgets it is longer, see `under`."""
    probe_bytes: float = 1_350.0
    """Size of a probe: it fills one packet."""
    window: int = 8
    """Unanswered messages at which a link is full. Nothing more is offered to a link that does not answer."""
    answer_limit_s: float = 2.0
    """Time after which a message counts as lost. Its stream then needs a key. The runtime waits for as long."""
    guard_s: float = 0.005
    """Time before the deadline by which a fallback is planned to end."""
    cooling: Cooling = BARE
    """How the device gets hot by its work, and slow by its heat."""
    jitter: float = 1.0
    """Factor on the spread of compute times that the device's table has. 0: a run always takes the same time."""
    motion: float = 1.0
    """Motion of the camera's scene: factor on the bytes of streams, but for keys, see `profiling.points.motion`."""
    coolest_c: float = 15.0
    warmest_c: float = 40.0
    """Range of the air's temperature about the device, of which each episode draws one. Assumed."""
    radio: Radio = LTE
    """The mobile uplink's radio."""
    grant_s: float = 0.0
    """Extra delay of a message that finds the link idle. A trace is recorded on a saturated link, where grants for the
    uplink come one after the other. Replaying it flatters small messages: round trips are underestimated by some 15 %
    (CellReplay, NSDI 2025), which are 9 of 60 ms. 0: as the trace says."""
    calm_wait_s: float = 0.001
    busy_wait_s: float = 0.015
    mean_calm_s: float = 30.0
    mean_busy_s: float = 5.0
    """Mean wait at a calm and at a busy server, and mean time that it stays so, assumed. Only the server behind the
    first hop makes messages wait. A server further away always has a free worker."""
    wired_rtt_s: float = 0.020
    """Round trip between two servers where the trace of their hop has none. Scission (Lockhart et al., UCC 2020) uses
    this value."""
    wired_rtt_jitter: float = 0.01
    """Relative log-normal jitter between servers. Small, because a wired link has no uplink grants. Assumed."""
    utility: Utility | None = None
    """A user's own worth of answers in time. None: that of the demand's objective."""

    def under(self, *demands: Demand) -> World:
        """The world whose probes keep to the budgets of every one of these demands.

        Under one of data they take at most `PROBE_SHARE` of it. Under one of energy there is one after `SPARING_S`.
        """
        seldom_s = [self.probe_after_s]
        for demand in demands:
            if demand.max_gb_month is not None:
                seldom_s.append(self.probe_bytes / (PROBE_SHARE * byte_rate_of(demand.max_gb_month)))
            if demand.max_watts is not None:
                seldom_s.append(SPARING_S)
        return replace(self, probe_after_s=max(seldom_s))

    def serving_s(self, listed_s: NDArray[Real], pictures: Bools) -> NDArray[Real]:
        """Time of servers' runs that take ``listed_s`` in the profile. 0 where there is none.

        ``pictures``, of the same shape, is True where the payload is a picture.
        """
        more_s = listed_s.dtype.type(self.picture_s)
        return np.asarray(self.cold * listed_s + more_s * (pictures & (listed_s > 0.0)))

    def round_trip(self, hop: int) -> tuple[float, float]:
        """Round trip of an empty message over a hop in seconds, and its relative spread. Hop 0 is the mobile uplink."""
        return (self.wired_rtt_s, self.wired_rtt_jitter) if hop else (self.rtt_s, self.rtt_jitter)

    def radio_of(self, hop: int) -> Radio:
        """The radio that sends over a hop. Only hop 0 has one."""
        return WIRED if hop else self.radio

    def usual_rtt_s(self, hop: int = 0) -> float:
        """Round trip of a request over a hop, in seconds, that the device believes before it has measured one."""
        return self.round_trip(hop)[0] + self.request_s


USUAL = World()


def changed(part: Part, values: Mapping[str, Any], where: str = "") -> Part:
    """The world, or its cooling or radio, with these values in place of its own.

    Raises:
        WorldError: there is no such number, or a value that it cannot have. It names the number after ``where``.
    """
    known = [field.name for field in fields(part) if field.name != "utility"]
    new: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise WorldError(f"{where}{name}: no such number, there are {', '.join(known)}")
        now = getattr(part, name)
        if is_dataclass(now):
            if not isinstance(value, Mapping):
                raise WorldError(f"{where}{name}: {value!r} received, an object of its numbers expected")
            new[name] = changed(now, value, f"{where}{name}.")  # type: ignore[type-var]
        else:
            new[name] = _number(name, value, whole=isinstance(now, int), where=where)
    made = replace(part, **new)
    for low, high in (("coolest_c", "warmest_c"), ("soft_c", "hard_c")):
        if low in known and not getattr(made, low) < getattr(made, high):
            raise WorldError(f"{where}{low}: {getattr(made, low):g} received, a value below {high} expected")
    return made


def _number(name: str, value: Any, whole: bool, where: str) -> float:
    """A value of the number ``name``, checked."""
    right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    least = -273.0 if name in TEMPERATURES else 0.0
    high_enough = right and value >= least and (value > 0 or name not in POSITIVE)
    if high_enough and (math.isfinite(value) or name in ENDLESS):
        return value if whole else float(value)
    bound = "above 0" if name in POSITIVE else f"of at least {least:g}"
    raise WorldError(f"{where}{name}: {value!r} received, a {'whole ' if whole else ''}number {bound} expected")


def changes(part: World | Cooling | Radio, usual: World | Cooling | Radio) -> dict[str, Any]:
    """The numbers in which a world differs from ``usual``, as JSON values that `changed` takes."""
    found: dict[str, Any] = {}
    for name in (field.name for field in fields(part) if field.name != "utility"):
        now, before = getattr(part, name), getattr(usual, name)
        if now != before:
            found[name] = changes(now, before) if is_dataclass(now) else now  # type: ignore[arg-type]
    return found
