"""Accuracy of two consecutive cuts on a folder of pictures, through the real codec twice. Three tiers need it.

The device runs the first head and sends its payload. The middle server decodes it, runs the CNN on to the second cut,
and encodes the values there at full ratio. (From a picture it runs the whole head.) The server decodes them and
answers. The loss of the second cut is counted against the first cut on the same pictures. So some hundreds of
pictures give it to within about a point.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from tidesplit.compression.pictures.labelled import Bytes, scale
from tidesplit.profiling.measuring.counts import Counts, count, right, tail_of
from tidesplit.profiling.measuring.trained import Trained, load_trained
from tidesplit.profiling.points.profile import Chain, ChainTable, Profile, Provenance


def measure_chains(
    name: str, images: Path, pairs: Sequence[tuple[str, str]], limit: int, partial: Path, jobs: int,
    weights: Path | None = None,
) -> list[Chain]:  # fmt: skip
    """Measure the pairs of point ids. The other arguments are those of `count`.

    Raises:
        ValueError: a point that the CNN does not have, a second cut before the first or below full ratio, or pictures
            of other classes.
    """
    check(load_trained(name, weights), pairs)
    counts = count(_pairs, name, weights, images, pairs, limit, partial, jobs)
    return [_chain(one, two, counts[one], counts[f"{one}>{two}"]) for one, two in pairs]


def chain_table(name: str, chains: Sequence[Chain], machine: str) -> ChainTable:
    """The pairs with their provenance."""
    n = min(chain.n for chain in chains)
    source = f"tidesplit profile chain --profile {name}"
    provenance = Provenance(kind="measured", source=source, machine=machine, n=n, spread="wilson 95 %")
    return ChainTable(provenance=provenance, chains=tuple(chains))


def check(trained: Trained, pairs: Sequence[tuple[str, str]]) -> None:
    """Raise ValueError at the first pair that cannot be run."""
    knobs = {k.id: k for k in trained.knobs}
    firsts = {**{p.id: 0 for p in trained.image_points}, **{i: k.partition for i, k in knobs.items()}}
    for one, two in pairs:
        if one not in firsts or two not in knobs:
            raise ValueError(f"{one}>{two}: a picture or an inner cut expected, and an inner cut behind it")
        if knobs[two].partition <= firsts[one] or knobs[two].ratio != 1.0:
            raise ValueError(f"{one}>{two}: a second cut behind the first expected, at ratio 1.00")


def assumption(profile: Profile, chains: Sequence[Chain]) -> str:
    """One line on the error of the assumption that the losses of two cuts add up."""
    uncut = max((p for p in profile.points if p.codec == "none"), key=lambda p: p.channel_ratio).accuracy
    off = np.array([(uncut - profile.point(c.second).accuracy) - c.lost for c in chains])
    return (
        f"if losses added up: {np.abs(off).mean():.4f} off in the mean, {np.abs(off).max():.4f} at most, "
        f"{(off < 0).sum()} of {len(off)} too hopeful"
    )


def _chain(one: str, two: str, alone: Counts, both: Counts) -> Chain:
    return Chain(first=one, second=two, lost=(alone.right - both.right) / both.n, **both.columns())


def _pairs(
    name: str, weights: Path | None, pixels: Bytes, labels: Tensor, pairs: list[tuple[str, str]]
) -> dict[str, Counts]:
    """Counts of first cuts, by id, and of pairs, by both ids with a ">" between."""
    seconds: dict[str, list[str]] = defaultdict(list)
    for one, two in pairs:
        seconds[one].append(two)
    found: dict[str, Counts] = {}
    for one, arrived, partition, sizes in _arrived(load_trained(name, weights), pixels, set(seconds)):
        found[one] = Counts.of(right(tail_of(name, weights, partition), arrived, labels), sizes)
        for two, later, values, second_sizes in _again(name, weights, arrived, partition, seconds[one]):
            found[f"{one}>{two}"] = Counts.of(right(tail_of(name, weights, later), values, labels), second_sizes)
    return found


def _arrived(trained: Trained, pixels: Bytes, wanted: set[str]) -> Iterator[tuple[str, Tensor, int, list[int]]]:
    """Each first cut: its id, the picture or values that the middle server decodes, its partition, bytes sent."""
    for point in (p for p in trained.image_points if p.id in wanted):
        seen, sizes = point.cross(pixels)
        yield point.id, seen, 0, sizes
    image, system = scale(pixels), trained.system
    for knobs in (k for k in trained.knobs if k.id in wanted):
        _, y, score = system.head(image, knobs.partition, knobs.ratio)
        values, sizes = trained.cross(y, score, knobs)
        yield knobs.id, values, knobs.partition, sizes


def _again(
    name: str, weights: Path | None, arrived: Tensor, partition: int, wanted: Sequence[str]
) -> Iterator[tuple[str, int, Tensor, list[int]]]:
    """Each second cut: its id, its partition, the values that the server decodes, bytes sent."""
    trained = load_trained(name, weights)
    knobs = [k for k in trained.knobs if k.id in wanted]
    for later in sorted({k.partition for k in knobs}):
        _, y, score = trained.system.middle(arrived, partition, later)
        for point in (k for k in knobs if k.partition == later):
            values, sizes = trained.cross(y, score, point)
            yield point.id, later, values, sizes
