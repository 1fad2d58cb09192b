"""Operating points of three tiers, out of a profile of two: device, edge server, cloud; an uplink and a second link.

A point is named by its first cut, and after a ">" by what crosses the second link: ``p0-jpeg-q75`` is answered by the
edge server, ``p0-jpeg-q75>cloud`` is passed on to the cloud as it is, and with ``p0-jpeg-q75>p3-c1.00-r1.00-b4`` the
edge server runs the CNN up to partition 3 and the cloud the rest.

What a second cut costs in accuracy: as measured where the profile has the pair (`tidesplit profile chain`), else the
drops of both cuts add up, as CNNPC (Yang et al., TPDS 2022) assumes; `estimated` tells which. Where any pairs were
measured no others are offered, and where none were, only those behind a picture: there the assumption was off by 1.0
point in the mean with our CNN, behind a first cut by 10, since its tails have never seen what was cut twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tidesplit.compression.codec.knobs import PASSED_ON, joined, split
from tidesplit.profiling.points.profile import DeviceTable, Profile, ProfileError, Provenance, Timing
from tidesplit.profiling.points.table import HopColumns, PointTable, representative, table_for, undominated

MIDDLE, CLOUD = "i5-2500", "x86-2core"
PI = "raspberry-pi-4"
PI_OVER_MIDDLE = 4.43
"""How many times slower a Pi 4 runs a CNN than the edge server of Scission (Lockhart et al., UCC 2020), a Core i5-2500:
its 18 nets, as in `profiling.devices.raspberry_pi`."""
HEAD_STEP, BYTES_STEP = 2.5, 4.0  # of points that are passed on to the cloud: coarser, or there would be too many
LINKS_STEP, MEASURED_STEP = 4.0, 2.0  # of points that are cut twice: budgets of bytes on either link


def names(profile: Profile) -> list[str]:
    """Every point of three tiers; of those cut twice the measured ones, if any were. An edge server runs whole nets."""
    crossing = [p for p in profile.points if p.codec != "none"]
    whole = [p for p in crossing if p.channel_ratio == 1.0]
    again = [joined(p.id, q.id) for p in crossing for q in whole if q.partition > p.partition]
    further = again if profile.chains is None else _measured(profile)
    return [*(p.id for p in profile.points), *(joined(p.id, PASSED_ON) for p in crossing), *further]


def three_tiers(profile: Profile, device: str, middle: str, cloud: str, ids: Sequence[str]) -> PointTable:
    """The columns of these points of three tiers; a point that goes on is answered by ``cloud``.

    Raises:
        ProfileError: a machine without timings, or a point that the profile does not have.
    """
    profile = with_middle_server(profile, middle)
    near, far = table_for(profile, device, middle), table_for(profile, device, cloud)
    row = {name: number for number, name in enumerate(near.ids)}
    first, second, sends = _rows(ids, row, profile.name)
    again = sends & (first != second)
    base = _uncut(near)
    on_middle = [profile.devices[middle].timings[name] for name in near.ids]
    decode, tail, encode = (np.array([getattr(t, f) for t in on_middle]) for f in ("decode_s", "tail_s", "encode_s"))
    middle_s = np.maximum(decode[first] + tail[first] - tail[second] + encode[second], 0.0)
    (uplink,) = near.hops
    between = HopColumns(
        partition=np.where(sends, uplink.partition[second], profile.partitions),
        channel_ratio=uplink.channel_ratio[second],
        region_ratio=uplink.region_ratio[second],
        bits=uplink.bits[second],
        sends=sends,
        relays=sends & ~again,
        compute_s=np.where(again, middle_s, 0.0),
        bytes_mean=np.where(sends, uplink.bytes_mean[second], 0.0),
        bytes_sigma=np.where(sends, uplink.bytes_sigma[second], 0.0),
    )
    taken = near.take(first)
    added = near.accuracy[first] - (base - near.accuracy[second])
    table = replace(
        taken,
        hops=(*taken.hops, between),
        ids=tuple(ids),
        server_s=np.where(sends, far.server_s[second], near.server_s[first]),
        accuracy=np.where(again, np.clip(added, 0.0, 1.0), near.accuracy[first]),
    )
    return _as_measured(profile, table, near.accuracy[first])


def table_of(profile: Profile, machines: Sequence[str], ids: Sequence[str]) -> PointTable:
    """The columns of these points for a chain of two or three machines, device first.

    Raises:
        ProfileError: a machine without timings, or a point that the profile does not have.
    """
    device, server, *cloud = machines
    if cloud:
        return three_tiers(profile, device, server, cloud[0], ids)
    whole = table_for(profile, device, server)
    return whole.take([whole.row(point) for point in ids])


def points_of(profile: Profile, machines: Sequence[str]) -> PointTable:
    """The operating points worth choosing among, as a chain of two or three machines runs them, device first."""
    device, server, *cloud = machines
    if cloud:
        return points_of_three(profile, device, server, cloud[0])
    return representative(undominated(table_for(profile, device, server)))


def points_of_three(profile: Profile, device: str, middle: str, cloud: str) -> PointTable:
    """The points of three tiers worth choosing among, a few dozen: those of two tiers, and coarser what goes on."""
    table = _promising(profile, device, middle, cloud)
    if profile.chains is None:
        uplink, between = table.hops
        table = table.take(np.flatnonzero(~between.sends | between.relays | (uplink.partition == 0)))
    sends, relays = table.hops[1].sends, table.hops[1].relays
    kept = [table.take(np.flatnonzero(~sends))]
    if relays.any():
        kept.append(representative(table.take(np.flatnonzero(relays)), HEAD_STEP, BYTES_STEP))
    kept.append(cut_twice(table, LINKS_STEP))
    return table.take([table.row(name) for part in kept for name in part.ids])


def cut_twice(table: PointTable, step: float) -> PointTable:
    """The most accurate of the points that are cut twice within some budget of bytes on either link."""
    between = table.hops[1]
    rows = np.flatnonzero(between.sends & ~between.relays)
    twice = table.take(rows)
    return representative(twice, step, step, between.bytes_mean[rows]) if rows.size else twice


def worth_measuring(
    profile: Profile, device: str = PI, middle: str = MIDDLE, cloud: str = CLOUD
) -> list[tuple[str, str]]:
    """Pairs of points that may be worth choosing if drops add up: two dozen."""
    assumed = replace(profile, chains=None)
    ids = cut_twice(_promising(assumed, device, middle, cloud), MEASURED_STEP).ids
    return [split(name) for name in ids]


def _promising(profile: Profile, device: str, middle: str, cloud: str) -> PointTable:
    """Undominated points whose first cut is worth choosing in two tiers."""
    known = with_middle_server(profile, middle)
    firsts = set(representative(undominated(table_for(known, device, middle))).ids)
    pairs = _measured(profile)
    ids = [name for name in names(profile) if name in pairs or split(name)[0] in firsts]
    return undominated(three_tiers(profile, device, middle, cloud, ids))


def estimated(profile: Profile, ids: Sequence[str]) -> list[str]:
    """Those of the points whose accuracy is estimated: cut twice, and the pair was not measured."""
    measured = _measured(profile)
    return [i for i in ids if split(i)[1] not in ("", PASSED_ON) and i not in measured]


def _measured(profile: Profile) -> list[str]:
    """The points that are pairs of cuts measured together."""
    return [] if profile.chains is None else [joined(c.first, c.second) for c in profile.chains.chains]


def with_middle_server(profile: Profile, label: str) -> Profile:
    """The profile with the edge server MIDDLE, estimated from its Raspberry Pi; as it is where ``label`` is another."""
    if label != MIDDLE or MIDDLE in profile.devices:
        return profile
    if PI not in profile.devices:
        raise ProfileError(f"profile {profile.name} has no timings of {PI!r} to estimate {MIDDLE!r} from")
    pi = profile.devices[PI]
    source = f"Scission, Lockhart et al., UCC 2020: the {PI} ({pi.provenance.kind}) by {PI_OVER_MIDDLE}"
    timings = {
        name: Timing(**{part: value / PI_OVER_MIDDLE for part, value in vars(timing).items()})
        for name, timing in pi.timings.items()
    }
    provenance = Provenance(kind="estimated", source=source, machine="Core i5-2500 (not at hand)")
    return profile.with_device(MIDDLE, DeviceTable(provenance=provenance, timings=timings))


def _rows(
    ids: Sequence[str], row: dict[str, int], profile: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of each point's first and second cut, the first again where there is none, and whether it goes on."""
    parts = [split(name) for name in ids]
    try:
        first = np.array([row[one] for one, _ in parts], dtype=np.int64)
        second = np.array([row[two if two not in ("", PASSED_ON) else one] for one, two in parts], dtype=np.int64)
    except KeyError as error:
        raise ProfileError(f"profile {profile}: no operating point {error}") from error
    return first, second, np.array([bool(two) for _, two in parts], dtype=bool)


def _uncut(table: PointTable) -> float:
    """Accuracy of the CNN without a cut: of the widest point on the device."""
    widest = np.flatnonzero(table.local)
    among = widest if widest.size else np.arange(table.size)
    return float(table.accuracy[among[np.argmax(table.hops[0].channel_ratio[among])]])


def _as_measured(profile: Profile, table: PointTable, accuracy_of_first: NDArray[np.float64]) -> PointTable:
    """The table with accuracy and second payload of the pairs that were measured."""
    row = {name: number for number, name in enumerate(table.ids)}
    uplink, between = table.hops
    accuracy, mean, sigma = table.accuracy.copy(), between.bytes_mean.copy(), between.bytes_sigma.copy()
    for chain in profile.chains.chains if profile.chains is not None else ():
        at = row.get(joined(chain.first, chain.second))
        if at is not None:
            accuracy[at] = min(max(accuracy_of_first[at] - chain.lost, 0.0), 1.0)
            mean[at], sigma[at] = chain.bytes_mean, chain.bytes_std / chain.bytes_mean
    return replace(table, accuracy=accuracy, hops=(uplink, replace(between, bytes_mean=mean, bytes_sigma=sigma)))
