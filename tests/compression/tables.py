"""Tables of the entropy stage made by a formula: inputs for tests."""

from __future__ import annotations

import numpy as np

from tidesplit.compression.codec.knobs import CutSpec
from tidesplit.compression.codec.learned_entropy import HUFFMANS, UNIT, CodeTables, context_count
from tidesplit.compression.codec.memory import ChangeTables, cells
from tidesplit.compression.codec.zero_runs import FLIPPED

EVEN = [8] * 256
SKEWED = [1, 8] + [9] * 254


def tables_of(cut: CutSpec, bits: int) -> CodeTables:
    """Orders rotate with channel and context; one Huffman table in four is even, the others are skewed."""
    n, contexts = 2**bits, context_count(bits)
    k, c = np.mgrid[: cut.channels, :contexts]
    return CodeTables(
        cut,
        bits,
        order=((np.arange(n) + (k + c)[..., None]) % n).astype(np.uint8),
        uncertainty=((7 * k + 5 * c) % (UNIT * bits + 1)).astype(np.uint8),
        lengths=np.array([EVEN, SKEWED, SKEWED, SKEWED] * (HUFFMANS // 4), dtype=np.uint8),
    )


def change_tables_of(cut: CutSpec, bits: int) -> ChangeTables:
    """Every class occurs: sizes 0 to 5, one cell in four flipped."""
    tables = {}
    for start, name in enumerate(ChangeTables.names()):
        shape = cells(name, cut, bits)
        cell = np.arange(np.prod(shape)).reshape(shape) + start
        codes, classes = cell % 2**bits, cell % 6 + FLIPPED * (cell % 4 == 3)
        tables[name] = (codes if name == "usual" else classes).astype(np.uint8)
    return ChangeTables(cut, bits, **tables)
