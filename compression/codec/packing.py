"""Codes of 1, 2, 4 or 8 bits packed into bytes, the first code in the low bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes take."""
    return -(-count * bits // 8)


def pack(codes: Codes, bits: int) -> bytes:
    """Pack codes `[n]` below 2**bits. Zeros fill the last byte."""
    if codes.size and int(codes.max()) >> bits:
        raise ValueError(f"code {int(codes.max())} does not fit {bits} bits")
    if bits == 8:
        return codes.tobytes()
    per = 8 // bits
    padded = np.zeros(packed_size(codes.size, bits) * per, dtype=np.uint8)
    padded[: codes.size] = codes.ravel()
    shifts = np.arange(per, dtype=np.uint8) * np.uint8(bits)
    packed = np.bitwise_or.reduce(padded.reshape(-1, per) << shifts, axis=1)
    return bytes(packed.astype(np.uint8).tobytes())


def unpack(data: bytes, count: int, bits: int) -> Codes:
    """The `count` codes in `data`, which must have exactly their packed size."""
    if len(data) != packed_size(count, bits):
        raise ValueError(f"{count} codes of {bits} bits take {packed_size(count, bits)} bytes, got {len(data)}")
    packed = np.frombuffer(data, dtype=np.uint8)
    if bits == 8:
        return packed.copy()
    per = 8 // bits
    shifts = np.arange(per, dtype=np.uint8) * np.uint8(bits)
    codes = (packed[:, None] >> shifts) & np.uint8(2**bits - 1)
    return codes.astype(np.uint8).ravel()[:count]
