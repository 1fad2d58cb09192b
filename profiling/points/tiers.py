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
from tidesplit.profiling.points.table import Onward, PointTable, representative, table_for, undominated

EDGE, CLOUD = "i5-2500", "x86-2core"
PI = "raspberry-pi-4"
PI_OVER_EDGE = 4.43
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


def three_tiers(profile: Profile, device: str, edge: str, cloud: str, ids: Sequence[str]) -> PointTable:
    """The columns of these points of three tiers; a point that goes on is answered by ``cloud``.

    Raises:
        ProfileError: a machine without timings, or a point that the profile does not have.
    """
    profile = with_edge_server(profile, edge)
    near, far = table_for(profile, device, edge), table_for(profile, device, cloud)
    row = {name: number for number, name in enumerate(near.ids)}
    first, second, sends = _rows(ids, row, profile.name)
    again = sends & (first != second)
    base = _uncut(near)
    on_edge = [profile.devices[edge].timings[name] for name in near.ids]
    decode, tail, encode = (np.array([getattr(t, f) for t in on_edge]) for f in ("decode_s", "tail_s", "encode_s"))
    middle_s = np.maximum(decode[first] + tail[first] - tail[second] + encode[second], 0.0)
    onward = Onward(
        partition=np.where(sends, near.partition[second], profile.partitions),
        channel_ratio=near.channel_ratio[second],
        region_ratio=near.region_ratio[second],
        bits=near.bits[second],
        sends=sends,
        relays=sends & ~again,
        middle_s=np.where(again, middle_s, 0.0),
        bytes_mean=np.where(sends, near.bytes_mean[second], 0.0),
        bytes_sigma=np.where(sends, near.bytes_sigma[second], 0.0),
    )
    added = near.accuracy[first] - (base - near.accuracy[second])
    table = replace(
        near.take(first),
        ids=tuple(ids),
        server_s=np.where(sends, far.server_s[second], near.server_s[first]),
        accuracy=np.where(again, np.clip(added, 0.0, 1.0), near.accuracy[first]),
        onward=onward,
    )
    return _as_measured(profile, table, near.accuracy[first])


def points_of_three(profile: Profile, device: str, edge: str, cloud: str) -> PointTable:
    """The points of three tiers worth choosing among, a few dozen: those of two tiers, and coarser what goes on."""
    table = _promising(profile, device, edge, cloud)
    assert table.onward is not None
    if profile.chains is None:
        table = table.take(np.flatnonzero(~table.onward.sends | table.onward.relays | (table.partition == 0)))
    assert table.onward is not None
    sends, relays = table.onward.sends, table.onward.relays
    kept = [table.take(np.flatnonzero(~sends))]
    if relays.any():
        kept.append(representative(table.take(np.flatnonzero(relays)), HEAD_STEP, BYTES_STEP))
    kept.append(cut_twice(table, LINKS_STEP))
    return table.take([table.row(name) for part in kept for name in part.ids])


def cut_twice(table: PointTable, step: float) -> PointTable:
    """The most accurate of the points that are cut twice within some budget of bytes on either link."""
    assert table.onward is not None
    rows = np.flatnonzero(table.onward.sends & ~table.onward.relays)
    twice = table.take(rows)
    return representative(twice, step, step, table.onward.bytes_mean[rows]) if rows.size else twice


def worth_measuring(profile: Profile, device: str = PI, edge: str = EDGE, cloud: str = CLOUD) -> list[tuple[str, str]]:
    """Pairs of points that may be worth choosing if drops add up: two dozen."""
    assumed = replace(profile, chains=None)
    ids = cut_twice(_promising(assumed, device, edge, cloud), MEASURED_STEP).ids
    return [split(name) for name in ids]


def _promising(profile: Profile, device: str, edge: str, cloud: str) -> PointTable:
    """Undominated points whose first cut is worth choosing in two tiers."""
    known = with_edge_server(profile, edge)
    firsts = set(representative(undominated(table_for(known, device, edge))).ids)
    pairs = _measured(profile)
    ids = [name for name in names(profile) if name in pairs or split(name)[0] in firsts]
    return undominated(three_tiers(profile, device, edge, cloud, ids))


def estimated(profile: Profile, ids: Sequence[str]) -> list[str]:
    """Those of the points whose accuracy is estimated: cut twice, and the pair was not measured."""
    measured = _measured(profile)
    return [i for i in ids if split(i)[1] not in ("", PASSED_ON) and i not in measured]


def _measured(profile: Profile) -> list[str]:
    """The points that are pairs of cuts measured together."""
    return [] if profile.chains is None else [joined(c.first, c.second) for c in profile.chains.chains]


def with_edge_server(profile: Profile, label: str) -> Profile:
    """The profile with the edge server EDGE, estimated from its Raspberry Pi; as it is where ``label`` is another."""
    if label != EDGE or EDGE in profile.devices:
        return profile
    if PI not in profile.devices:
        raise ProfileError(f"profile {profile.name} has no timings of {PI!r} to estimate {EDGE!r} from")
    pi = profile.devices[PI]
    source = f"Scission, Lockhart et al., UCC 2020: the {PI} ({pi.provenance.kind}) by {PI_OVER_EDGE}"
    timings = {
        name: Timing(**{part: value / PI_OVER_EDGE for part, value in vars(timing).items()})
        for name, timing in pi.timings.items()
    }
    provenance = Provenance(kind="estimated", source=source, machine="Core i5-2500 (not at hand)")
    return profile.with_device(EDGE, DeviceTable(provenance=provenance, timings=timings))


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
    return float(table.accuracy[among[np.argmax(table.channel_ratio[among])]])


def _as_measured(profile: Profile, table: PointTable, accuracy_of_first: NDArray[np.float64]) -> PointTable:
    """The table with accuracy and second payload of the pairs that were measured."""
    if profile.chains is None or table.onward is None:
        return table
    row = {name: number for number, name in enumerate(table.ids)}
    accuracy = table.accuracy.copy()
    mean, sigma = table.onward.bytes_mean.copy(), table.onward.bytes_sigma.copy()
    for chain in profile.chains.chains:
        at = row.get(joined(chain.first, chain.second))
        if at is not None:
            accuracy[at] = min(max(accuracy_of_first[at] - chain.lost, 0.0), 1.0)
            mean[at], sigma[at] = chain.bytes_mean, chain.bytes_std / chain.bytes_mean
    return replace(table, accuracy=accuracy, onward=replace(table.onward, bytes_mean=mean, bytes_sigma=sigma))
