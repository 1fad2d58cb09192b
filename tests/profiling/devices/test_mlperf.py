"""Fit and errors on rows whose law is known, and the constants against MLPerf's rows where they are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tidesplit.compression.codec.knobs import PRECISIONS
from tidesplit.compression.net.cnn_work import CnnWork
from tidesplit.profiling.devices import boards
from tidesplit.profiling.devices.mlperf import (
    ESTIMATORS,
    FILE,
    MlperfRow,
    Rates,
    busy_watts,
    fit_rates,
    jitter,
    leave_one_family_out,
    read_rows,
    select,
)
from tidesplit.profiling.devices.scission import DataError

FAMILIES = ("EfficientNet-Lite", "MobileNetV1", "MobileNetV2", "ResNet")


def rows(law: str) -> list[MlperfRow]:
    """Four families of different sizes. Seconds follow a known law of multiply-accumulates m and values v."""
    rng, found = np.random.default_rng(0), []
    for family, count in zip(FAMILIES, (3, 9, 5, 2), strict=True):
        for m, v in zip(rng.uniform(1e7, 4e9, count), rng.uniform(1e6, 5e7, count), strict=True):
            seconds = {
                "both": 1e-10 * m + 2e-9 * v,
                "rate": 2e-10 * m,
                "constant": 0.01 + 1e-10 * m,
                "power": 1e-8 * m**0.8,
            }
            found.append(
                MlperfRow(
                    "v2.0", "tflite", "net", family, "float32", CnnWork(m, v), seconds[law], seconds[law] * 1.5, 5.0
                )
            )
    return found


@pytest.mark.parametrize(
    ("law", "estimator"),
    [
        ("both", "macs and values"),
        ("rate", "macs and values"),
        ("rate", "one rate"),
        ("rate", "constant and rate"),
        ("constant", "constant and rate"),
        ("power", "power of macs"),
    ],
)
def test_an_estimator_finds_its_own_law(law: str, estimator: str) -> None:
    assert max(leave_one_family_out(rows(law), ESTIMATORS[estimator])[:2]) < 1e-9


def test_a_wrong_law_shows_as_error() -> None:
    assert leave_one_family_out(rows("power"), ESTIMATORS["one rate"]).median > 0.1


def test_the_former_rates_are_never_fitted() -> None:
    errors = leave_one_family_out(rows("rate"), ESTIMATORS["before: fixed rates"])
    assert errors.median == pytest.approx(abs(1.36 / 4.4e9 / 2e-10 - 1))
    assert errors.n == 19


def test_the_family_left_out_is_not_learnt_from() -> None:
    seen: list[tuple[set[str], set[str]]] = []

    def spy(train: Sequence[MlperfRow], test: Sequence[MlperfRow]) -> np.ndarray:
        seen.append(({row.family for row in train}, {row.family for row in test}))
        return np.array([row.median_s for row in test])

    assert leave_one_family_out(rows("rate"), spy) == (0, 0, 19)
    assert len(seen) == 4
    assert all(not train & test and len(test) == 1 for train, test in seen)


def test_rates_are_never_negative() -> None:
    falling = [row for row in rows("rate") if row.family != "ResNet"]
    made = [MlperfRow(**{**vars(r), "median_s": 1e-9 * r.work.values - 1e-13 * r.work.macs}) for r in falling]
    rates = fit_rates([row for row in made if row.median_s > 0])
    assert min(rates) == 0.0
    assert max(rates) > 0.0


def test_seconds_of_known_rates() -> None:
    assert Rates(2.0, 3.0).seconds(CnnWork(5.0, 7.0)) == 31.0


def test_jitter_is_the_spread_of_a_log_normal() -> None:
    """p99 of a log-normal lies exp(2.326 sigma) above its median."""
    assert jitter(rows("rate"), "float32") == pytest.approx(np.log(1.5) / 2.3263, rel=1e-4)


def test_rows_are_read_and_chosen(tmp_path: Path) -> None:
    head = "round,division,submitter,system,model,median_ms,mean_ms,p90_ms,p99_ms,min_ms,top1_percent,mean_watts,mj\n"
    lines = [
        "v2.0,open,Krai,rpi4-armnn-v21.11-neon,mobilenet-v1-1.0-224-quantized,30,31,32,45,29,70,5.5,165",
        "v1.0,open,Krai,rpi4coral-fan.on-armnn-v21.02-neon,mobilenet-v1-1.0-224-quantized,90,91,92,93,89,70,6.5,600",
        "v2.1,open,Krai,rpi4-tflite-v2.7.1-ruy,mobilenet-v1-1.0-224-non-quantized,66,67,68,90,64,70,,",
        "v0.7,open,dividiti,rpi4coral-tflite-for.coral-edgetpu,ssd-mobilenet-v1-edgetpu,18,19,20,21,17,,,",
    ]
    (tmp_path / FILE).write_text(head + "\n".join(lines) + "\n")
    found = read_rows(tmp_path)
    assert [(r.engine, r.precision, r.watts) for r in found] == [("armnn", "int8", 5.5), ("tflite", "float32", None)]
    assert found[1].median_s == pytest.approx(0.066)
    assert select(found, "tflite", "float32") == found[1:]
    assert busy_watts(found) == 5.5


def test_bad_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path)
    (tmp_path / FILE).write_text("model,median_ms\nresnet50,1\n")
    with pytest.raises(DataError, match="columns round, system"):
        read_rows(tmp_path)


@pytest.fixture(scope="module")
def measured(shared: Path) -> list[MlperfRow]:
    return read_rows(shared / "device_latency")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_constants_are_those_of_the_rows(measured: list[MlperfRow], precision: str) -> None:
    chosen = select(measured, "tflite", precision)
    assert fit_rates(chosen) == pytest.approx(boards.RATES[precision], rel=1e-3)
    errors = leave_one_family_out(chosen, ESTIMATORS["macs and values"])
    assert errors == pytest.approx(boards.ERRORS[precision], abs=1e-3)
    assert jitter(measured, precision) == pytest.approx(boards.JITTER[precision], abs=1e-3)


def test_watts_are_those_of_the_rows(measured: list[MlperfRow]) -> None:
    assert busy_watts(measured) == pytest.approx(boards.BUSY_W["any"], abs=0.01)
    assert busy_watts(measured, "tflite") == pytest.approx(boards.BUSY_W["tflite"], abs=0.01)


def test_factor_of_ncnn_is_that_of_its_list_and_the_rows(measured: list[MlperfRow]) -> None:
    def tflite(model: str) -> float:
        return float(np.median([r.median_s for r in measured if r.model == model and r.engine == "tflite"])) * 1e3

    v1, v2 = tflite("mobilenet-v1-1.0-224-non-quantized"), tflite("mobilenet-v2-1.0-224-non-quantized")
    v3 = tflite("mobilenet-v3-large_224_1.0_float")
    assert (72.1 * 72.6 * 56.3 / (v1 * v2 * v3)) ** (1 / 3) == pytest.approx(boards.NCNN["float32"], rel=0.002)
    assert 40.3 / tflite("mobilenet-v1-1.0-224-quantized") == pytest.approx(boards.NCNN["int8"], rel=0.002)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_law_chosen_predicts_best(measured: list[MlperfRow], precision: str) -> None:
    chosen = select(measured, "tflite", precision)
    errors = {name: leave_one_family_out(chosen, estimator) for name, estimator in ESTIMATORS.items()}
    assert min(errors, key=lambda name: errors[name].median) == "macs and values"
    assert min(errors, key=lambda name: errors[name].p90) == "macs and values"
    assert errors["macs and values"].median < 0.5 * errors["before: fixed rates"].median


@pytest.mark.parametrize("precision", PRECISIONS)
def test_this_very_net_is_within_a_tenth(measured: list[MlperfRow], precision: str) -> None:
    lite0 = [r for r in select(measured, "tflite", precision) if r.model.startswith("efficientnet-lite0")]
    seconds = boards.RATES[precision].seconds(lite0[0].work)
    assert seconds == pytest.approx(np.median([row.median_s for row in lite0]), rel=0.1)
