"""Operating points on a chain of machines: device and server, or device, middle server and server.

A point of two hops is named by the cut that crosses the first hop, and after a ">" by the cut that crosses the second:

- ``p0-jpeg-q75``: the middle server answers.
- ``p0-jpeg-q75>cloud``: the middle server passes the picture on unchanged.
- ``p0-jpeg-q75>p3-c1.00-r1.00-b4``: the middle server runs the CNN up to partition 3, and the server runs the rest.

The accuracy of two cuts is the measured one where the profile has the pair (`tidesplit profile chain`). Otherwise the
drops of both cuts add up, as CNNPC (Yang et al., TPDS 2022) assumes, and `estimated` lists the point.

With our CNN this assumption was off by 1.0 point in the mean for a cut after a picture. After another cut it was off by
10 points, since the tails were never trained on features that were cut twice. So a profile with measured pairs offers
only these, and a profile without them offers second cuts only after a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidesplit.compression.codec.knobs import PASSED_ON, joined, split, split_race
from tidesplit.profiling.points.profile import Chain, DeviceTable, Profile, ProfileError, Provenance, Timing
from tidesplit.profiling.points.races import races_of, with_races, without_race
from tidesplit.profiling.points.table import HopColumns, PointTable, as_keys, representative, table_for, undominated

MIDDLE, CLOUD = "i5-2500", "x86-2core"  # machines of a chain with a middle server, unless the user names others
PI = "raspberry-pi-4"
PI_OF_MIDDLE = "raspberry-pi-4-tflite"  # its engine is the nearest to that of the ratio below
PI_OVER_MIDDLE = 4.43
"""Time of a CNN on a Raspberry Pi 4 over its time on a Core i5-2500, the middle server of Scission (Lockhart et al.,
UCC 2020). From its 18 nets, see `profiling.devices.raspberry_pi`."""
HEAD_STEP, BYTES_STEP = 2.5, 4.0  # budgets of points passed on or used now and then: coarse, or there are too many
LINKS_STEP, MEASURED_STEP = 4.0, 2.0  # budgets of bytes on either hop of points cut twice: to offer, and to measure


def names(profile: Profile) -> list[str]:
    """Identifiers of all points of two hops. The middle server has only the CNN of full width. No stream is offered."""
    profile = _stateless(profile)
    crossing = [p for p in profile.points if p.codec != "none"]
    whole = [p for p in crossing if p.channel_ratio == 1.0]
    again = [joined(p.id, q.id) for p in crossing for q in whole if q.partition > p.partition]
    further = again if profile.chains is None else _measured(profile)
    return [*(p.id for p in profile.points), *(joined(p.id, PASSED_ON) for p in crossing), *further]


def table_of(profile: Profile, machines: Sequence[str], ids: Sequence[str]) -> PointTable:
    """The operating points ``ids`` on a chain of machines, whose labels come device first.

    Raises:
        ProfileError: a machine without timings, a point that the profile does not have, or a point of more hops than
            the chain. With a middle server: a stream.
    """
    device, *servers = machines
    profile = with_middle_server(profile, servers[0])
    near, far = (table_for(profile, device, server) for server in (servers[0], servers[-1]))
    cuts = _cuts(profile, ids)
    if cuts.sends.any() and len(servers) == 1:
        raise ProfileError(f"operating point {ids[int(cuts.sends.argmax())]!r} has two hops, the chain has one")
    taken = near.take(cuts.first)
    if taken.streams.count and len(servers) > 1:
        raise ProfileError(
            f"operating point {ids[int(taken.streams.rows[0])]!r} is a stream, which the middle server lacks"
        )
    added = taken.accuracy - (_uncut(near) - near.accuracy[cuts.second])
    accuracy = np.where(cuts.again, np.clip(added, 0.0, 1.0), taken.accuracy)
    for row, pair in cuts.measured.items():
        accuracy[row] = min(max(taken.accuracy[row] - pair.lost, 0.0), 1.0)
    table = replace(
        taken,
        hops=(*taken.hops, *(_second_hop(profile, middle, near.hops[0], cuts) for middle in servers[:-1])),
        server_s=np.where(cuts.sends, far.server_s[cuts.second], taken.server_s),
        accuracy=accuracy,
    )
    return with_races(table, near, ids)


class _Cuts(NamedTuple):
    """The cuts of operating points, ``[A]``."""

    first: NDArray[np.int64]  # row of each point's first cut in the profile
    second: NDArray[np.int64]  # of its second cut; of the first one where there is none
    sends: NDArray[np.bool_]  # True where the point crosses the second hop
    measured: dict[int, Chain]  # measured pairs of cuts by the point's row

    @property
    def again(self) -> NDArray[np.bool_]:
        """True where a point is cut twice."""
        twice: NDArray[np.bool_] = self.sends & (self.first != self.second)
        return twice


def _cuts(profile: Profile, ids: Sequence[str]) -> _Cuts:
    row = {point.id: number for number, point in enumerate(profile.points)}
    measured = _measured(profile)
    parts = [(split_race(first)[0], second) for first, second in map(split, ids)]
    try:
        first = np.array([row[one] for one, _ in parts], dtype=np.int64)
        second = np.array([row[two if two not in ("", PASSED_ON) else one] for one, two in parts], dtype=np.int64)
    except KeyError as error:
        raise ProfileError(f"profile {profile.name}: no operating point {error}") from error
    sends = np.array([bool(two) for _, two in parts], dtype=bool)
    pairs = {number: without_race(name) for number, name in enumerate(ids)}
    return _Cuts(first, second, sends, {n: measured[pair] for n, pair in pairs.items() if pair in measured})


def _second_hop(profile: Profile, middle: str, uplink: HopColumns, cuts: _Cuts) -> HopColumns:
    """Columns of the second hop. ``uplink`` has those of the first hop for the profile's own points."""
    first, second, sends = cuts.first, cuts.second, cuts.sends
    timings = [profile.devices[middle].timings[point.id] for point in profile.points]
    decode, tail, encode = (np.array([getattr(t, f) for t in timings]) for f in ("decode_s", "tail_s", "encode_s"))
    middle_s = np.maximum(decode[first] + tail[first] - tail[second] + encode[second], 0.0)
    mean = np.where(sends, uplink.bytes_mean[second], 0.0)
    sigma = np.where(sends, uplink.bytes_sigma[second], 0.0)
    for row, pair in cuts.measured.items():
        mean[row], sigma[row] = pair.bytes_mean, pair.bytes_std / pair.bytes_mean
    return HopColumns(
        partition=np.where(sends, uplink.partition[second], profile.partitions),
        channel_ratio=uplink.channel_ratio[second],
        region_ratio=uplink.region_ratio[second],
        bits=uplink.bits[second],
        sends=sends,
        relays=sends & ~cuts.again,
        compute_s=np.where(cuts.again, middle_s, 0.0),
        bytes_mean=mean,
        bytes_sigma=sigma,
    )


def points_of(profile: Profile, machines: Sequence[str], races: bool = True) -> PointTable:
    """The few dozen operating points worth choosing among on a chain of machines, device first.

    With a middle server these are points of one hop, and fewer of those that it passes on and of those cut twice. There
    are no streams then. Without one, streams are offered for the bytes that they have while they go on. Fewer points
    are offered for the bytes that they have without a reference: those for a frame now and then.

    ``races``: offer races too.
    """
    single = _without_races(profile, machines)
    return table_of(profile, machines, [*single.ids, *races_of(single)]) if races else single


def _without_races(profile: Profile, machines: Sequence[str]) -> PointTable:
    """The points of `points_of` that are no races."""
    if len(machines) == 2:
        table = undominated(table_for(profile, *machines))
        offered = {*representative(table).ids, *(_now_and_then(table) if table.streams.count else ())}
        return table.take([row for row, name in enumerate(table.ids) if name in offered])
    profile = _stateless(profile)
    table = _promising(profile, machines)
    uplink, second = table.hops
    if profile.chains is None:
        table = table.take(np.flatnonzero(~second.sends | second.relays | (uplink.partition == 0)))
        uplink, second = table.hops
    kept = [table.take(np.flatnonzero(~second.sends))]
    if second.relays.any():
        kept.append(representative(table.take(np.flatnonzero(second.relays)), HEAD_STEP, BYTES_STEP))
    kept.append(cut_twice(table, LINKS_STEP))
    return table.take([table.row(name) for part in kept for name in part.ids])


def _now_and_then(table: PointTable) -> tuple[str, ...]:
    """Identifiers of the points that are worth choosing where no stream has a reference."""
    return representative(as_keys(table), HEAD_STEP, BYTES_STEP).ids


def _stateless(profile: Profile) -> Profile:
    return replace(profile, points=tuple(p for p in profile.points if p.stream is None))


def cut_twice(table: PointTable, step: float) -> PointTable:
    """Of the points that are cut twice, those that are the most accurate within some budget of bytes on either hop.

    ``step`` is the factor between two budgets.
    """
    second = table.hops[1]
    rows = np.flatnonzero(second.sends & ~second.relays)
    twice = table.take(rows)
    return representative(twice, step, step, second.bytes_mean[rows]) if rows.size else twice


def worth_measuring(
    profile: Profile, device: str = PI, middle: str = MIDDLE, cloud: str = CLOUD
) -> list[tuple[str, str]]:
    """About two dozen pairs of cuts that are worth choosing if their drops of accuracy add up."""
    assumed = replace(_stateless(profile), chains=None)
    ids = cut_twice(_promising(assumed, (device, middle, cloud)), MEASURED_STEP).ids
    return [split(name) for name in ids]


def _promising(profile: Profile, machines: Sequence[str]) -> PointTable:
    """Undominated points of two hops whose first cut is worth choosing with one hop, and all measured pairs."""
    device, middle, _ = machines
    known = with_middle_server(profile, middle)
    firsts = set(representative(undominated(table_for(known, device, middle))).ids)
    pairs = _measured(profile)
    ids = [name for name in names(profile) if name in pairs or split(name)[0] in firsts]
    return undominated(table_of(profile, machines, ids))


def estimated(profile: Profile, ids: Sequence[str]) -> list[str]:
    """Those of the points ``ids`` that are cut twice in a pair that was not measured. Their accuracy is estimated."""
    measured = _measured(profile)
    return [i for i in ids if split(i)[1] not in ("", PASSED_ON) and without_race(i) not in measured]


def _measured(profile: Profile) -> dict[str, Chain]:
    """The pairs of cuts that were measured together, by the identifier of their point."""
    return {joined(c.first, c.second): c for c in (profile.chains.chains if profile.chains is not None else ())}


def with_middle_server(profile: Profile, label: str) -> Profile:
    """The profile with timings of MIDDLE, estimated from those of the Pi. Unchanged if ``label`` is another machine.

    Raises:
        ProfileError: the profile has no timings of the Pi.
    """
    if label != MIDDLE or MIDDLE in profile.devices:
        return profile
    base = PI_OF_MIDDLE if PI_OF_MIDDLE in profile.devices else PI
    if base not in profile.devices:
        raise ProfileError(f"profile {profile.name} has no timings of {PI!r} to estimate {MIDDLE!r} from")
    pi = profile.devices[base]
    source = f"Scission, Lockhart et al., UCC 2020: the {base} ({pi.provenance.kind}) by {PI_OVER_MIDDLE}"
    timings = {
        name: Timing(**{part: value / PI_OVER_MIDDLE for part, value in vars(timing).items()})
        for name, timing in pi.timings.items()
    }
    provenance = Provenance(kind="estimated", source=source, machine="Core i5-2500 (not at hand)")
    return profile.with_device(MIDDLE, DeviceTable(provenance=provenance, timings=timings))


def _uncut(table: PointTable) -> float:
    """Accuracy of the CNN without a cut, which is that of the widest point on the device."""
    widest = np.flatnonzero(table.local)
    among = widest if widest.size else np.arange(table.size)
    return float(table.accuracy[among[np.argmax(table.hops[0].channel_ratio[among])]])
