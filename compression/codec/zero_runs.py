"""Flags (zeros and ones) coded as runs of zeros. Each flag has a class, which says how long the runs near it are.

A class of size s looks at the next 2**s flags. If all are zero, one bit says so. Otherwise a one and s bits say where
the first one is, and the coder goes on behind it. This is Rice's code with a parameter by flag. At any share of ones
up to a half it takes at most 4 % more than the entropy, if the size suits the share. Flags are sorted by their size, so
runs cross from one class to the next. A flipped class is of flags that are mostly ones.

All arithmetic is on integers, so the bits are the same on every machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tidesplit.compression.codec.errors import PayloadError

LARGEST = 12  # a run of 4,096 flags at most: a still frame of the largest cut takes three bits
FLIPPED = 16  # added to the size of a class whose flags are mostly ones

Classes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def _sorted(classes: Classes) -> tuple[Ints, bytes]:
    """Order of flags by the size of their class, and the sizes in that order."""
    sizes = classes % FLIPPED
    order = sizes.argsort(kind="stable")
    return order, sizes[order].tobytes()


class FlagWriter:
    """Collects bits."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def number(self, value: int, bits: int) -> None:
        """Add a number of so many bits."""
        self._bits.append(f"{value:0{bits}b}")

    def flags(self, classes: Classes, flags: Flags) -> None:
        """Add `flags` `[n]` of `classes` `[n]`."""
        order, sizes = _sorted(classes)
        add, at = self._bits.append, 0
        for one in np.flatnonzero((flags ^ (classes >= FLIPPED))[order]).tolist():
            while one - at >> (size := sizes[at]):
                add("0")
                at += 1 << size
            add(f"1{one - at:0{size}b}" if size else "1")
            at = one + 1
        while at < len(sizes):
            add("0")
            at += 1 << sizes[at]

    def finish(self) -> bytes:
        """All bits. Zeros fill the last byte."""
        bits = "".join(self._bits)
        size = -(-len(bits) // 8)
        return int(bits.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")


class FlagReader:
    """Reads the bits of a `FlagWriter`. Its memory grows with the data and the number of flags only."""

    def __init__(self, data: bytes) -> None:
        size = 8 * len(data)
        self._bits = f"{int.from_bytes(data, 'big'):0{size}b}" if data else ""
        self._at = 0

    def number(self, bits: int) -> int:
        """The next number of so many bits. Raises PayloadError where the data ends too early."""
        self._at += bits
        if self._at > len(self._bits):
            raise PayloadError(f"{len(self._bits) // 8} bytes of flags end before the last one")
        return int(self._bits[self._at - bits : self._at], 2)

    def flags(self, classes: Classes) -> Flags:
        """The next flags, of `classes` `[n]`. Raises PayloadError where the data ends too early or runs beyond them."""
        order, sizes = _sorted(classes)
        bits, spot, at, ones = self._bits, self._at, 0, []
        try:
            while at < len(sizes):
                size = sizes[at]
                spot += 1
                if bits[spot - 1] == "0":
                    at += 1 << size
                    continue
                if size:
                    at += int(bits[spot : spot + size], 2)
                    spot += size
                ones.append(at)
                at += 1
        except (IndexError, ValueError):  # ValueError: no bits are left for a place
            raise PayloadError(f"{len(bits) // 8} bytes of flags end before the last one") from None
        if ones and ones[-1] >= len(sizes):
            raise PayloadError(f"a flag at {ones[-1]} of {len(sizes)}")
        self._at = spot
        flags = np.zeros(len(sizes), dtype=np.bool_)
        flags[order[ones]] = True
        return flags ^ (classes >= FLIPPED)

    def finish(self) -> None:
        """Raise PayloadError unless the data ends with the last flag that was read."""
        size = -(-self._at // 8)
        if size * 8 != len(self._bits) or "1" in self._bits[self._at :]:
            raise PayloadError(f"{len(self._bits) // 8} bytes of flags received, {size} and zeros in them expected")


def cost(share: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Bits that a flag takes in the mean, by the share of ones, in a class of this size."""
    zeros = (1.0 - share) ** (1 << size)
    # Flags that a block covers: all 2**size, or those up to the first one
    covered = np.where(share > 0.0, (1.0 - zeros) / np.maximum(share, 1e-12), 1 << size)
    return np.asarray((1.0 + size * (1.0 - zeros)) / covered)


def best_class(share: npt.NDArray[np.float64]) -> Classes:
    """The class that takes the fewest bits at a share of ones."""
    rare = np.minimum(share, 1.0 - share)
    sizes = np.argmin([cost(rare, size) for size in range(LARGEST + 1)], axis=0)
    return np.asarray(sizes + FLIPPED * (share > 0.5), dtype=np.uint8)
