"""The Profile: a CNN's operating points and their times on each machine, as one validated, versioned JSON file.

It is JSON, not Parquet, because people read, compare and correct its few hundred short rows by hand. Rows carry nested
facts of origin, and the device reads it with the standard library only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from tidesplit.compression.codec.knobs import FLOAT32, PRECISIONS, VIDEO_CODECS, Precision
from tidesplit.data.files import PROFILES, whole

FORMAT = "tidesplit-profile"
VERSION = 3
FILE = "profile.json"
"""The profile in the folder of a prepared CNN."""
READABLE = (1, 2, 3)  # 1 has no precision, resolution, engine, threads or power, and 2 no streams: defaults hold
AGES = (1, 2, 4, 8, 16, 32)
"""Frames since the reference for which a stream's bytes are measured."""

Codec = Literal["feature", "jpeg", "webp", "h264", "none"]


class ProfileError(ValueError):
    """A profile that cannot be used. The sentence says where, and names the values received and expected."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Origin of a group of numbers: ``measured`` on a machine, or ``estimated`` from a source.

    Args:
        source: the command or publication that they come from.
        machine: facts of the machine.
        n: measurements that each number is made of; 0 for none.
        spread: the kind of interval, or figures of the spread.
    """

    kind: Literal["measured", "estimated"]
    source: str
    machine: Mapping[str, Any] | str = ""
    n: int = 0
    spread: Any = None


@dataclass(frozen=True, kw_only=True)
class StreamBytes:
    """Mean bytes of a payload in a stream. ``by_age``: by the frames since its reference, see `AGES`. ``key``: of a
    payload without one."""

    by_age: tuple[float, ...]
    key: float


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """One (partition, channel ratio, region ratio, bits, precision, resolution, stream) with its accuracy and bytes.

    Args:
        bits: per value on the wire. At partition 0 the image codec's quality takes their place. 0 on the device.
        accuracy_ci95: 95 % interval of the accuracy.
        bytes_mean: of a frame's payload. In a stream, of one whose reference is the frame before.
        n: pictures it was measured on. In a stream, the frames of clips.
        head_macs: multiply-accumulates of the head.
        tail_macs: multiply-accumulates of the tail.
        fallback: the device-only point that finishes a frame on the device, where one can.
        precision: of everything that the device runs for the point.
        resolution: side of the picture that crosses, in pixels. None: the CNN's input size, or no picture crosses.
        stream: bytes by the age of the reference. None where every payload is complete by itself.
    """

    id: str
    partition: int
    channel_ratio: float
    region_ratio: float
    bits: int
    codec: Codec
    accuracy: float
    accuracy_ci95: tuple[float, float]
    bytes_mean: float
    bytes_std: float = 0.0
    n: int
    head_macs: float = 0.0
    tail_macs: float = 0.0
    fallback: str | None = None
    precision: Precision = FLOAT32
    resolution: int | None = None
    stream: StreamBytes | None = None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one operating point on one machine, which may do either half of the work.

    ``finish_s``: from the head's feature to the fallback's answer.
    """

    head_s: float
    encode_s: float
    decode_s: float
    tail_s: float
    finish_s: float


@dataclass(frozen=True, kw_only=True)
class Power:
    """Watts of a whole machine, with their source.

    ``idle_w``: while it does nothing. ``busy_w``: while it runs a CNN on all its threads.
    """

    idle_w: float
    busy_w: float
    source: str


@dataclass(frozen=True, kw_only=True)
class DeviceTable:
    """Timings of all operating points on one machine, by point id, and the machine's own numbers.

    Args:
        engine: the inference engine whose times these are.
        threads: threads of one run.
        loop_s: time that the device's loop itself takes for a frame: decision, bookkeeping and sending.
        jitter: relative log-normal spread of one run's time, by precision. Empty: the world's own.
        power: None where it is not known.
    """

    provenance: Provenance
    timings: Mapping[str, Timing]
    engine: str = "onnxruntime"
    threads: int = 1
    loop_s: float = 0.0
    jitter: Mapping[str, float] = field(default_factory=dict)
    power: Power | None = None


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A pair of consecutive cuts (two point ids), with the accuracy behind the second and the bytes sent to it.

    ``lost``: the accuracy behind the first cut minus that behind the second, on the same pictures.
    """

    first: str
    second: str
    accuracy: float
    accuracy_ci95: tuple[float, float]
    lost: float
    bytes_mean: float
    bytes_std: float
    n: int


@dataclass(frozen=True, kw_only=True)
class ChainTable:
    """The pairs of cuts that were measured, for three tiers."""

    provenance: Provenance
    chains: tuple[Chain, ...]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A CNN's operating points with their accuracy and bytes, and the timings of machines by label.

    Raises:
        ProfileError: points, timings or provenances that make no sense.
    """

    name: str
    partitions: int
    points: tuple[OperatingPoint, ...]
    accuracy_provenance: Provenance
    devices: Mapping[str, DeviceTable]
    cnn: Mapping[str, Any] = field(default_factory=dict)
    chains: ChainTable | None = None
    stream_provenance: Provenance | None = None  # of the points that send a stream: which clips, how many frames

    def __post_init__(self) -> None:
        _validate(self)

    def point(self, point_id: str) -> OperatingPoint:
        """The operating point of that id. Raises ProfileError where there is none."""
        for point in self.points:
            if point.id == point_id:
                return point
        raise ProfileError(f"profile {self.name}: no operating point {point_id!r}")

    def without_video(self) -> Profile:
        """A copy without the points that send video."""
        return replace(self, points=tuple(p for p in self.points if p.codec not in VIDEO_CODECS))

    def without_pictures(self) -> Profile:
        """A copy without the points that send pictures, as stills or as video.

        Raises:
            ProfileError: no point is left.
        """
        kept = tuple(p for p in self.points if p.partition > 0)
        if not kept:
            raise ProfileError(f"profile {self.name}: every operating point sends pictures")
        return replace(self, points=kept)

    def with_device(self, label: str, table: DeviceTable) -> Profile:
        """A copy with the table of one machine added or replaced."""
        return replace(self, devices={**self.devices, label: table})

    def sha256(self) -> str:
        """Hash of the canonical JSON text, for manifests."""
        return hashlib.sha256(json.dumps(to_json(self), sort_keys=True).encode()).hexdigest()


def load(name_or_path: str | Path) -> Profile:
    """Read a profile file, that of a prepared CNN's folder, or a bundled one by its bare name.

    Raises:
        ProfileError: it cannot be used.
    """
    path = Path(name_or_path)
    if (path / FILE).is_file():
        path = path / FILE
    if not path.exists():
        path = PROFILES / f"{Path(name_or_path).stem}.json"
    if not path.is_file():
        bundled = ", ".join(sorted(p.stem for p in PROFILES.glob("*.json"))) or "none"
        raise ProfileError(f"profile {str(name_or_path)!r} is neither a file nor bundled (bundled: {bundled})")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: not a JSON file ({error})") from error
    return from_json(document, where=str(path))


def save(profile: Profile, path: Path) -> None:
    """Write the profile. A crash meanwhile leaves the old file whole."""
    with whole(path) as part:
        part.write_text(json.dumps(to_json(profile), indent=1) + "\n", encoding="utf-8")


def to_json(profile: Profile) -> dict[str, Any]:
    """The profile as plain JSON values."""
    document = {"format": FORMAT, "version": VERSION, **asdict(profile)}
    return {k: v for k, v in document.items() if k not in ("chains", "stream_provenance") or v is not None}


def from_json(document: Any, where: str = "profile") -> Profile:
    """The profile in a JSON document. ``where`` begins the sentence of a ProfileError."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ProfileError(f'{where}: expected a JSON object with "format": "{FORMAT}"')
    if document.get("version") not in READABLE:
        raise ProfileError(f"{where}: version {document.get('version')!r} received, one of {READABLE} expected")
    try:
        return Profile(
            name=document["name"],
            partitions=int(document["partitions"]),
            points=tuple(_point(row) for row in document["points"]),
            accuracy_provenance=Provenance(**document["accuracy_provenance"]),
            devices={label: _device(table) for label, table in document["devices"].items()},
            cnn=document.get("cnn", {}),
            chains=None if document.get("chains") is None else _chains(document["chains"]),
            stream_provenance=Provenance(**streams) if (streams := document.get("stream_provenance")) else None,
        )
    except KeyError as error:
        raise ProfileError(f"{where}: the key {error} is missing") from error
    except (TypeError, AttributeError) as error:
        raise ProfileError(f"{where}: {error}") from error
    except ProfileError as error:
        raise ProfileError(f"{where}: {error}") from error


def _point(row: Mapping[str, Any]) -> OperatingPoint:
    low, high = row["accuracy_ci95"]
    stream = row.get("stream") and StreamBytes(by_age=tuple(row["stream"]["by_age"]), key=row["stream"]["key"])
    return OperatingPoint(**{**row, "accuracy_ci95": (low, high), "stream": stream})


def _device(table: Mapping[str, Any]) -> DeviceTable:
    timings = {point_id: Timing(**row) for point_id, row in table["timings"].items()}
    power = None if table.get("power") is None else Power(**table["power"])
    made = {"provenance": Provenance(**table["provenance"]), "timings": timings, "power": power}
    return DeviceTable(**{**table, **made})


def _chains(table: Mapping[str, Any]) -> ChainTable:
    chains = tuple(Chain(**{**row, "accuracy_ci95": tuple(row["accuracy_ci95"])}) for row in table["chains"])
    return ChainTable(provenance=Provenance(**table["provenance"]), chains=chains)


def _validate(profile: Profile) -> None:
    ids = [p.id for p in profile.points]
    if not ids:
        raise ProfileError(f"profile {profile.name}: it has no operating points")
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ProfileError(f"profile {profile.name}: operating point {twice!r} appears twice")
    for point in profile.points:
        _validate_point(point, profile.partitions, set(ids))
    chains = () if profile.chains is None else profile.chains.chains
    for chain in chains:
        _validate_chain(chain, set(ids))
    provenances = [profile.accuracy_provenance, *(t.provenance for t in profile.devices.values())]
    provenances += [] if profile.chains is None else [profile.chains.provenance]
    provenances += [] if profile.stream_provenance is None else [profile.stream_provenance]
    for kind in (p.kind for p in provenances):
        if kind not in ("measured", "estimated"):
            raise ProfileError(f"provenance {kind!r} received, 'measured' or 'estimated' expected")
    for label, table in profile.devices.items():
        _validate_timings(label, table.timings, ids)
        _validate_machine(label, table)


def _validate_point(p: OperatingPoint, partitions: int, ids: set[str]) -> None:
    def require(fine: bool, what: str) -> None:
        if not fine:
            raise ProfileError(f"operating point {p.id!r}: {what}")

    require(p.codec in get_args(Codec), f"codec {p.codec!r} received, one of {get_args(Codec)} expected")
    require(0 <= p.partition <= partitions, f"partition {p.partition} received, 0 to {partitions} expected")
    require((p.codec == "none") == (p.partition == partitions), "codec 'none' belongs to the last partition only")
    pictures = ("jpeg", "webp", *VIDEO_CODECS)
    require((p.codec in pictures) == (p.partition == 0), "image and video codecs belong to partition 0 only")
    for name in ("channel_ratio", "region_ratio"):
        require(0.0 < getattr(p, name) <= 1.0, f"{name} {getattr(p, name)} received, in (0, 1] expected")
    require(0.0 <= p.accuracy <= 1.0, f"accuracy {p.accuracy} received, 0 to 1 expected")
    sizes = (p.bytes_mean, p.bytes_std, p.head_macs, p.tail_macs)
    require(all(math.isfinite(v) and v >= 0.0 for v in sizes), "finite bytes and macs expected, none negative")
    require((p.bytes_mean > 0) == (p.codec != "none"), f"{p.bytes_mean} bytes do not fit codec {p.codec!r}")
    require(p.precision in PRECISIONS, f"precision {p.precision!r} received, one of {PRECISIONS} expected")
    picture = p.resolution is None or (p.partition == 0 and p.resolution >= 16)
    require(picture, f"resolution {p.resolution} received, None or pixels of a picture that crosses expected")
    require(p.fallback is None or p.fallback in ids, f"its fallback {p.fallback!r} is no operating point")
    require(p.stream is not None or p.codec not in VIDEO_CODECS, f"no bytes by age received, expected of {p.codec}")
    if p.stream is not None:
        require(p.codec in ("feature", *VIDEO_CODECS), f"a stream of codec {p.codec!r} received")
        known = (*p.stream.by_age, p.stream.key)
        fine = len(known) == len(AGES) + 1 and all(math.isfinite(v) and v > 0.0 for v in known)
        require(fine, f"bytes for {len(AGES)} ages and of a key expected, all above 0")


def _validate_chain(chain: Chain, ids: set[str]) -> None:
    name = f"chain {chain.first!r}, {chain.second!r}"
    if not {chain.first, chain.second} <= ids:
        raise ProfileError(f"{name}: it names a point that there is not")
    if not (0.0 <= chain.accuracy <= 1.0 and -1.0 <= chain.lost <= 1.0):
        raise ProfileError(f"{name}: accuracy {chain.accuracy} and {chain.lost} of it lost received, 0 to 1 expected")
    if not (math.isfinite(chain.bytes_mean) and chain.bytes_mean > 0.0 and chain.bytes_std >= 0.0):
        raise ProfileError(f"{name}: {chain.bytes_mean} bytes received, more than 0 expected")


def _validate_timings(label: str, timings: Mapping[str, Timing], ids: Iterable[str]) -> None:
    for point_id in ids:
        if point_id not in timings:
            raise ProfileError(f"device {label!r}: no timing of operating point {point_id!r}")
        for name, value in asdict(timings[point_id]).items():
            if not (math.isfinite(value) and value >= 0.0):
                raise ProfileError(f"device {label!r}, {point_id!r}: {name} {value} received, seconds expected")


def _validate_machine(label: str, table: DeviceTable) -> None:
    if table.threads < 1:
        raise ProfileError(f"device {label!r}: {table.threads} threads received, at least 1 expected")
    numbers = {"loop_s": table.loop_s, **table.jitter}
    if table.power is not None:
        numbers |= {"idle_w": table.power.idle_w, "busy_w": table.power.busy_w - table.power.idle_w}
    for name, value in numbers.items():
        if not (math.isfinite(value) and value >= 0.0):
            raise ProfileError(f"device {label!r}: {name} {value} received, a finite number of at least 0 expected")
