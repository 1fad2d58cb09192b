"""Scission's estimators on data whose law is known, and its tables where they are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tidesplit.profiling.devices.raspberry_pi import RATIO, RATIO_ERRORS, RATIO_RANGE
from tidesplit.profiling.devices.scission import (
    ESTIMATORS,
    Blocks,
    DataError,
    common_ratio,
    leave_one_net_out,
    read_blocks,
    whole_net_ratios,
)


def blocks(pi_of: str) -> Blocks:
    """Four nets of five blocks; the Pi's time follows a known law of the x86 time t and the output size o."""
    rng = np.random.default_rng(0)
    net = np.repeat(["mobilenet", "resnet", "vgg", "xception"], 5)
    t, o = rng.uniform(0.002, 0.2, 20), rng.uniform(1e4, 1e6, 20)
    deep = np.isin(net, ["mobilenet", "xception"])
    laws = {"ratio": 6 * t, "kind": np.where(deep, 4, 8) * t, "constant": 0.01 + 6 * t, "power": 3 * t**0.8 * o**0.1}
    return Blocks(net, t, laws[pi_of], o)


@pytest.mark.parametrize(
    ("law", "estimator"),
    [
        ("ratio", "one ratio"),
        ("ratio", "ratio and constant a block"),
        ("kind", "ratio per kind of net"),
        ("constant", "ratio and constant a block"),
        ("power", "log regression, time and size"),
    ],
)
def test_an_estimator_finds_its_own_law(law: str, estimator: str) -> None:
    assert max(leave_one_net_out(blocks(law), ESTIMATORS[estimator])) < 1e-9


def test_a_wrong_law_shows_as_error() -> None:
    assert leave_one_net_out(blocks("kind"), ESTIMATORS["one ratio"]).whole_median > 0.2


def test_the_net_left_out_is_not_learnt_from() -> None:
    seen: list[tuple[set[str], set[str]]] = []

    def spy(train: Blocks, test: Blocks) -> np.ndarray:
        seen.append((set(train.net.tolist()), set(test.net.tolist())))
        return test.pi_s

    assert leave_one_net_out(blocks("ratio"), spy) == (0, 0, 0, 0)
    assert len(seen) == 4
    assert all(not train & test and len(test) == 1 for train, test in seen)


def test_ratios_of_a_known_table() -> None:
    table = Blocks(np.array(["a", "b", "a"]), np.array([1.0, 1.0, 3.0]), np.array([2.0, 8.0, 6.0]), np.ones(3))
    assert whole_net_ratios(table) == {"a": 2.0, "b": 8.0}
    assert common_ratio(table) == pytest.approx(4.0)


def test_bad_tables(tmp_path: Path) -> None:
    (tmp_path / "device-raspi4.csv").write_text("model,time_ms\n")
    with pytest.raises(DataError, match="columns model"):
        read_blocks(tmp_path, "edge-vm2Core")
    head = "model,device,first_layer,last_layer,time_ms,output_size_raw\n"
    (tmp_path / "device-raspi4.csv").write_text(head + "net,pi,0,1,5,100\n")
    (tmp_path / "edge-vm2Core.csv").write_text(head + "net,vm,0,2,1,100\n")
    with pytest.raises(DataError, match="do not list the same blocks"):
        read_blocks(tmp_path, "edge-vm2Core")


def test_constants_are_those_of_the_measured_tables(shared: Path) -> None:
    table = read_blocks(shared / "device_latency", "edge-vm2Core")
    ratios = whole_net_ratios(table).values()
    assert len(ratios) == 18
    assert common_ratio(table) == pytest.approx(RATIO, abs=1e-3)
    assert (min(ratios), max(ratios)) == pytest.approx(RATIO_RANGE, abs=1e-3)
    assert leave_one_net_out(table, ESTIMATORS["one ratio"]) == pytest.approx(RATIO_ERRORS, abs=1e-3)
