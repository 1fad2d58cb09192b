"""Fit the entropy stage's tables to training pictures, and store them in the weights file.

tidesplit fit-entropy --model efficientnet_lite0 --data DIR [--weights FILE]

DIR holds train/<class>/*.jpg, or is a packed .npz file. It takes a minute on two free cores and reads no label. The
file's hash changes, and with it the tag of its payloads, because weights and tables belong together.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tidesplit.compression.codec.huffman import code_lengths
from tidesplit.compression.codec.knobs import REGIONS, Knobs
from tidesplit.compression.codec.learned_entropy import CODED_BITS, HUFFMANS, UNIT, CodeTables, context_count, named
from tidesplit.compression.codec.wire import WireCodec, best_positions
from tidesplit.compression.fitting.fit_command import run_fit
from tidesplit.compression.net.cut_codec import Codec
from tidesplit.compression.net.measure import autocast
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.labelled import Bytes, scale
from tidesplit.models.slim import set_of_ratio
from tidesplit.models.weights import save_tables

BATCH = 50
# Counts added to each row in proportion to its channel's codes. A context never met is so coded like its channel.
PRIOR = {1: 2.0, 2: 2.0, 4: 8.0}
RARE = 0.1  # added to the count of every byte, because each must have a code word

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Say = Callable[[str], None]
Values = tuple[float, Floats, Floats]  # channel ratio, head's values [B, k, h, w], attention score [B, h, w]


@torch.inference_mode()
def _values(system: SplitNet, images: Bytes, say: Say) -> dict[int, list[Values]]:
    """Values that heads would send, by partition. Each batch runs at full ratio and at one other, in turn."""
    found: dict[int, list[Values]] = {p: [] for p in range(1, system.partitions)}
    device = next(system.parameters()).device
    for i, start in enumerate(range(0, len(images), BATCH)):
        x = scale(images[start : start + BATCH]).to(device)
        for ratio in (system.ratios[-1], system.ratios[i % (len(system.ratios) - 1)]):
            with autocast(device):
                features = system.net.features(x, set_of_ratio(ratio))[0]
                encoded = [system.bottleneck(p).encode(f, set_of_ratio(ratio)) for p, f in enumerate(features, start=1)]
            for p, (y, score) in enumerate(encoded, start=1):
                found[p].append((ratio, y.float().cpu().numpy(), score[:, 0].float().cpu().numpy()))
        if i % 4 == 3:
            say(f"entropy: heads of {start + len(x)} of {len(images)} pictures")
    return found


def _grids(wire: WireCodec, p: int, bits: int, values: list[Values]) -> Iterator[tuple[Ints, Ints]]:
    """Grids and positions of whole batches, as `CodeTables.rows` takes them: all positions, then half of them."""
    cut = wire.cuts[p]
    for ratio, y, scores in values:
        codes = wire.codes(y, Knobs(p, ratio, 1.0, bits)).transpose(0, 2, 3, 1)
        halves = np.stack([best_positions(score, cut.kept_positions(REGIONS[0])) for score in scores])
        for sent in (np.ones_like(halves), halves):
            grid = np.full((len(y), cut.height + 1, cut.width + 1, codes.shape[3]), 2**bits, dtype=np.int64)
            grid[:, 1:, 1:][sent] = codes[sent]
            inside = np.pad(sent, ((0, 0), (1, 0), (1, 0)))
            yield grid.reshape(-1, codes.shape[3]), np.flatnonzero(inside)


def fit_cut(wire: WireCodec, p: int, bits: int, values: list[Values]) -> CodeTables:
    """Tables of one cut and bit width, from values that heads would send."""
    cut, n = wire.cuts[p], 2**bits
    shape = (cut.channels, context_count(bits))
    plain = CodeTables(
        cut,
        bits,
        order=np.broadcast_to(np.arange(n, dtype=np.uint8), (*shape, n)),
        uncertainty=np.zeros(shape, dtype=np.uint8),
        lengths=np.full((HUFFMANS, 256), 8, dtype=np.uint8),
    )
    counts = np.zeros(shape[0] * shape[1] * n)
    for grid, at in _grids(wire, p, bits, values):
        found = (plain.rows(grid, at) << bits) + grid[at]
        counts += np.bincount(found.ravel(), minlength=len(counts))
    seen = counts.reshape(*shape, n)
    overall = seen.sum(axis=1, keepdims=True) + 0.5
    chances = seen + PRIOR[bits] * overall / overall.sum(axis=2, keepdims=True)
    chances /= chances.sum(axis=2, keepdims=True)
    uncertain = np.rint(-UNIT * (chances * np.log2(chances)).sum(axis=2))
    order = np.argsort(-chances, axis=2, kind="stable")
    ranked = CodeTables(cut, bits, order.astype(np.uint8), uncertain.astype(np.uint8), plain.lengths)
    met = np.zeros(HUFFMANS * 256)
    for grid, at in _grids(wire, p, bits, values):
        symbols, tables = ranked.symbols(grid, at)
        met += np.bincount((tables << 8 | symbols).ravel(), minlength=len(met))
    lengths = [code_lengths(row) for row in met.reshape(HUFFMANS, 256) + RARE]
    return CodeTables(cut, bits, ranked.order, ranked.uncertainty, np.array(lengths, dtype=np.uint8))


def fit_tables(system: SplitNet, images: Bytes, say: Say = lambda _: None) -> dict[tuple[int, int], CodeTables]:
    """Tables by partition and bits, from pictures uint8 `[N, px, px, 3]` at the deployed size.

    The system must be in eval mode. `say` gets lines of progress.
    """
    codec, values = Codec(system), _values(system, images, say)
    tables = {}
    for p, some in values.items():
        for bits in CODED_BITS:
            tables[p, bits] = fit_cut(codec.wire, p, bits, some)
        say(f"entropy: tables of cut {p}")
    return tables


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for a user's mistake."""
    return run_fit("tidesplit fit-entropy", __doc__.splitlines()[0], 500, _store, arguments)


def _store(path: Path, system: SplitNet, images: Bytes) -> str:
    stored = named(fit_tables(system, images, lambda text: print(text, flush=True)))
    save_tables(path, stored)
    return f"{path}: {len(stored)} tables, {sum(map(len, stored.values())):,} bytes"


if __name__ == "__main__":
    sys.exit(main())
