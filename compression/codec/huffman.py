"""Static Huffman codes of bytes, with several tables. Each byte is coded with the table that its caller names.

Codes are canonical (Schwartz and Kallick, 1964), so 256 lengths define a table. All arithmetic is on integers, so the
bits are the same on every machine.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from tidesplit.compression.codec.errors import PayloadError

LONGEST = 13  # bits of a code word: 12 take up to 0.3 % more bytes, 14 save nothing and double the look-up tables

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


def code_lengths(counts: npt.NDArray[np.float64]) -> list[int]:
    """Lengths of the best prefix code of at most LONGEST bits, by package-merge (Larmore and Hirschberg, 1990).

    `counts` `[symbols]`: how often each symbol occurs.
    """
    leaves = sorted((float(count), (symbol,)) for symbol, count in enumerate(counts))
    packages: list[tuple[float, tuple[int, ...]]] = []
    for _ in range(LONGEST):
        row = sorted(leaves + packages)
        packages = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(row[::2], row[1::2], strict=False)]
    lengths = [0] * len(leaves)
    for _, symbols in packages[: len(leaves) - 1]:
        for symbol in symbols:
            lengths[symbol] += 1
    return lengths


class Huffman:
    """Codes of several tables. `lengths` `[tables, 256]` uint8: bits of each byte's code word, 1 to LONGEST."""

    def __init__(self, lengths: Bytes) -> None:
        shares = np.left_shift(1, LONGEST - lengths.astype(np.int64).clip(0, LONGEST))
        if not ((lengths >= 1) & (lengths <= LONGEST)).all() or (shares.sum(axis=1) != 1 << LONGEST).any():
            raise ValueError(f"not the lengths of complete codes of 1 to {LONGEST} bits for every byte")
        self.lengths = lengths
        self._order = np.argsort(lengths, axis=1, kind="stable")
        self._shares: Ints = np.take_along_axis(shares, self._order, axis=1)

    @cached_property
    def _words(self) -> tuple[Ints, Ints]:
        """Code word and its length, by table * 256 + byte."""
        first = np.cumsum(self._shares, axis=1) - self._shares
        starts = np.empty_like(first)
        np.put_along_axis(starts, self._order, first, axis=1)
        lengths = self.lengths.astype(np.int64)
        return (starts >> (LONGEST - lengths)).ravel(), lengths.ravel()

    @cached_property
    def by_window(self) -> tuple[bytes, bytes]:
        """Byte and its code length, by table * 2**LONGEST + the next LONGEST bits. Takes 0.25 MB, made on first use."""
        symbols = np.repeat(self._order.ravel(), self._shares.ravel()).astype(np.uint8)
        table = np.repeat(np.arange(len(self.lengths)), 1 << LONGEST)
        return symbols.tobytes(), self.lengths[table, symbols].tobytes()

    def encode(self, symbols: Bytes, tables: Ints) -> bytes:
        """Code words of `symbols` `[n]`, each from the table that `tables` `[n]` names. Zeros fill the last byte."""
        words, lengths = self._words
        which = (tables << 8) + symbols
        long = lengths[which]
        ends = np.cumsum(long)
        size = (int(ends[-1]) + 7) // 8 if len(ends) else 0
        starts = ends - long
        # A word and the bits before it in its first byte fit into 24 bits. Words that start in one byte do not overlap,
        # so their sum is below 2**24, which the float64 of bincount holds exactly.
        placed = words[which] << (24 - long - (starts & 7))
        three = np.bincount(starts >> 3, weights=placed, minlength=size).astype(np.int64)
        out = np.zeros(size + 2, dtype=np.int64)
        out[:size] = three >> 16
        out[1 : size + 1] += three >> 8 & 255
        out[2:] += three & 255
        return out[:size].astype(np.uint8).tobytes()


class Reader:
    """Decodes the output of `Huffman.encode`. Its memory grows with the data only."""

    def __init__(self, huffman: Huffman, data: bytes) -> None:
        padded = np.frombuffer(data + b"\0\0", dtype=np.uint8).astype(np.int64)
        self._threes: list[int] = (padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]).tolist()
        self._symbols, self._lengths = huffman.by_window
        self._data, self._at = data, 0

    def read(self, tables: Ints) -> bytes:
        """The next bytes, one for each table in `tables` `[n]`. Raises PayloadError where the data ends too early."""
        threes, symbols, lengths, at = self._threes, self._symbols, self._lengths, self._at
        spare, mask = 24 - LONGEST, (1 << LONGEST) - 1
        found = []
        try:
            for table in (tables << LONGEST).tolist():
                window = table | threes[at >> 3] >> spare - (at & 7) & mask
                found.append(symbols[window])
                at += lengths[window]
        except IndexError:
            raise PayloadError(f"{len(self._data)} bytes of Huffman codes end before the last code") from None
        self._at = at
        return bytes(found)

    def finish(self) -> None:
        """Raise PayloadError unless the data ends with the last code that was read."""
        size = (self._at + 7) // 8
        rest = self._data[-1] & (1 << (8 * size - self._at)) - 1 if self._data else 0
        if size != len(self._data) or rest:
            raise PayloadError(f"expected Huffman codes of {size} bytes and zeros after them, got {len(self._data)}")
