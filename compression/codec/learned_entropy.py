"""Entropy stage with tables learned from training pictures.

The context of a code is its left and its upper neighbour in its channel. For each channel and context, a table holds
the possible codes in order, most likely first, and their uncertainty (entropy).

To encode a position, its channels are sorted by uncertainty, and each code is replaced by its rank in its table. As
many ranks as fill a byte form one symbol. The sum of their uncertainties picks the Huffman table for the symbol.

The decoder follows the antidiagonals of the grid, on which all contexts are known. A grid of 14x14 takes 27 vectorised
steps for any number of channels. All arithmetic is on integers, so the bytes are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from tidesplit.compression.codec.huffman import Huffman, Reader
from tidesplit.compression.codec.knobs import CutSpec
from tidesplit.compression.codec.packing import pack, packed_size, unpack

CODED_BITS = (1, 2, 4)  # tables of 8-bit codes would be larger than the weights
HUFFMANS = 16  # tables: the k-th is for bytes expected to take k/2 to (k + 1)/2 bits
UNIT = 32  # uncertainties are in units of 1/32 bit
_MOST = np.uint8(4 * UNIT)
_TABLE = (np.arange(8 * UNIT + 1) * 2 // UNIT).clip(max=HUFFMANS - 1)  # by a byte's sum of uncertainties

Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@lru_cache
def _contexts(bits: int) -> Ints:
    """Context by left * (n + 1) + upper, where n = 2**bits stands for a neighbour that was not sent.

    Up to 2 bits, the context is the pair itself. At 4 bits there would be too many pairs, so it is their sum, in which
    a missing neighbour counts as much as the other one.
    """
    n = 2**bits
    pair: Ints = np.arange((n + 1) ** 2)
    if bits <= 2:
        return pair
    left, upper = np.divmod(pair, n + 1)
    total: Ints = np.where(left == n, upper, left) + np.where(upper == n, left, upper)
    return total.clip(max=2 * n - 1)


def context_count(bits: int) -> int:
    """Number of contexts of codes of `bits` bits."""
    return int(_contexts(bits).max()) + 1


@lru_cache
def _diagonals(height: int, width: int) -> tuple[Ints, Ints, Ints]:
    """Positions in the order of their antidiagonals, and the end of each antidiagonal in that order.

    Positions come twice: as index into the grid, and into the grid with a margin above and on the left.
    """
    y, x = np.divmod(np.arange(height * width), width)
    order = np.argsort(y + x, kind="stable")
    return order, ((y + 1) * (width + 1) + x + 1)[order], np.cumsum(np.bincount(y + x))


@dataclass(frozen=True, eq=False)
class CodeTables:
    """Tables of one cut and bit width, all uint8.

    Args:
        order: `[Kmax, contexts, 2**bits]`, the codes of a context, most likely first.
        uncertainty: `[Kmax, contexts]` in units of 1/32 bit.
        lengths: `[HUFFMANS, 256]`, bits of the Huffman codes.

    Raises:
        ValueError: wrong shapes, an order without every code, or lengths of no complete code.
    """

    cut: CutSpec
    bits: int
    order: Codes
    uncertainty: Codes
    lengths: Codes

    def __post_init__(self) -> None:
        shape = (self.cut.channels, context_count(self.bits))
        for name, found, expected in (
            ("order", self.order.shape, (*shape, 2**self.bits)),
            ("uncertainty", self.uncertainty.shape, shape),
            ("lengths", self.lengths.shape, (HUFFMANS, 256)),
        ):
            if found != expected:
                raise ValueError(f"{name} of shape {found} received, {expected} expected")
        if not np.array_equal(np.sort(self.order, axis=2), np.broadcast_to(np.arange(2**self.bits), self.order.shape)):
            raise ValueError("an order does not have every code once")
        if int(self.uncertainty.max()) > UNIT * self.bits:
            raise ValueError(f"uncertainty {int(self.uncertainty.max())}/{UNIT} bit of a code of {self.bits} bits")
        self.huffman  # noqa: B018 (raises where the lengths are of no complete code)

    @cached_property
    def huffman(self) -> Huffman:
        """Huffman codes of the symbols."""
        return Huffman(self.lengths)

    @cached_property
    def _rank(self) -> Codes:
        """Rank of a code, by (channel * contexts + context) * 2**bits + code."""
        return np.argsort(self.order, axis=2, kind="stable").astype(np.uint8).ravel()

    @cached_property
    def _first(self) -> Ints:
        """Row of the first context, by channel."""
        return np.arange(self.cut.channels) * context_count(self.bits)

    @cached_property
    def _by_row(self) -> tuple[Codes, Codes]:
        """Code by row * 2**bits + rank, and certainty by row: the largest possible uncertainty minus the row's."""
        return self.order.ravel(), _MOST - self.uncertainty.ravel()

    def rows(self, grid: Ints, at: Ints) -> Ints:
        """Rows of the tables `[n, k]`, each channel * contexts + context.

        Args:
            grid: `[cells, k]`, codes with a margin above and on the left, 2**bits where no code was sent.
            at: `[n]`, positions in that grid.
        """
        rows = grid.take(at - 1, axis=0)
        rows *= 2**self.bits + 1
        rows += grid.take(at - self.cut.width - 1, axis=0)
        rows = _contexts(self.bits).take(rows)
        rows += self._first[: grid.shape[1]]
        return rows

    def _sorted(self, rows: Ints) -> tuple[Ints, Ints]:
        """Flat indices into `rows` `[n, k]` with the most uncertain channel of each position first.

        Also the Huffman table of each byte, `[n, bytes]`.
        """
        certain = self._by_row[1].take(rows)
        # One flat index sorts all positions. take_along_axis would take several times as long.
        order = certain.argsort(axis=1, kind="stable")
        order += np.arange(0, rows.size, rows.shape[1])[:, None]
        levels = _filled(_MOST - certain.take(order), 8 // self.bits)
        return order, _TABLE.take(np.add.reduce(levels, axis=2, dtype=np.intp))

    def symbols(self, grid: Ints, at: Ints) -> tuple[Codes, Ints]:
        """Symbols `[n, bytes]` and their Huffman tables, where the grid holds all codes. `grid`, `at`: as in `rows`."""
        rows = self.rows(grid, at)
        order, tables = self._sorted(rows)
        ranks = self._rank.take((rows << self.bits) + grid[at])
        per = 8 // self.bits
        parts = _filled(ranks.take(order), per)
        shifts = np.arange(per, dtype=np.uint8) * np.uint8(self.bits)
        return np.bitwise_or.reduce(parts << shifts, axis=2), tables

    def _grid(self, channels: int) -> Ints:
        cells = (self.cut.height + 1) * (self.cut.width + 1)
        return np.full((cells, channels), 2**self.bits, dtype=np.int64)

    def encode(self, codes: Codes, mask: Mask) -> bytes:
        """Encode codes `[k, h, w]` at the positions in `mask` `[h, w]`."""
        positions, cells, _ = _diagonals(self.cut.height, self.cut.width)
        sent = mask.ravel()[positions]
        grid, at = self._grid(len(codes)), cells[sent]
        grid[at] = codes.reshape(len(codes), -1)[:, positions[sent]].T
        symbols, tables = self.symbols(grid, at)
        return self.huffman.encode(symbols.ravel(), tables.ravel())

    def decode(self, data: bytes, mask: Mask, channels: int) -> Codes:
        """Codes `[channels, h, w]`, zero where not sent. Memory and time do not depend on the data.

        Raises:
            PayloadError: `encode` never made `data`.
        """
        positions, cells, ends = _diagonals(self.cut.height, self.cut.width)
        sent = mask.ravel()[positions]
        grid, code_of = self._grid(channels), self._by_row[0]
        reader, per = Reader(self.huffman, data), 8 // self.bits
        shifts = np.arange(per, dtype=np.uint8) * np.uint8(self.bits)
        inside, start = cells[sent], 0
        for end in np.cumsum(sent)[ends - 1].tolist():
            at, start = inside[start:end], end
            if not len(at):
                continue
            rows = self.rows(grid, at)
            order, tables = self._sorted(rows)
            found = np.frombuffer(reader.read(tables.ravel()), dtype=np.uint8)
            ranks = (found[:, None] >> shifts & np.uint8(2**self.bits - 1)).reshape(len(at), -1)[:, :channels]
            codes = np.empty(rows.shape, dtype=np.int64)
            codes.put(order, code_of.take((rows.take(order) << self.bits) + ranks))
            grid[at] = codes
        reader.finish()
        result = np.zeros((channels, self.cut.positions), dtype=np.uint8)
        result[:, positions[sent]] = grid[inside].T
        return result.reshape(channels, self.cut.height, self.cut.width)

    def to_bytes(self) -> bytes:
        """The stored form: packed orders, uncertainties, lengths packed to four bits."""
        return pack(self.order.ravel(), self.bits) + self.uncertainty.tobytes() + pack(self.lengths.ravel(), 4)

    @classmethod
    def from_bytes(cls, data: bytes, cut: CutSpec, bits: int) -> CodeTables:
        """The tables in a stored form. Raises ValueError where they are none of this cut and bit width."""
        shape = (cut.channels, context_count(bits))
        cells = shape[0] * shape[1]
        first = packed_size(cells * 2**bits, bits)
        if len(data) != first + cells + HUFFMANS * 128:
            raise ValueError(f"tables of {first + cells + HUFFMANS * 128} bytes expected, {len(data)} received")
        return cls(
            cut,
            bits,
            order=unpack(data[:first], cells * 2**bits, bits).reshape(*shape, 2**bits),
            uncertainty=np.frombuffer(data, dtype=np.uint8, count=cells, offset=first).reshape(shape),
            lengths=unpack(data[first + cells :], HUFFMANS * 256, 4).reshape(HUFFMANS, 256),
        )


def _filled(values: Codes, per: int) -> Codes:
    """Group `[n, k]` into `[n, bytes, per]`, filled up with zeros."""
    n, k = values.shape
    if k % per:
        values, given = np.zeros((n, k + -k % per), dtype=np.uint8), values
        values[:, :k] = given
    return values.reshape(n, -(-k // per), per)


class Storable(Protocol):
    """Tables of one cut and bit width."""

    def to_bytes(self) -> bytes:
        """The stored form."""

    @classmethod
    def from_bytes(cls, data: bytes, cut: CutSpec, bits: int) -> Self:
        """The tables in a stored form. Raises ValueError where they are not sound."""


Kind = TypeVar("Kind", bound=Storable)


def named(tables: Mapping[tuple[int, int], Storable]) -> dict[str, bytes]:
    """Stored forms by name. `p2-b4` names the tables of cut 2 at 4 bits."""
    return {f"p{partition}-b{bits}": found.to_bytes() for (partition, bits), found in tables.items()}


def parse(kind: type[Kind], stored: Mapping[str, bytes], cuts: Mapping[int, CutSpec]) -> dict[tuple[int, int], Kind]:
    """Tables of a kind by partition and bits, from the stored forms that `named` gave.

    Raises:
        ValueError: a table of another net, or one that is not sound.
    """
    known = {f"p{partition}-b{bits}": (partition, bits) for partition in cuts for bits in CODED_BITS}
    if not stored.keys() <= known.keys():
        raise ValueError(f"tables {sorted(stored.keys() - known.keys())} received, only {sorted(known)} expected")
    tables = {}
    for name, data in stored.items():
        partition, bits = known[name]
        tables[partition, bits] = kind.from_bytes(data, cuts[partition], bits)
    return tables
