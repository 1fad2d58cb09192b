"""CNNPC's published tables against a second brute force, written differently; skipped where they are not at hand."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidesplit.agents.cnnpc import pruning, published_tables
from tidesplit.agents.cnnpc.__main__ import main
from tidesplit.agents.cnnpc.published_tables import PUBLISHED
from tidesplit.agents.cnnpc.solve import Infeasible, fastest, most_accurate
from tidesplit.agents.cnnpc.strategies import enumerate_strategies

SETTINGS = [(device, bandwidth) for device in ("MI8", "MI8SE") for bandwidth in ("1", "5", "10")]
FLOORS, BOUNDS_MS = (0.896, 0.885, 0.87, 0.845), (35.0, 40.0, 45.0, 60.0)
Found = tuple[float, float, list[int], list[float], list[str]]


@pytest.fixture(scope="module")
def measured(shared: Path) -> dict[int, dict[int, float]]:
    """Accuracy by block and channels removed, read another way."""
    channels = dict(zip(*PUBLISHED["mobilenet"], strict=True))
    found: dict[int, dict[int, float]] = {block: {0: 0.906} for block in channels}
    with (shared / "cnnpc" / "mobilenet" / "accuracy_top5.csv").open() as file:
        for row in csv.DictReader(file):
            block = int(row["block1"])
            if row["block1"] == row["block2"]:
                found[block][round(float(row["rate1"]) * channels[block])] = float(row["top5_accuracy"])
    return found


def reached(known: dict[int, float], removed: int) -> float | None:
    """Accuracy of one cut by its neighbours in the measured list; None above the last."""
    if removed in known:
        return known[removed]
    if removed > max(known):
        return None
    low, high = max(k for k in known if k < removed), min(k for k in known if k > removed)
    return known[low] + (known[high] - known[low]) * (removed - low) / (high - low)


def one_by_one(folder: Path, known: dict[int, dict[int, float]]) -> Iterator[Found]:
    """Every strategy in plain loops: times are added up stretch by stretch, in the order in which they pass."""
    run, cross = np.load(folder / "T_R.npy").tolist(), np.load(folder / "T_C.npy").tolist()
    blocks, channels = PUBLISHED["mobilenet"]
    last = len(blocks)
    offered = [
        [(k, n, a) for k in range(n) if (a := reached(known[b], k)) is not None]
        for b, n in zip(blocks, channels, strict=True)
    ]

    def running(tier: int, start: int, end: int) -> float:
        return sum(run[stretch][tier] for stretch in range(start, end + 1))

    for i in range(last):
        for k, n, accurate in offered[i]:
            kept = (n - k) / n
            ways = (
                (["end", "edge"], running(0, 0, i) + cross[i + 1][0] * kept + running(1, i + 1, last)),
                (["end", "cloud"], running(0, 0, i) + sum(cross[i + 1]) * kept + running(2, i + 1, last)),
                (["edge", "cloud"], cross[0][0] + running(1, 0, i) + cross[i + 1][1] * kept + running(2, i + 1, last)),
            )
            for tiers, total in ways:
                yield total + 1.66, accurate, [blocks[i]], [k / n], tiers
        for j in range(i + 1, last):
            stretches = running(0, 0, i) + running(1, i + 1, j) + running(2, j + 1, last) + 1.66
            for k, n, accurate in offered[i]:
                for k2, n2, accurate2 in offered[j]:
                    total = stretches + cross[i + 1][0] * (n - k) / n + cross[j + 1][1] * (n2 - k2) / n2
                    both = accurate + accurate2 - 0.906
                    yield total, both, [blocks[i], blocks[j]], [k / n, k2 / n2], ["end", "edge", "cloud"]


def test_number_of_strategies(shared: Path) -> None:
    folder = shared / "cnnpc" / "mobilenet"
    timed = published_tables.load(folder, "MI8", "10")
    found = enumerate_strategies(timed, pruning.load(folder / "accuracy_top5.csv", timed))
    assert len({tuple(row) for row in np.hstack([found.cut, found.removed]).tolist()}) == 69_416
    assert len(found.cut) == 70_264


def test_sum_of_drops_beside_the_measured_accuracies_of_two_cuts(
    shared: Path, measured: dict[int, dict[int, float]]
) -> None:
    channels, missed = dict(zip(*PUBLISHED["mobilenet"], strict=True)), []
    with (shared / "cnnpc" / "mobilenet" / "accuracy_top5.csv").open() as file:
        for row in csv.DictReader(file):
            cuts = [(int(row[f"block{n}"]), float(row[f"rate{n}"])) for n in (1, 2)]
            if cuts[0] != cuts[1]:
                alone = [reached(measured[b], round(rate * channels[b])) or 0.0 for b, rate in cuts]
                missed.append(float(row["top5_accuracy"]) - (sum(alone) - 0.906))
    assert len(missed) == 13
    assert np.abs(missed).mean() == pytest.approx(0.0048, abs=5e-5)
    assert np.abs(missed).max() == pytest.approx(0.0179, abs=5e-5)
    assert np.mean(missed) == pytest.approx(0.0034, abs=5e-5)


@pytest.mark.parametrize(("device", "bandwidth"), SETTINGS)
def test_published_tables_against_plain_loops(
    device: str, bandwidth: str, shared: Path, tmp_path: Path, measured: dict[int, dict[int, float]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Four floors and four bounds a setting: 48 queries in all."""
    folder = shared / "cnnpc" / "mobilenet"
    for name in (f"TR-{device}/T_R.npy", f"TC-20M-{bandwidth}M/T_C.npy"):
        (tmp_path / name.split("/")[1]).write_bytes((folder / name).read_bytes())
    listed = list(one_by_one(tmp_path, measured))
    words = ["--tables", str(folder), "--device", device, "--bandwidth", bandwidth, "--json"]
    words += ["--accuracy", str(folder / "accuracy_top5.csv")]
    for floor in FLOORS:
        best = picked([f for f in listed if f[1] >= floor - 1e-9], lambda f: (-f[0], f[1]))
        assert main([*words, "--A0", str(floor)]) == 0
        same(json.loads(capsys.readouterr().out), best)
    for bound_ms in BOUNDS_MS:
        meets = [f for f in listed if f[0] <= bound_ms + 1e-9]
        assert main([*words, "--T0", str(bound_ms)]) == (0 if meets else 3)
        told = json.loads(capsys.readouterr().out)
        if meets:
            same(told, picked(meets, lambda f: (f[1], -f[0])))
        else:
            assert told["nearest"] == pytest.approx(min(f[0] for f in listed), abs=1e-8)


def picked(meets: list[Found], worth: Callable[[Found], tuple[float, float]]) -> Found:
    """The first of the best by one number, and by the other among those."""
    for place in (0, 1):
        top = max(worth(f)[place] for f in meets)
        meets = [f for f in meets if worth(f)[place] > top - 1e-9]
    return meets[0]


def same(told: dict[str, Any], best: Found) -> None:
    latency_ms, accurate, *rest = told.values()
    assert (latency_ms, accurate) == pytest.approx(best[:2], abs=1e-8)
    assert tuple(rest) == best[2:]


def test_all_48_queries_take_seconds(shared: Path) -> None:
    """Files read and strategies enumerated anew for each; a second is allowed for one."""
    folder = shared / "cnnpc" / "mobilenet"
    begun = time.perf_counter()
    answered = 0
    for device, bandwidth in SETTINGS:
        for demand in (*FLOORS, *BOUNDS_MS):
            timed = published_tables.load(folder, device, bandwidth)
            strategies = enumerate_strategies(timed, pruning.load(folder / "accuracy_top5.csv", timed))
            try:
                (fastest if demand < 1.0 else most_accurate)(strategies, timed, demand)
            except Infeasible as told:
                assert told.nearest > demand  # noqa: PT017  # a latency bound: more would be feasible
            answered += 1
    took_s = time.perf_counter() - begun
    print(f"{answered} queries in {took_s:.2f} s")
    assert answered == 48
    assert took_s < 48.0


def test_resnet_with_ones_own_accuracies(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SYNTHETIC accuracies, of the last cut alone: 0.88 is had by half its channels, after the raw image crossed."""
    text = "block1,rate1,block2,rate2,top5_accuracy\n0,0,0,0,0.9\n16,0.5,16,0.5,0.88\n"
    own = tmp_path / "pruning.csv"
    own.write_text(text)
    words = ["--tables", str(shared / "cnnpc" / "resnet"), "--device", "MI8", "--bandwidth", "10"]
    assert main([*words, "--accuracy", str(own), "--A0", "0.88", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    run = np.load(shared / "cnnpc" / "resnet" / "TR-MI8" / "T_R.npy")
    cross = np.load(shared / "cnnpc" / "resnet" / "TC-20M-10M" / "T_C.npy")
    raw_first = cross[0, 0] + run[:4, 1].sum() + run[4, 2] + 0.5 * cross[4, 1] + 1.66
    assert (told["cuts"], told["rates"], told["tiers"]) == ([16], [0.5], ["edge", "cloud"])
    assert told["latency_ms"] == pytest.approx(raw_first)
