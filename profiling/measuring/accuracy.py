"""Accuracy and bytes of every operating point on a folder of pictures, through the real codec: bytes out, bytes in.

Pictures are worked on in chunks, in parallel; a finished chunk is kept beside the output, so that an interrupted run
goes on where it stopped. A head runs once for all bit widths and regions; the tails of a partition run as one batch.
Heads run in float32 (what they send must not change), tails in bfloat16 for speed; how far that moves an accuracy from
float32 tails has not been measured.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidesplit.compression.codec.image_codec import decode_image, encode_image
from tidesplit.compression.codec.knobs import RATIOS, Knobs, device_id
from tidesplit.compression.codec.pixels import load_square
from tidesplit.compression.net.deployed_graphs import tail_graph
from tidesplit.compression.net.measure import wilson
from tidesplit.compression.pictures.labelled import Bytes, Ints, list_pictures, scale
from tidesplit.models.graph import Graph
from tidesplit.models.slim import set_of_ratio
from tidesplit.profiling.measuring.trained import IMAGE_POINTS, Trained, load_trained, point_ids

__all__ = ["CHUNK", "Counts", "measure_accuracy"]

CHUNK = 48  # pictures: a few seconds of work, so that little is lost when a run is interrupted


@dataclass
class Counts:
    """Counts of one operating point."""

    n: int = 0
    right: int = 0
    bytes_sum: float = 0.0
    bytes_square: float = 0.0

    def add(self, other: Counts) -> None:
        """Add another chunk's counts."""
        self.n += other.n
        self.right += other.right
        self.bytes_sum += other.bytes_sum
        self.bytes_square += other.bytes_square


def _tally(right: Tensor, sizes: Sequence[int]) -> Counts:
    return Counts(len(right), int(right.sum()), float(sum(sizes)), float(sum(s * s for s in sizes)))


@lru_cache(maxsize=8)
def _tail(name: str, weights: Path | None, partition: int) -> Graph:
    return tail_graph(load_trained(name, weights).system, partition).to(torch.bfloat16)


def _logits(graph: Graph, x: Tensor) -> Tensor:
    """Logits in batches of at most 96, so that the largest activation stays within cache-friendly bounds."""
    parts = [
        graph.run(part.to(torch.bfloat16, memory_format=torch.channels_last))[0].float() for part in torch.split(x, 96)
    ]
    return torch.cat(parts)


def _image_points(graph: Graph, pixels: Bytes, labels: Tensor, wanted: set[str]) -> dict[str, Counts]:
    found: dict[str, Counts] = {}
    for point in IMAGE_POINTS:
        if point.id not in wanted:
            continue
        payloads = [encode_image(image, point.codec, point.quality) for image in pixels]
        seen = np.stack([decode_image(payload, pixels.shape[1]) for payload in payloads])
        found[point.id] = _tally(_logits(graph, scale(seen)).argmax(1) == labels, [len(p) for p in payloads])
    return found


def _cut_points(
    trained: Trained, graph: Graph, y: Tensor, score: Tensor, labels: Tensor, knobs: Iterable[Knobs]
) -> dict[str, Counts]:
    """All wanted bit widths and regions behind one head. `y` `[B, k, h, w]`, `score` `[B, 1, h, w]`."""
    found: dict[str, Counts] = {}
    for point in knobs:
        payloads = [trained.codec.compress(v, s[0], point) for v, s in zip(y, score, strict=True)]
        values = torch.stack([trained.codec.decompress(payload)[0] for payload in payloads])
        found[point.id] = _tally(_logits(graph, values).argmax(1) == labels, [len(p) for p in payloads])
    return found


def _ratio_points(
    name: str, weights: Path | None, ratio: float, image: Tensor, labels: Tensor, wanted: set[str]
) -> dict[str, Counts]:
    """One pass of the network at a ratio: every cut on the way, and the device-only answer at its end."""
    trained = load_trained(name, weights)
    system, net, width_set = trained.system, trained.system.net, set_of_ratio(ratio)
    found: dict[str, Counts] = {}
    feature, start = net.head(image, width_set, 0), 0
    for partition, cut in enumerate(net.cuts, start=1):
        feature, start = net.middle(feature, width_set, start, cut), cut
        chosen = [k for k in trained.knobs if k.partition == partition and k.ratio == ratio and k.id in wanted]
        if chosen:
            y, score = system.bottleneck(partition).encode(feature, width_set)
            found |= _cut_points(trained, _tail(name, weights, partition), y, score, labels, chosen)
    if device_id(ratio) in wanted:
        found[device_id(ratio)] = _tally(net.tail(feature, width_set, start).argmax(1) == labels, [0] * len(labels))
    return found


def _chunk(
    name: str, weights: Path | None, files: list[Path], labels: Ints, wanted: set[str], threads: int
) -> dict[str, Counts]:
    """Counts of the wanted points over a few pictures."""
    torch.set_num_threads(threads)
    trained = load_trained(name, weights)
    pixels = np.stack([load_square(path, trained.system.net.input_px) for path in files])
    truth, image = torch.from_numpy(labels), scale(pixels)
    with torch.inference_mode():
        found = _image_points(_tail(name, weights, 0), pixels, truth, wanted)
        for ratio in RATIOS:
            needed = {i for i in wanted if f"-c{ratio:.2f}" in i}
            if needed:
                found |= _ratio_points(name, weights, ratio, image, truth, needed)
    return found


def _rows(trained: Trained, tallies: dict[str, Counts]) -> list[dict[str, Any]]:
    """Report rows in the order of the points."""
    by_id: dict[str, tuple[int, float, float, int]] = {
        k.id: (k.partition, k.ratio, k.region, k.bits) for k in trained.knobs
    }
    by_id |= {p.id: (0, 1.0, 1.0, p.quality) for p in IMAGE_POINTS}
    by_id |= {device_id(r): (trained.system.net.partitions, r, 1.0, 0) for r in RATIOS}
    rows = []
    for point_id, one in tallies.items():
        partition, ratio, region, bits = by_id[point_id]
        mean = one.bytes_sum / one.n
        rows.append(
            {
                "id": point_id, "partition": partition, "channel_ratio": ratio, "region_ratio": region, "bits": bits,
                "accuracy": one.right / one.n, "accuracy_ci95": list(wilson(one.right, one.n)),
                "bytes_mean": mean, "bytes_std": math.sqrt(max(0.0, one.bytes_square / one.n - mean * mean)),
                "n": one.n,
            }
        )  # fmt: skip
    return rows


def _choose(limit: int, files: list[Path], labels: Ints) -> tuple[list[Path], Ints]:
    """The first `limit` pictures of a fixed shuffle, so that a limited run still sees every class alike."""
    order = np.random.default_rng(0).permutation(len(files))[: limit or None]
    return [files[i] for i in order], labels[order]


def measure_accuracy(
    name: str, images: Path, points: Sequence[str], limit: int, partial: Path, jobs: int, ray: str | None,
    weights: Path | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of the wanted points (all when `points` is empty). Finished chunks are appended to `partial`."""
    from tidesplit.profiling.measuring.spread import run_chunks

    trained = load_trained(name, weights)
    wanted = list(points) or point_ids(trained)
    unknown = sorted(set(wanted) - set(point_ids(trained)))
    if unknown:
        example = trained.knobs[0].id
        raise ValueError(f"{name} has no operating point {unknown[0]!r}; it has, for example, {example!r}")
    files, labels, classes = list_pictures(images)
    if classes != trained.classes:
        odd = sorted(set(classes) ^ set(trained.classes))[:3]
        raise ValueError(f"{images} has other classes than {name} was trained on, for example {odd}")
    files, labels = _choose(limit, files, labels)
    key = hashlib.sha256(json.dumps([trained.sha256, sorted(wanted), [str(f) for f in files]]).encode()).hexdigest()
    spans = [(i, min(i + CHUNK, len(files))) for i in range(0, len(files), CHUNK)]
    threads = max(1, (torch.get_num_threads() or 1) // max(1, jobs))
    arguments = [(name, weights, files[a:b], labels[a:b], set(wanted), threads) for a, b in spans]
    totals: dict[str, Counts] = defaultdict(Counts)
    for found in run_chunks(_chunk_plain, arguments, partial, key, jobs, ray):
        for point_id, one in found.items():
            totals[point_id].add(Counts(int(one["n"]), int(one["right"]), one["bytes_sum"], one["bytes_square"]))
    return _rows(trained, {i: totals[i] for i in wanted})


def _chunk_plain(*arguments: Any) -> dict[str, dict[str, float]]:
    """A chunk's counts as plain values, fit for the file of finished chunks."""
    return {point_id: asdict(one) for point_id, one in _chunk(*arguments).items()}
