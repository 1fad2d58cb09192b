"""The cuts that are worth a bottleneck, out of all legal ones."""

from __future__ import annotations

from collections.abc import Sequence

from tidesplit.compression.net.bottleneck import BottleneckSpec
from tidesplit.prepare.source.preprocessing import PrepareError
from tidesplit.profiling.cuts.legal_cuts import Cut

SHARES = (0.15, 0.30, 0.50, 0.75)
"""Shares of the compute near which a cut is looked for."""
NEAR = 0.10
"""A cut may be so far from the share. Within, the narrowest feature wins."""
APART = 0.08
"""Cuts are at least so far from each other."""
MOST = 5
COARSEST = 8
"""Largest stride of a bottleneck."""
LARGEST_PATCH = 1536
"""Values under one position of the grid, up to which an encoder of stride 4 is one convolution over all of them."""
SMALLEST_GRID = 8
"""A feature of so few positions in each direction is not made coarser,"""
FEWEST = 4
"""but the last features of a net are, down to so many. Their positions are soon averaged, so they may share values."""
WIRES = ((8, 32), (5, 64), (0, 192))
"""Most values at a position, by the least positions in each direction."""


def share_of(cut: Cut) -> float:
    """Share of the compute before a cut."""
    return cut.macs_before / max(1, cut.macs_before + cut.macs_after)


def usable(cuts: Sequence[Cut], px: int) -> list[Cut]:
    """Cuts whose feature is a square grid of float32 values that a bottleneck can take. Of neighbours the last one.

    Raises:
        PrepareError: there is none.
    """
    best: dict[int, Cut] = {}
    for cut in cuts:
        grid = len(cut.shape) == 4 and cut.shape[2] == cut.shape[3] > 1 and cut.dtype == "float32"
        if not grid or cut.shape[2] * 2 > px or not cut.macs_before or not cut.macs_after:
            continue
        rival = best.get(cut.macs_before)
        if rival is None or cut.feature_bytes <= rival.feature_bytes:
            best[cut.macs_before] = cut
    if not best:
        shapes = ", ".join(dict.fromkeys("x".join(map(str, cut.shape)) for cut in cuts))
        raise PrepareError(
            f"no legal cut has a square grid of float32 features, [1, C, H, W] with H = W at most {px // 2}: "
            f"those that could cross have the shapes {shapes}"
        )
    return list(best.values())


def choose(cuts: Sequence[Cut], px: int, indices: Sequence[int] = ()) -> tuple[Cut, ...]:
    """Up to five cuts in order: those of the given numbers, or else the narrowest near each of `SHARES`.

    Raises:
        PrepareError: numbers of no cut, or no cut can be used.
    """
    fit = usable(cuts, px)
    if indices:
        by_index = {cut.index: cut for cut in cuts if len(cut.shape) == 4 and cut.shape[2] == cut.shape[3]}
        wrong = [index for index in indices if index not in by_index]
        if wrong or len(set(indices)) > MOST:
            raise PrepareError(
                f"--cuts {','.join(map(str, indices))} received, at most {MOST} of {sorted(by_index)} expected"
            )
        return tuple(by_index[index] for index in sorted(set(indices)))
    chosen: dict[int, Cut] = {}
    for share in SHARES:
        near = [
            cut
            for cut in fit
            if abs(share_of(cut) - share) <= NEAR
            and all(share_of(cut) - share_of(other) >= APART for other in chosen.values())
        ]
        if near:
            best = min(near, key=lambda cut: (cut.feature_bytes, abs(share_of(cut) - share)))
            chosen[best.index] = best
    if not chosen:
        best = min(fit, key=lambda cut: abs(share_of(cut) - SHARES[1]))
        chosen[best.index] = best
    return tuple(chosen[index] for index in sorted(chosen))


def spec_of(cut: Cut, px: int) -> BottleneckSpec:
    """The bottleneck of a cut: a grid of about px / 32 positions, of px / 16 or px / 64 for fine or coarse features."""
    _, channels, side, _ = cut.shape
    coarse = max(SMALLEST_GRID, px // 32)
    target = coarse if side <= px // 16 else max(coarse, px // 16)
    if FEWEST < side <= px // 32:
        target = FEWEST
    stride = 1
    while side > target * stride and stride < COARSEST:
        stride *= 2
    most = next(wire for least, wire in WIRES if -(-side // stride) >= least)
    wire = min(most, max(8, channels * stride**2 if stride <= 2 else channels))
    hidden = max(min(256, max(96, 2 * channels)), wire + 8)
    if stride <= 2 or (stride < COARSEST and channels * stride**2 <= LARGEST_PATCH):
        return BottleneckSpec(wire=wire, stride=stride, kernel=2 * stride - 1, hidden=hidden)
    return BottleneckSpec(wire=wire, stride=stride, kernel=3, inner=min(64, 2 * channels), hidden=hidden)
