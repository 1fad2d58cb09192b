"""How many times slower a Raspberry Pi 4 is than an x86 machine, from measured block times of the same networks.

The data are Scission's (Lockhart et al., UCC 2020; github.com/qub-blesson/Scission): 18 Keras networks cut into 546
blocks, each timed by itself on every machine. They are not part of this project. `read_blocks` takes them from a folder
with `device-raspi4.csv`, `edge-vm2Core.csv` and the others. Leaving one net out shows which estimator predicts best.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PI = "device-raspi4"
MACHINES = ("edge-vm2Core", "edge-2500", "cloud-6700k_NoGPU")
DEPTHWISE = frozenset({"mobilenet", "mobilenetv2", "nasnetmobile", "nasnetlarge", "xception"})
VM_TICK_S = 15.625e-4
"""Times on edge-vm2Core are multiples of this, from a clock of 15.625 ms over ten runs. Short blocks read 0."""


class DataError(ValueError):
    """A folder that does not hold the timings expected."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of several networks in their order. All arrays are `[N]`, and `net` names the network of each block."""

    net: NDArray[np.str_]
    x86_s: Array
    pi_s: Array
    output_bytes: Array

    def only(self, mask: NDArray[np.bool_]) -> Blocks:
        """The blocks where `mask` `[N]` is True."""
        return Blocks(self.net[mask], self.x86_s[mask], self.pi_s[mask], self.output_bytes[mask])

    def per_net(self, values: Array) -> Array:
        """Sums of `values` `[N]` over each net, in alphabetical order of the nets."""
        _, index = np.unique(self.net, return_inverse=True)
        return np.asarray(np.bincount(index, weights=values), dtype=np.float64)


def read_blocks(folder: Path, machine: str) -> Blocks:
    """Blocks timed both on the Pi and on `machine`.

    Raises:
        DataError: a file is missing, a column is missing, or the two files do not list the same blocks.
    """
    pi, x86 = _read(folder / f"{PI}.csv"), _read(folder / f"{machine}.csv")
    keys = [(row["model"], row["first_layer"], row["last_layer"]) for row in pi]
    if keys != [(row["model"], row["first_layer"], row["last_layer"]) for row in x86]:
        raise DataError(f"{folder}: {PI}.csv and {machine}.csv do not list the same blocks")
    return Blocks(
        net=np.array([row["model"] for row in pi]),
        x86_s=np.array([float(row["time_ms"]) for row in x86]) / 1e3,
        pi_s=np.array([float(row["time_ms"]) for row in pi]) / 1e3,
        output_bytes=np.array([float(row["output_size_raw"]) for row in pi]),
    )


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file, a table of Scission's block times expected")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"model", "first_layer", "last_layer", "time_ms", "output_size_raw"} <= set(rows[0]):
        raise DataError(f"{path}: columns model, first_layer, last_layer, time_ms, output_size_raw expected")
    return rows


def whole_net_ratios(blocks: Blocks) -> dict[str, float]:
    """Pi time over x86 time of every whole network, by its name."""
    ratios = blocks.per_net(blocks.pi_s) / blocks.per_net(blocks.x86_s)
    return dict(zip(np.unique(blocks.net).tolist(), ratios.tolist(), strict=True))


def common_ratio(blocks: Blocks) -> float:
    """Geometric mean of the whole-net ratios. Every net counts alike, and too slow weighs as much as too fast."""
    return float(np.exp(np.mean(np.log(list(whole_net_ratios(blocks).values())))))


Estimator = Callable[[Blocks, Blocks], Array]  # (train, test) -> Pi seconds of the test blocks, shape [N]


def by_ratio(train: Blocks, test: Blocks) -> Array:
    """One ratio for everything."""
    return test.x86_s * common_ratio(train)


def by_kind(train: Blocks, test: Blocks) -> Array:
    """One ratio for nets with depthwise convolutions, another one for the rest."""
    kind = np.isin(train.net, list(DEPTHWISE)) == (str(test.net[0]) in DEPTHWISE)
    return by_ratio(train.only(kind), test)


def by_ratio_and_constant(train: Blocks, test: Blocks) -> Array:
    """A constant for each block and a ratio, fitted to the relative errors of whole nets."""
    pi_s = train.per_net(train.pi_s)
    columns = np.stack([train.per_net(np.ones_like(train.pi_s)), train.per_net(train.x86_s)], axis=1) / pi_s[:, None]
    constant, ratio = np.linalg.lstsq(columns, np.ones_like(pi_s))[0]
    return np.asarray(constant + ratio * test.x86_s)


def by_log_regression(train: Blocks, test: Blocks) -> Array:
    """Log of a block's Pi time from logs of its x86 time and output size. Every net has the same weight."""
    sizes = dict(zip(*np.unique(train.net, return_counts=True), strict=True))
    weight = 1 / np.sqrt([sizes[net] for net in train.net])
    found = np.linalg.lstsq(_log_features(train) * weight[:, None], np.log(train.pi_s) * weight)[0]
    return np.asarray(np.exp(_log_features(test) @ found))


def _log_features(blocks: Blocks) -> Array:
    seen_s = np.maximum(blocks.x86_s, VM_TICK_S / 2)  # a reading of 0 means less than one tick
    return np.stack([np.ones_like(seen_s), np.log(seen_s), np.log(blocks.output_bytes)], axis=1)


ESTIMATORS: dict[str, Estimator] = {
    "one ratio": by_ratio,
    "ratio per kind of net": by_kind,
    "ratio and constant a block": by_ratio_and_constant,
    "log regression, time and size": by_log_regression,
}


class Errors(NamedTuple):
    """Absolute relative errors on nets left out: median and 90th percentile, of whole nets and of all heads."""

    whole_median: float
    whole_p90: float
    heads_median: float
    heads_p90: float


def leave_one_net_out(blocks: Blocks, estimator: Estimator) -> Errors:
    """Errors of `estimator` on each net, fitted to all others. A head's time is the sum of its blocks'."""
    whole, heads = [], []
    for net in np.unique(blocks.net):
        left_out = blocks.net == net
        test = blocks.only(left_out)
        predicted = np.cumsum(estimator(blocks.only(~left_out), test))
        error = np.abs(predicted / np.cumsum(test.pi_s) - 1)
        whole.append(float(error[-1]))
        heads += error.tolist()
    figures = [np.quantile(values, rank) for values in (whole, heads) for rank in (0.5, 0.9)]
    return Errors(*(float(value) for value in figures))
