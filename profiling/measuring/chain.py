"""Accuracy of two cuts in a row on a folder of pictures, through the real codec twice: for three tiers.

The first head runs at its ratio, its payload is decoded, the CNN runs on to the second cut (from a picture: the whole
head), is encoded again at full ratio, as the middle of three tiers does, decoded, and the last tail answers. What the
second cut loses is counted on the pictures on which the first cut alone is measured too, so that a sample of some
hundreds tells it to within a point or so.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tidesplit.compression.codec.image_codec import decode_image, encode_image
from tidesplit.compression.codec.pixels import load_square
from tidesplit.compression.net.deployed_graphs import head_graph, middle_graph
from tidesplit.compression.net.measure import wilson
from tidesplit.compression.pictures.labelled import Bytes, Ints, list_pictures, scale
from tidesplit.models.graph import Graph
from tidesplit.profiling.measuring.accuracy import CHUNK, Counts, _choose, _logits, _tail, _tally
from tidesplit.profiling.measuring.trained import IMAGE_POINTS, Trained, load_trained
from tidesplit.profiling.points.profile import Chain, ChainTable, Profile, Provenance


def measure_chains(
    name: str,
    images: Path,
    pairs: Sequence[tuple[str, str]],
    limit: int,
    partial: Path,
    jobs: int,
    weights: Path | None = None,
) -> list[Chain]:
    """Measure the pairs on the first ``limit`` pictures of a fixed shuffle (0: all); chunks are kept in ``partial``.

    Raises:
        ValueError: a point that the CNN does not have, a second cut before the first or below full ratio, or pictures
            of other classes.
    """
    from tidesplit.profiling.measuring.spread import run_chunks

    trained = load_trained(name, weights)
    check(trained, pairs)
    files, labels, classes = list_pictures(images)
    if classes != trained.classes:
        raise ValueError(f"{images} has other classes than {name} was trained on")
    files, labels = _choose(limit, files, labels)
    key = hashlib.sha256(json.dumps([trained.sha256, sorted(pairs), [str(f) for f in files]]).encode()).hexdigest()
    threads = max(1, (torch.get_num_threads() or 1) // max(1, jobs))
    spans = [slice(i, i + CHUNK) for i in range(0, len(files), CHUNK)]
    arguments = [(name, weights, files[s], labels[s], list(pairs), threads) for s in spans]
    totals: dict[str, Counts] = defaultdict(Counts)
    for found in run_chunks(_chunk, arguments, partial, key, jobs, None):
        for point, tally in found.items():
            totals[point].add(Counts(int(tally["n"]), int(tally["right"]), tally["bytes_sum"], tally["bytes_square"]))
    return [_chain(one, two, totals[one], totals[f"{one}>{two}"]) for one, two in pairs]


def chain_table(name: str, chains: Sequence[Chain], machine: str) -> ChainTable:
    """The pairs with where they come from."""
    n = min(chain.n for chain in chains)
    source = f"tidesplit profile chain --profile {name}"
    provenance = Provenance(kind="measured", source=source, machine=machine, n=n, spread="wilson 95 %")
    return ChainTable(provenance=provenance, chains=tuple(chains))


def check(trained: Trained, pairs: Sequence[tuple[str, str]]) -> None:
    """Refuse pairs that cannot be run, in one sentence."""
    knobs = {k.id: k for k in trained.knobs}
    firsts = {**{p.id: 0 for p in IMAGE_POINTS}, **{i: k.partition for i, k in knobs.items()}}
    for one, two in pairs:
        if one not in firsts or two not in knobs:
            raise ValueError(f"{one}>{two}: a picture or an inner cut expected, and an inner cut behind it")
        if knobs[two].partition <= firsts[one] or knobs[two].ratio != 1.0:
            raise ValueError(f"{one}>{two}: the second cut is to lie behind the first, at ratio 1.00")


def assumption(profile: Profile, chains: Sequence[Chain]) -> str:
    """How far the assumption that drops add up is from what was measured, in one line."""
    uncut = max((p for p in profile.points if p.codec == "none"), key=lambda p: p.channel_ratio).accuracy
    off = np.array([(uncut - profile.point(c.second).accuracy) - c.lost for c in chains])
    return (
        f"if drops added up: {np.abs(off).mean():.4f} off in the mean, {np.abs(off).max():.4f} at most, "
        f"{(off < 0).sum()} of {len(off)} too hopeful"
    )


def _chain(one: str, two: str, alone: Counts, both: Counts) -> Chain:
    mean = both.bytes_sum / both.n
    return Chain(
        first=one,
        second=two,
        accuracy=both.right / both.n,
        accuracy_ci95=wilson(both.right, both.n),
        lost=(alone.right - both.right) / both.n,
        bytes_mean=mean,
        bytes_std=math.sqrt(max(0.0, both.bytes_square / both.n - mean * mean)),
        n=both.n,
    )


def _chunk(
    name: str, weights: Path | None, files: list[Path], labels: Ints, pairs: list[tuple[str, str]], threads: int
) -> dict[str, dict[str, float]]:
    """Counts of first cuts alone and of pairs over a few pictures, as plain values."""
    torch.set_num_threads(threads)
    trained, truth = load_trained(name, weights), torch.from_numpy(labels)
    pixels = np.stack([load_square(path, trained.system.net.input_px) for path in files])
    seconds: dict[str, list[str]] = defaultdict(list)
    for one, two in pairs:
        seconds[one].append(two)
    found: dict[str, Counts] = {}
    with torch.inference_mode():
        for one, arrived, partition, sizes in _arrived(trained, pixels, set(seconds)):
            right = _logits(_tail(name, weights, partition), arrived).argmax(1) == truth
            found[one] = _tally(right, sizes)
            for two, later, values, onward in _again(name, weights, arrived, partition, seconds[one]):
                right = _logits(_tail(name, weights, later), values).argmax(1) == truth
                found[f"{one}>{two}"] = _tally(right, onward)
    return {point: asdict(tally) for point, tally in found.items()}


def _arrived(trained: Trained, pixels: Bytes, wanted: set[str]) -> Iterator[tuple[str, Tensor, int, list[int]]]:
    """Each first cut: what the edge server has decoded (a picture, or values), its partition, bytes of the payloads."""
    for point in (p for p in IMAGE_POINTS if p.id in wanted):
        sent = [encode_image(image, point.codec, point.quality) for image in pixels]
        seen = scale(np.stack([decode_image(payload, pixels.shape[1]) for payload in sent]))
        yield point.id, seen, 0, [len(payload) for payload in sent]
    image, system = scale(pixels), trained.system
    for knobs in (k for k in trained.knobs if k.id in wanted):
        _, y, score = system.head(image, knobs.partition, knobs.ratio)
        sent = [trained.codec.compress(v, s[0], knobs) for v, s in zip(y, score, strict=True)]
        values = torch.stack([trained.codec.decompress(payload)[0] for payload in sent])
        yield knobs.id, values, knobs.partition, [len(payload) for payload in sent]


def _again(
    name: str, weights: Path | None, arrived: Tensor, partition: int, wanted: Sequence[str]
) -> Iterator[tuple[str, int, Tensor, list[int]]]:
    """Each second cut: its partition, what the cloud has decoded, and bytes of the payloads."""
    trained = load_trained(name, weights)
    knobs = [k for k in trained.knobs if k.id in wanted]
    for later in sorted({k.partition for k in knobs}):
        _, y, score = _middle(name, weights, partition, later).run(arrived)
        for point in (k for k in knobs if k.partition == later):
            sent = [trained.codec.compress(v, s[0], point) for v, s in zip(y, score, strict=True)]
            values = torch.stack([trained.codec.decompress(payload)[0] for payload in sent])
            yield point.id, later, values, [len(payload) for payload in sent]


@lru_cache(maxsize=24)
def _middle(name: str, weights: Path | None, first: int, second: int) -> Graph:
    """What the edge server runs: from a picture a head at full ratio."""
    system = load_trained(name, weights).system
    return head_graph(system, second, 1.0) if first == 0 else middle_graph(system, first, second)
