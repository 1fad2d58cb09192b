"""Fit the tables of cuts with memory to clips made of training pictures, and store them next to the weights.

tidesplit fit-streams --model efficientnet_lite0 --data DIR [--weights FILE]

DIR holds train/<class>/*.jpg, or is a packed .npz file. It reads no label. Each picture becomes a clip of one kind of
camera, which runs through the net at the full channel ratio and at one other. Each run is coded at several ages of the
reference. The tables are written as NAME.streams.json. The weights file stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import islice, pairwise, repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tidesplit.compression.codec.knobs import Knobs
from tidesplit.compression.codec.learned_entropy import CODED_BITS, named
from tidesplit.compression.codec.memory import ChangeTables, Codes, cells, rate_of
from tidesplit.compression.codec.pixels import Pixels, to_input
from tidesplit.compression.codec.wire import WireCodec
from tidesplit.compression.codec.zero_runs import best_class
from tidesplit.compression.fitting.fit_command import run_fit
from tidesplit.compression.net.cut_codec import Codec, save_changes
from tidesplit.compression.net.deploy import heads_model
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.clips import CAMERAS, MARGIN, camera_frames
from tidesplit.compression.pictures.labelled import Bytes
from tidesplit.compression.session import session

AGES = (1, 2, 4, 8, 16)  # of the reference, in frames
STEPS = 8  # payloads of each age in a clip, so far as it has frames
LAST = 64  # last frame of a clip
BY_RATIO = ("activity", "changed")  # tables whose first axis is the channel ratio
# Zeros and ones of a flag that is added to those met, so that a context never met has a class: here one of short runs.
# A context that was never met at one ratio is so taken for that of all ratios together.
PRIOR = np.array([0.6, 0.4])

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Say = Callable[[str], None]


class _Counts:
    """Codes and flags met, for the tables of one cut and bit width."""

    def __init__(self, codec: WireCodec, p: int, bits: int) -> None:
        self._codec, self._p, self._bits, cut = codec, p, bits, codec.cuts[p]
        shapes = {name: cells(name, cut, bits) for name in ChangeTables.names()}
        # Flags are counted by the code itself, which asks any tables of the right shapes for the cells.
        self._plain = ChangeTables(cut, bits, **{n: np.zeros(s, dtype=np.uint8) for n, s in shapes.items()})
        self._codes = np.zeros((cut.channels, 2**bits))
        self._flags = {name: np.zeros((2, *shape)) for name, shape in shapes.items()}

    def clip(self, ratio: float, values: dict[int, Floats]) -> None:
        """Count in a clip's values `[k, h, w]` by frame, coded at every age."""
        knobs = Knobs(self._p, ratio, 1.0, self._bits)
        first = self._codec.codes(values[0], knobs)
        for channel, codes in enumerate(first.reshape(len(first), -1)):
            self._codes[channel] += np.bincount(codes, minlength=2**self._bits)
        for age in AGES:
            old = first
            for _, frame in pairwise(_used(age)):
                new = self._codec.codes(values[frame], knobs, old)
                self._changes(old, new)
                old = new

    def _changes(self, old: Codes, new: Codes) -> None:
        def count(name: str, at: Ints, flags: Flags) -> Flags:
            counts = self._flags[name].reshape(2, -1)
            for value in (0, 1):
                counts[value] += np.bincount(at[flags == value], minlength=counts.shape[1])
            return flags

        self._plain.code(count, rate_of(old, new), old, new)

    def tables(self) -> ChangeTables:
        """The tables that take the fewest bytes for what was met."""
        made = {"usual": self._codes.argmax(axis=1).astype(np.uint8)}
        for name in ChangeTables.names()[1:]:
            counts = self._flags[name]
            pooled = counts.sum(axis=1, keepdims=True) if name in BY_RATIO else np.zeros_like(counts)
            prior = pooled + PRIOR.reshape(2, *[1] * (counts.ndim - 1))
            zeros, ones = counts + prior / prior.sum(axis=0)
            made[name] = best_class(ones / (zeros + ones))
        return ChangeTables(self._plain.cut, self._bits, **made)


def _used(age: int) -> range:
    """Frames of a clip that are sent at an age."""
    return range(0, min(LAST, STEPS * age) + 1, age)


EVERY_USED = sorted({frame for age in AGES for frame in _used(age)})


def _clips(stills: Bytes, px: int) -> Iterator[list[Pixels]]:
    """Used frames `[px, px, 3]` of one clip a still, with each kind of camera in turn."""
    cameras = list(CAMERAS.values())
    for i, still in enumerate(stills):
        frames = camera_frames(repeat(still), cameras[i % len(cameras)], px, np.random.default_rng((0, i)))
        found = list(islice(frames, LAST + 1))
        yield [found[k] for k in EVERY_USED]


def fit_changes(
    system: SplitNet, stills: Bytes, say: Say = lambda _: None, threads: int = 1
) -> dict[tuple[int, int], ChangeTables]:
    """Tables by partition and bits, from stills uint8 `[N, S, S, 3]` a little larger than the net's input.

    The system must be in eval mode and on the CPU. Its deployed models run, because coarser values would seem to move.
    `say` gets lines of progress.
    """
    wire = Codec(system).wire
    counts = {(p, bits): _Counts(wire, p, bits) for p in wire.cuts for bits in CODED_BITS}
    heads = {ratio: session(heads_model(system, ratio).SerializeToString(), threads) for ratio in system.ratios}
    for i, frames in enumerate(_clips(stills, system.net.input_px)):
        for ratio in (system.ratios[-1], system.ratios[i // len(CAMERAS) % (len(system.ratios) - 1)]):
            outputs = [heads[ratio].run(None, {"x": to_input(frame)})[::2] for frame in frames]
            for (p, _), count in counts.items():
                count.clip(ratio, {k: ys[p - 1][0] for k, ys in zip(EVERY_USED, outputs, strict=True)})
        if i % 10 == 9:
            say(f"streams: {i + 1} of {len(stills)} clips")
    return {key: count.tables() for key, count in counts.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for a user's mistake."""
    return run_fit("tidesplit fit-streams", __doc__.splitlines()[0], 60, _store, arguments, MARGIN)


def _store(path: Path, system: SplitNet, stills: Bytes) -> str:
    stored = named(fit_changes(system, stills, lambda text: print(text, flush=True), torch.get_num_threads()))
    written = save_changes(path, system, stored)
    return f"{written}: {len(stored)} tables, {sum(map(len, stored.values())):,} bytes"


if __name__ == "__main__":
    sys.exit(main())
