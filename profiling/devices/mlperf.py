"""Seconds of a CNN on a Raspberry Pi 4, fitted to MLCommons' MLPerf Inference results v0.7 to v3.0 (Apache-2.0).

The rows are single-stream results on 4 threads of a real Pi 4, by dividiti and Krai: public CNNs in TensorFlow Lite
and ArmNN, float32 and 8-bit integers. They are not part of this project. `read_rows` takes them from a folder with
`rpi4_mlperf.csv`. Leaving one family of CNNs out shows which estimator predicts best.

    seconds = macs * seconds_per_mac + values * seconds_per_value

The values that convolutions read and write make narrow CNNs slow: they fall less with the width than the
multiply-accumulates do. The two coefficients are fitted to relative errors. Each family has the same weight.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidesplit.compression.codec.knobs import Precision
from tidesplit.compression.net.cnn_work import CnnWork
from tidesplit.profiling.devices.public_nets import public_net
from tidesplit.profiling.devices.scission import DataError

Array = NDArray[np.float64]

FILE = "rpi4_mlperf.csv"
ENGINES = ("tflite", "armnn")
BARE = ("v2.0", "v2.1", "v3.0")  # rounds of a Pi without fan and Coral stick, whose watts the others include
FORMER_MACS_PER_S = {True: 4.4e9 / 1.36, False: 10.3e9 / 2.2}
"""The fixed rates that this project assumed before, for nets with depthwise convolutions and for others."""


@dataclass(frozen=True)
class MlperfRow:
    """One result. Times are in seconds. ``watts``: of the whole board, None where they were not measured."""

    round: str
    engine: str
    model: str
    family: str
    precision: Precision
    work: CnnWork
    median_s: float
    p99_s: float
    watts: float | None


def read_rows(folder: Path) -> list[MlperfRow]:
    """Results of CNNs that `public_net` knows. ArmNN's integers before v2.0 are left out: they had no fast kernels.

    Raises:
        DataError: the file is missing, or has other columns.
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"{path}: no such file, MLPerf's results on a Raspberry Pi 4 expected")
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    if not found or not {"round", "system", "model", "median_ms", "p99_ms", "mean_watts"} <= set(found[0]):
        raise DataError(f"{path}: columns round, system, model, median_ms, p99_ms, mean_watts expected")
    rows = [row for line in found if (row := _row(line)) is not None]
    return [r for r in rows if not (r.engine == "armnn" and r.precision == "int8" and r.round < "v2")]


def _row(line: dict[str, str]) -> MlperfRow | None:
    net, engine = public_net(line["model"]), next((e for e in ENGINES if e in line["system"]), None)
    if net is None or engine is None:
        return None
    watts = float(line["mean_watts"]) if line["mean_watts"] else None
    return MlperfRow(
        line["round"], engine, line["model"], net.family, net.precision, net.work,
        float(line["median_ms"]) / 1e3, float(line["p99_ms"]) / 1e3, watts,
    )  # fmt: skip


def select(rows: Sequence[MlperfRow], engine: str, precision: Precision) -> list[MlperfRow]:
    """The rows of one engine and precision."""
    return [row for row in rows if (row.engine, row.precision) == (engine, precision)]


class Rates(NamedTuple):
    """Seconds for each multiply-accumulate, and for each value that a convolution reads or writes."""

    per_mac: float
    per_value: float

    def seconds(self, work: CnnWork) -> float:
        """Time of one run."""
        return work.macs * self.per_mac + work.values * self.per_value


def fit_rates(rows: Sequence[MlperfRow]) -> Rates:
    """The rates with the smallest squared relative errors, every family with the same weight."""
    macs, values = (float(x) for x in _least_squares(rows, [[row.work.macs, row.work.values] for row in rows]))
    return Rates(macs, values)


Estimator = Callable[
    [Sequence[MlperfRow], Sequence[MlperfRow]], Array
]  # (train, test) -> seconds of the test rows, shape [N]


def by_former_rates(_train: Sequence[MlperfRow], test: Sequence[MlperfRow]) -> Array:
    """What this project assumed before: one rate for each kind of net, taken from other sources and never fitted."""
    return np.array([row.work.macs / FORMER_MACS_PER_S[row.family != "ResNet"] for row in test])


def by_one_rate(train: Sequence[MlperfRow], test: Sequence[MlperfRow]) -> Array:
    """Seconds in proportion to multiply-accumulates: the geometric mean of the families' rates."""
    weight = _weights(train) ** 2
    rate = np.exp(np.average([np.log(row.median_s / row.work.macs) for row in train], weights=weight))
    return np.array([row.work.macs * rate for row in test])


def by_constant_and_rate(train: Sequence[MlperfRow], test: Sequence[MlperfRow]) -> Array:
    """A constant and multiply-accumulates."""
    constant, rate = _least_squares(train, [[1.0, row.work.macs] for row in train])
    return np.array([constant + row.work.macs * rate for row in test])


def by_power(train: Sequence[MlperfRow], test: Sequence[MlperfRow]) -> Array:
    """A power of the multiply-accumulates."""
    weight = _weights(train)
    columns = np.array([[1.0, np.log(row.work.macs)] for row in train])
    found = np.linalg.lstsq(columns * weight[:, None], np.log([row.median_s for row in train]) * weight)[0]
    return np.asarray(np.exp(np.array([[1.0, np.log(row.work.macs)] for row in test]) @ found))


def by_macs_and_values(train: Sequence[MlperfRow], test: Sequence[MlperfRow]) -> Array:
    """Multiply-accumulates and values: `fit_rates`."""
    rates = fit_rates(train)
    return np.array([rates.seconds(row.work) for row in test])


ESTIMATORS: dict[str, Estimator] = {
    "before: fixed rates": by_former_rates,
    "one rate": by_one_rate,
    "constant and rate": by_constant_and_rate,
    "power of macs": by_power,
    "macs and values": by_macs_and_values,
}


class FitErrors(NamedTuple):
    """Absolute relative errors on families left out: median, 90th percentile, number of rows."""

    median: float
    p90: float
    n: int


def leave_one_family_out(rows: Sequence[MlperfRow], estimator: Estimator) -> FitErrors:
    """Errors of `estimator` on each family, fitted to all others."""
    errors: list[float] = []
    for family in _families(rows):
        test = [row for row in rows if row.family == family]
        seconds = estimator([row for row in rows if row.family != family], test)
        errors += np.abs(seconds / np.array([row.median_s for row in test]) - 1).tolist()
    return FitErrors(float(np.median(errors)), float(np.quantile(errors, 0.9)), len(errors))


def jitter(rows: Sequence[MlperfRow], precision: Precision) -> float:
    """Median over the bare Pi's rows of the log-normal spread at which p99 lies where it was measured."""
    chosen = [row for row in rows if row.precision == precision and row.round in BARE]
    return float(np.median([np.log(row.p99_s / row.median_s) for row in chosen]) / NormalDist().inv_cdf(0.99))


def busy_watts(rows: Sequence[MlperfRow], engine: str | None = None) -> float:
    """Median watts of a bare board while it runs a CNN on 4 threads. None: over all engines."""
    found = [r.watts for r in rows if r.watts and r.round in BARE and engine in (None, r.engine)]
    return float(np.median(found))


def _families(rows: Sequence[MlperfRow]) -> list[str]:
    return sorted({row.family for row in rows})


def _weights(rows: Sequence[MlperfRow]) -> Array:
    """Square roots of the rows' weights, so that every family weighs the same. Shape `[N]`."""
    families = [row.family for row in rows]
    return np.array([1 / np.sqrt(families.count(family)) for family in families])


def _least_squares(rows: Sequence[MlperfRow], columns: Sequence[Sequence[float]]) -> Array:
    """Coefficients of two columns `[N, 2]`, none negative, with the smallest weighted squares of relative errors."""
    weight = _weights(rows)
    matrix = np.array(columns) * (weight / np.array([row.median_s for row in rows]))[:, None]
    found = np.asarray(np.linalg.lstsq(matrix, weight)[0], dtype=np.float64)
    for left, right in ((0, 1), (1, 0)):  # where one is negative, the other is fitted without it
        if found[left] < 0:
            found[left], found[right] = 0.0, matrix[:, right] @ weight / (matrix[:, right] @ matrix[:, right])
    return found
