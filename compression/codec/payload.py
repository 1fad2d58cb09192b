"""The payload of a cut: a header of eight bytes, a map of positions if not all are sent, the codes.

byte 0     0b1010 in the high bits, then version (1 bit), entropy method (2 bits), region index (1 bit)
byte 1     partition (4 bits), index of the channel ratio (2 bits), index of the bit width (2 bits)
bytes 2-3  tag of the weights, little endian
bytes 4-7  CRC-32 of bytes 0 to 3 and of all after byte 7, little endian

Entropy methods: 0 plain bytes, 1 zstd over map and codes, 2 the plain map and codes coded with learned tables, 3
changes of codes since the reference. With method 3 there is no map, the tag is that of the weights xor that of the
tables, and the CRC-32 begins with the reference's check.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tidesplit.compression.codec.entropy import CHANGES, TABLES, deflate, inflate
from tidesplit.compression.codec.errors import PayloadError, ReferenceUnknownError
from tidesplit.compression.codec.knobs import BITS, RATIOS, REGIONS, CutSpec, Knobs
from tidesplit.compression.codec.learned_entropy import CodeTables
from tidesplit.compression.codec.memory import ChangeTables, CutMemory
from tidesplit.compression.codec.packing import pack, packed_size, unpack

HEADER_BYTES = 8
MAX_BYTES = 1 << 16  # no operating point comes near, so a longer payload is not ours
MAGIC, VERSION = 0b1010, 1

Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Tables = Mapping[tuple[int, int], CodeTables]
Changes = Mapping[tuple[int, int], ChangeTables]

NO_TABLES: Tables = {}
NO_CHANGES: Changes = {}


def _map_bytes(cut: CutSpec, region: float) -> int:
    return 0 if region == 1.0 else packed_size(cut.positions, 1)


def body_bytes(cut: CutSpec, knobs: Knobs) -> int:
    """Length of map and codes before the entropy stage."""
    count = cut.kept_channels(knobs.ratio) * cut.kept_positions(knobs.region)
    return _map_bytes(cut, knobs.region) + packed_size(count, knobs.bits)


def pack_payload(codes: Codes, mask: Mask, knobs: Knobs, cut: CutSpec, tag: int, tables: Tables = NO_TABLES) -> bytes:
    """Shortest payload of codes `[k, h, w]` at the positions in `mask` `[h, w]`. `tables`: by partition and bits."""
    shape = (cut.kept_channels(knobs.ratio), cut.height, cut.width)
    if codes.shape != shape or mask.shape != shape[1:]:
        raise ValueError(f"expected codes {shape} and a mask {shape[1:]}, got {codes.shape} and {mask.shape}")
    if int(mask.sum()) != cut.kept_positions(knobs.region):
        raise ValueError(f"mask keeps {int(mask.sum())} positions, expected {cut.kept_positions(knobs.region)}")
    where = b"" if knobs.region == 1.0 else pack(mask.astype(np.uint8).ravel(), 1)
    method, body = deflate(where + pack(np.ascontiguousarray(codes[:, mask]).ravel(), knobs.bits))
    if (found := tables.get((knobs.partition, knobs.bits))) is not None:
        coded = where + found.encode(codes, mask)
        if len(coded) < len(body):
            method, body = TABLES, coded
    return _sealed(method, body, knobs, tag)


def pack_changes(codes: Codes, knobs: Knobs, tag: int, tables: ChangeTables, reference: CutMemory, old: Codes) -> bytes:
    """Payload of codes `[k, h, w]` relative to `old`, which are the reference's codes in the knobs' bits."""
    return _sealed(CHANGES, tables.encode(old, codes), knobs, tag ^ tables.tag, reference.check)


def _sealed(method: int, body: bytes, knobs: Knobs, tag: int, check: int = 0) -> bytes:
    """The payload of a body. `check`: of the reference, 0 for a payload without one."""
    start = struct.pack(
        "<BBH",
        MAGIC << 4 | VERSION << 3 | method << 1 | REGIONS.index(knobs.region),
        knobs.partition << 4 | RATIOS.index(knobs.ratio) << 2 | BITS.index(knobs.bits),
        tag,
    )
    return start + struct.pack("<I", zlib.crc32(body, zlib.crc32(start, check))) + body


def read_header(
    payload: bytes, tag: int, reference: CutMemory | None = None, changes: Changes = NO_CHANGES
) -> tuple[Knobs, int]:
    """Knobs and entropy method. `changes`: tables by partition and bits.

    Raises:
        ReferenceUnknownError: the payload is relative to other codes than the reference's, or was damaged.
        PayloadError: length, version, checksum, weights, tables or partition are wrong.
    """
    if not HEADER_BYTES <= len(payload) <= MAX_BYTES:
        raise PayloadError(f"payload has {len(payload)} bytes, expected {HEADER_BYTES} to {MAX_BYTES}")
    first, second, found, crc = struct.unpack_from("<BBHI", payload)
    if first >> 3 != MAGIC << 1 | VERSION:
        raise PayloadError(f"not a Tidesplit payload of version {VERSION}: first byte is {first:#04x}")
    relative = first >> 1 & 3 == CHANGES
    if relative and (reference is None or reference.partition != second >> 4):
        raise ReferenceUnknownError(f"payload is relative to codes of partition {second >> 4}, none are here")
    check = reference.check if relative and reference is not None else 0
    if zlib.crc32(payload[HEADER_BYTES:], zlib.crc32(payload[:4], check)) != crc:
        if relative:
            raise ReferenceUnknownError("checksum does not match: payload relative to other codes, or damaged")
        raise PayloadError("checksum does not match: the payload was damaged on its way")
    if relative and (tables := changes.get((second >> 4, BITS[second & 3]))) is not None:
        tag ^= tables.tag
    if found != tag:
        raise PayloadError(f"payload was made with weights or tables {found:#06x}, this decoder has {tag:#06x}")
    if second >> 4 == 0:
        raise PayloadError("partition 0 has no feature payload")
    knobs = Knobs(second >> 4, RATIOS[second >> 2 & 3], REGIONS[first & 1], BITS[second & 3])
    return knobs, first >> 1 & 3


def unpack_changes(payload: bytes, knobs: Knobs, cut: CutSpec, tables: ChangeTables, old: Codes) -> Codes:
    """Codes `[k, h, w]` of a payload whose header has been read. `old`: as in `pack_changes`.

    Raises:
        PayloadError: `pack_changes` never made these bytes.
    """
    if knobs.region != 1.0:
        raise PayloadError(f"changes at region ratio {knobs.region} received, 1.0 expected")
    if len(payload) - HEADER_BYTES > body_bytes(cut, knobs):
        raise PayloadError(f"{len(payload)} bytes of changes received, more than all codes take")
    return tables.decode(payload[HEADER_BYTES:], old)


def _read_mask(data: bytes, cut: CutSpec, region: float) -> Mask:
    """Mask `[h, w]` of the positions that were sent."""
    if region == 1.0:
        return np.ones((cut.height, cut.width), dtype=np.bool_)
    mask = unpack(data, cut.positions, 1).astype(np.bool_).reshape(cut.height, cut.width)
    if int(mask.sum()) != cut.kept_positions(region):
        raise PayloadError(f"map marks {int(mask.sum())} positions, expected {cut.kept_positions(region)}")
    return mask


def unpack_payload(
    payload: bytes, cuts: Mapping[int, CutSpec], tag: int, tables: Tables = NO_TABLES
) -> tuple[Codes, Mask, Knobs]:
    """Codes `[k, h, w]` (zero where not sent), mask `[h, w]`, knobs.

    Raises:
        PayloadError: `pack_payload` never made these bytes.
    """
    knobs, method = read_header(payload, tag)
    cut = cuts.get(knobs.partition)
    if cut is None:
        raise PayloadError(f"no partition {knobs.partition} here, only {sorted(cuts)}")
    body, size, split = payload[HEADER_BYTES:], body_bytes(cut, knobs), _map_bytes(cut, knobs.region)
    channels, positions = cut.kept_channels(knobs.ratio), cut.kept_positions(knobs.region)
    if method == TABLES:
        found = tables.get((knobs.partition, knobs.bits))
        if found is None:
            raise PayloadError(f"no tables here for partition {knobs.partition} at {knobs.bits} bits")
        if not split <= len(body) < size:
            raise PayloadError(f"{len(body)} bytes coded with tables received, {split} to {size - 1} expected")
        mask = _read_mask(body[:split], cut, knobs.region)
        return found.decode(body[split:], mask, channels), mask, knobs
    body = inflate(method, body, size)
    mask = _read_mask(body[:split], cut, knobs.region)
    codes = np.zeros((channels, cut.height, cut.width), dtype=np.uint8)
    codes[:, mask] = unpack(body[split:], channels * positions, knobs.bits).reshape(channels, positions)
    return codes, mask, knobs
