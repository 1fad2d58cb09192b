"""The Pi estimate: estimators on data whose law is known, and the stored constants against the measured tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tidesplit.profiling.devices.raspberry_pi import (
    ERRORS,
    LABEL,
    PI_MACS_PER_S,
    RATIO,
    RATIO_RANGE,
    derivation,
    estimate,
    machine_factor,
    main,
    with_raspberry_pi,
)
from tidesplit.profiling.devices.scission import (
    ESTIMATORS,
    Blocks,
    DataError,
    common_ratio,
    leave_one_net_out,
    read_blocks,
    whole_net_ratios,
)
from tidesplit.profiling.points.profile import DeviceTable, OperatingPoint, Profile, Provenance, Timing, load, save

MEASURED = DeviceTable(
    provenance=Provenance(kind="measured", source="test", machine="x86", n=10),
    timings={
        "device": Timing(head_s=0.010, encode_s=0.0, decode_s=0.0, tail_s=0.0, finish_s=0.0),
        "cut": Timing(head_s=0.004, encode_s=0.001, decode_s=0.002, tail_s=0.006, finish_s=0.007),
    },
)
DEVICE = OperatingPoint(
    id="device",
    partition=2,
    channel_ratio=1.0,
    region_ratio=1.0,
    bits=0,
    codec="none",
    accuracy=0.9,
    accuracy_ci95=(0.88, 0.92),
    bytes_mean=0.0,
    n=100,
    head_macs=400e6,
)
CUT = replace(
    DEVICE, id="cut", partition=1, bits=8, codec="feature", bytes_mean=900.0, head_macs=100e6, fallback="device"
)
PROFILE = Profile(
    name="test",
    partitions=2,
    points=(DEVICE, CUT),
    accuracy_provenance=Provenance(kind="measured", source="test"),
    devices={"x86-2core": MEASURED},
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


def test_estimate_scales_compute_by_both_factors_and_the_codec_by_one() -> None:
    table = estimate(MEASURED, machine_factor=2.0)
    cut = table.timings["cut"]
    assert table.provenance.kind == "estimated"
    assert cut.head_s == pytest.approx(0.004 * RATIO * 2)
    assert cut.tail_s == pytest.approx(0.006 * RATIO * 2)
    assert cut.finish_s == pytest.approx(0.007 * RATIO * 2)
    assert cut.encode_s == pytest.approx(0.001 * RATIO)
    assert cut.decode_s == pytest.approx(0.002 * RATIO)


def test_an_estimate_is_not_made_from_an_estimate() -> None:
    with pytest.raises(ValueError, match="a measured one expected"):
        estimate(estimate(MEASURED))
    with pytest.raises(ValueError, match="a positive number expected"):
        estimate(MEASURED, 0.0)


@pytest.mark.parametrize("kind", PI_MACS_PER_S)
def test_whole_cnn_runs_at_the_published_rate(kind: str) -> None:
    whole = with_raspberry_pi(PROFILE, "x86-2core", kind).devices[LABEL].timings["device"]
    assert whole.head_s == pytest.approx(400e6 / PI_MACS_PER_S[kind])
    assert machine_factor(PROFILE, "x86-2core", kind) * RATIO * 0.010 == pytest.approx(whole.head_s)


def test_a_profile_without_a_whole_net_or_device_says_so() -> None:
    no_macs = replace(PROFILE, points=(replace(DEVICE, head_macs=0.0), CUT))
    with pytest.raises(ValueError, match="no device-only point with head_macs"):
        with_raspberry_pi(no_macs, "x86-2core")
    with pytest.raises(ValueError, match=r"no device .arm., expected one of ..x86-2core"):
        with_raspberry_pi(PROFILE, "arm")


def test_command_adds_the_device_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.json"
    save(PROFILE, path)
    assert main(["--profile", str(path), "--from", "x86-2core", "--machine-factor", "3"]) == 0
    again = load(path)
    assert again.devices[LABEL].provenance.kind == "estimated"
    assert again.devices[LABEL].timings["cut"].head_s == pytest.approx(0.004 * RATIO * 3)
    assert again.devices["x86-2core"] == PROFILE.devices["x86-2core"]
    assert main(["--profile", str(path), "--from", "arm"]) == 2
    assert main(["--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


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
    assert leave_one_net_out(table, ESTIMATORS["one ratio"]) == pytest.approx(ERRORS, abs=1e-3)
    assert "one ratio" in derivation(shared / "device_latency")
