"""The estimated tables of Raspberry Pi boards: known answers on a small made-up profile, and the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tidesplit.compression.net.cnn_work import CnnWork
from tidesplit.profiling.devices.boards import BOARDS, JITTER, LITE0, NCNN, ONNX, RATES
from tidesplit.profiling.devices.derivation import derivation
from tidesplit.profiling.devices.public_nets import public_net
from tidesplit.profiling.devices.raspberry_pi import (
    RATIO,
    X86_LOOP_S,
    estimate,
    main,
    values_of,
    with_boards,
)
from tidesplit.profiling.points.profile import DeviceTable, OperatingPoint, Profile, Provenance, Timing, load, save

DEVICE = OperatingPoint(
    id="device-c1.00",
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
HALF = replace(DEVICE, id="device-c0.50", channel_ratio=0.5, head_macs=200e6)
HALF_INT8 = replace(HALF, id="device-c0.50-i8", precision="int8")
CUT = replace(
    HALF, id="cut", partition=1, bits=8, codec="feature", bytes_mean=900.0, head_macs=50e6, fallback="device-c0.50"
)
CUT_INT8 = replace(CUT, id="cut-i8", precision="int8", fallback="device-c0.50-i8")
PICTURE = replace(
    DEVICE, id="picture", partition=0, bits=75, codec="jpeg", bytes_mean=9000.0, head_macs=0.0, fallback="device-c0.50"
)
IDLE = Timing(head_s=0.0, encode_s=0.0, decode_s=0.0, tail_s=0.0, finish_s=0.0)
MEASURED = DeviceTable(
    provenance=Provenance(kind="measured", source="test", machine="x86", n=10),
    timings={
        "device-c1.00": replace(IDLE, head_s=0.010),
        "device-c0.50": replace(IDLE, head_s=0.006),
        "device-c0.50-i8": replace(IDLE, head_s=0.002),
        "cut": Timing(head_s=0.0015, encode_s=0.001, decode_s=0.002, tail_s=0.0075, finish_s=0.0045),
        "cut-i8": Timing(head_s=0.001, encode_s=0.001, decode_s=0.002, tail_s=0.0075, finish_s=0.0005),
        "picture": Timing(head_s=0.0, encode_s=0.001, decode_s=0.002, tail_s=0.010, finish_s=0.006),
    },
)
PROFILE = Profile(
    name="cifar_resnet",
    partitions=2,
    points=(DEVICE, HALF, HALF_INT8, CUT, CUT_INT8, PICTURE),
    accuracy_provenance=Provenance(kind="measured", source="test"),
    devices={"x86-2core": MEASURED},
    cnn={"classes": 10},
)
VALUES = {1.0: 12e6, 0.5: 8e6}
PI = BOARDS["raspberry-pi-4"]


def whole_s(macs: float, ratio: float, precision: str) -> float:
    """Seconds of a whole CNN by hand."""
    rates = RATES[precision]
    return (macs * rates.per_mac + VALUES[ratio] * rates.per_value) * ONNX[precision]


def test_whole_cnns_run_at_the_fitted_rates() -> None:
    timings = estimate(PROFILE, "x86-2core", PI, VALUES).timings
    assert timings["device-c1.00"].head_s == pytest.approx(whole_s(400e6, 1.0, "float32"))
    assert timings["device-c0.50"].head_s == pytest.approx(whole_s(200e6, 0.5, "float32"))
    assert timings["device-c0.50-i8"].head_s == pytest.approx(whole_s(200e6, 0.5, "int8"))
    assert timings["device-c1.00"].finish_s == 0.0


def test_parts_keep_the_share_that_they_have_on_x86() -> None:
    timings = estimate(PROFILE, "x86-2core", PI, VALUES).timings
    half, integers = whole_s(200e6, 0.5, "float32"), whole_s(200e6, 0.5, "int8")
    assert timings["cut"].head_s == pytest.approx(half / 4)
    assert timings["cut"].finish_s == pytest.approx(half * 3 / 4)
    assert timings["cut"].tail_s == pytest.approx(whole_s(400e6, 1.0, "float32") * 3 / 4)
    assert timings["cut-i8"].head_s == pytest.approx(integers / 2)
    assert timings["cut-i8"].finish_s == pytest.approx(integers / 4)


def test_a_picture_has_no_head_and_finishes_with_its_fallback() -> None:
    picture = estimate(PROFILE, "x86-2core", PI, VALUES).timings["picture"]
    assert picture.head_s == 0.0
    assert picture.finish_s == pytest.approx(whole_s(200e6, 0.5, "float32"))


@pytest.mark.parametrize("label", BOARDS)
def test_the_codec_and_the_loop_run_on_one_thread(label: str) -> None:
    table, thread = estimate(PROFILE, "x86-2core", BOARDS[label], VALUES), RATIO * BOARDS[label].thread
    assert table.timings["cut"].encode_s == pytest.approx(0.001 * thread)
    assert table.timings["cut-i8"].decode_s == pytest.approx(0.002 * thread)
    assert table.loop_s == pytest.approx(X86_LOOP_S * thread)


def test_a_measured_loop_is_used() -> None:
    timed = PROFILE.with_device("x86-2core", replace(MEASURED, loop_s=0.5e-3))
    assert estimate(timed, "x86-2core", PI, VALUES).loop_s == pytest.approx(0.5e-3 * RATIO)


@pytest.mark.parametrize("label", BOARDS)
def test_every_table_names_engine_threads_jitter_and_power(label: str) -> None:
    table = with_boards(PROFILE, "x86-2core", [label], VALUES).devices[label]
    assert table.provenance.kind == "estimated"
    assert table.engine == {"raspberry-pi-4-ncnn": "ncnn", "raspberry-pi-4-tflite": "tflite"}.get(label, "onnxruntime")
    assert table.threads == 4
    assert table.jitter == JITTER
    assert table.power is not None
    assert 0.0 < table.power.idle_w < table.power.busy_w
    assert table.power.source
    assert "MLPerf" in table.provenance.source
    assert "'x86-2core'" in table.provenance.source


def test_engines_and_boards_are_in_their_order() -> None:
    tables = with_boards(PROFILE, "x86-2core", list(BOARDS), VALUES).devices
    for point in ("device-c1.00", "cut"):
        head = {label: tables[label].timings[point].head_s for label in BOARDS}
        order = [
            "raspberry-pi-5",
            "raspberry-pi-4-tflite",
            "raspberry-pi-4-ncnn",
            "raspberry-pi-4",
            "raspberry-pi-zero-2w",
        ]
        assert sorted(head, key=head.__getitem__) == order
    int8 = {label: tables[label].timings["device-c0.50-i8"].head_s for label in BOARDS}
    assert int8["raspberry-pi-4-ncnn"] == int8["raspberry-pi-4"] > int8["raspberry-pi-4-tflite"]


def test_onnx_runtime_gains_by_integers_what_was_counted() -> None:
    float32, int8 = (RATES[p].seconds(LITE0) * ONNX[p] for p in ("float32", "int8"))
    assert float32 / int8 == pytest.approx(2.2)
    assert ONNX["float32"] / NCNN["float32"] == pytest.approx(1.84, abs=0.005)
    net = public_net("efficientnet-lite0-quantized")
    assert net is not None
    assert CnnWork(*LITE0) == pytest.approx(net.work, rel=1e-3)


def test_an_estimate_is_not_made_from_an_estimate() -> None:
    added = with_boards(PROFILE, "x86-2core", ["raspberry-pi-4"], VALUES)
    with pytest.raises(ValueError, match="a measured one expected"):
        estimate(added, "raspberry-pi-4", PI, VALUES)


def test_a_profile_without_what_is_needed_says_so() -> None:
    no_macs = replace(PROFILE, points=(replace(DEVICE, head_macs=0.0), *PROFILE.points[1:]))
    with pytest.raises(ValueError, match=r"device 'x86-2core': no whole CNN of ratio 1.0 in float32 with macs"):
        estimate(no_macs, "x86-2core", PI, VALUES)
    with pytest.raises(ValueError, match=r"no device .arm., expected one of ..x86-2core"):
        estimate(PROFILE, "arm", PI, VALUES)
    with pytest.raises(ValueError, match="profile mine: no CNN called 'mine'"):
        values_of(replace(PROFILE, name="mine"))


def test_the_rate_falls_with_the_width() -> None:
    """In the bundled profile a quarter of the multiply-accumulates takes more than a quarter of the time."""
    profile = load("efficientnet_lite0")
    table = estimate(profile, "x86-2core", PI, values_of(profile))
    quarter, whole = (table.timings[f"device-c{ratio}"].head_s for ratio in ("0.25", "1.00"))
    assert 0.27 < quarter / whole < 0.30


def test_command_adds_the_devices_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.json"
    save(PROFILE, path)
    assert main(["--profile", str(path), "--table", "raspberry-pi-5"]) == 0
    assert load(path).devices.keys() == {"x86-2core", "raspberry-pi-5"}
    assert main(["--profile", str(path), "--from", "x86-2core"]) == 0
    again = load(path)
    assert again.devices.keys() == {"x86-2core", *BOARDS}
    assert again.devices["x86-2core"] == MEASURED
    assert main(["--profile", str(path), "--from", "arm"]) == 2
    assert main(["--data", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("error: ") == 2
    assert captured.out.count("(estimated)") == 1 + len(BOARDS)


def test_the_derivation_has_both_sources(shared: Path) -> None:
    text = derivation(shared / "device_latency")
    assert "| tflite | float32 | 162 | macs and values | 14.9% | 33.9% |" in text
    assert "RATIO 5.686" in text
