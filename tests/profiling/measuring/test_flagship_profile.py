import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tidesplit.compression.codec.knobs import Knobs, device_id
from tidesplit.compression.codec.pixels import load_square, natural_picture, to_input
from tidesplit.compression.net.deploy import encoder_model, part_model
from tidesplit.compression.net.int8 import int8_model, measure_ranges, save_ranges
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.session import session
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.models.efficientnet_lite0 import EfficientNetLite0
from tidesplit.models.registry import weights_path
from tidesplit.models.weights import load_weights, read_metadata, save_weights, sha256_of
from tidesplit.profiling.measuring import trained as flagship
from tidesplit.profiling.measuring.accuracy import measure_accuracy
from tidesplit.profiling.measuring.assemble import assemble, settings_of
from tidesplit.profiling.measuring.clock import Measurement, machine_facts, time_interleaved
from tidesplit.profiling.measuring.counts import Counts
from tidesplit.profiling.measuring.spread import run_chunks
from tidesplit.profiling.points.profile import from_json, load, to_json

POINTS = [
    "p0-webp-q50", "p5-c0.25-r1.00-b1", "p5-c0.25-r0.50-b4", "device-c0.25",
    "p0-jpeg-q20-112px", "p5-c0.25-r1.00-b1-i8", "device-c0.25-i8",
]  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_weights(path, SplitNet(EfficientNetLite0(2)), {"classes": json.dumps(["ant", "bee"])})
    stored = SplitNet(EfficientNetLite0(2))
    load_weights(path, stored)
    stored.net.ratios = (0.25,)  # the one whose int8 points are measured here
    save_ranges(path, stored, measure_ranges(stored, np.stack([natural_picture(224, seed=i) for i in range(2)])))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for label in ("ant", "bee"):
        (folder / label).mkdir()
        for i in range(2):
            Image.fromarray(natural_picture(64, seed=i)).save(folder / label / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def rows(weights, images, tmp_path_factory):
    partial = tmp_path_factory.mktemp("out") / "rows.partial.jsonl"
    return measure_accuracy("efficientnet_lite0", images, POINTS, 0, partial, jobs=1, ray=None, weights=weights)


def test_rows_have_what_the_report_promises(rows):
    assert [row["id"] for row in rows] == POINTS
    for row in rows:
        assert row["n"] == 4
        assert 0.0 <= row["accuracy_ci95"][0] <= row["accuracy"] <= row["accuracy_ci95"][1] <= 1.0
    assert (rows[0]["partition"], rows[0]["bits"]) == (0, 50)
    assert rows[1]["bytes_mean"] <= 8 + 8 * 49 / 8
    assert rows[3]["bytes_mean"] == 0.0
    assert {row["id"]: (row["precision"], row["resolution"]) for row in rows} == {
        **dict.fromkeys(POINTS[:4], ("float32", None)), "p0-jpeg-q20-112px": ("float32", 112),
        **dict.fromkeys(POINTS[5:], ("int8", None)),
    }  # fmt: skip


def test_int8_points_go_through_the_deployed_models(rows, weights, images):
    """A count by hand: session, codec and tail, picture by picture."""
    trained = flagship.load_trained("efficientnet_lite0", weights)
    floats = *(part_model(trained.system, 0, p, 0.25) for p in (5, 6)), encoder_model(trained.system, 5, 0.25)
    head, net, encoder = (session(int8_model(model, trained.ranges).SerializeToString()) for model in floats)
    sizes, right, local = [], 0, 0
    for label, name in enumerate(("ant", "bee")):
        for i in range(2):
            x = to_input(load_square(images / name / f"{i}.png", 224))
            y, score = encoder.run(None, {"x": head.run(None, {"x": x})[0]})
            payload = trained.codec.wire.encode(y[0], score[0, 0], Knobs(5, 0.25, 1.0, 1))
            sizes.append(len(payload))
            values = torch.from_numpy(trained.codec.wire.decode(payload)[0])[None]
            right += int(trained.system.tail(values, 5).argmax()) == label
            local += int(net.run(None, {"x": x})[0].argmax()) == label
    cut, device = rows[5], rows[6]
    assert (cut["bytes_mean"], cut["accuracy"]) == (np.mean(sizes), right / 4)
    assert (device["bytes_mean"], device["accuracy"]) == (0.0, local / 4)


def test_smaller_pictures_than_the_input_only(weights):
    trained = flagship.load_trained("efficientnet_lite0", weights)
    ids = list(settings_of(trained.system, trained.image_points, trained.precisions))
    assert len(ids) == len(set(ids))
    assert {p.px for p in trained.image_points} == {None, 160, 128, 112}
    small = replace(trained, system=SplitNet(CifarResNet(2)), ranges=None)
    assert {p.px for p in small.image_points} == {None}
    assert not [i for i in settings_of(small.system, small.image_points, small.precisions) if i.endswith(("px", "-i8"))]


def test_rows_make_a_valid_profile(rows, weights):
    trained = flagship.load_trained("efficientnet_lite0", weights)
    rows = [*rows, {**rows[3], "id": "device-c1.00", "channel_ratio": 1.0}]
    made = assemble("efficientnet_lite0", trained, rows, {}, "a machine", "pictures")
    assert from_json(json.loads(json.dumps(to_json(made)))) == made
    narrow, wide = made.point("device-c0.25"), made.point("device-c1.00")
    assert narrow.head_macs * 3.5 < wide.head_macs
    assert made.point("p5-c0.25-r1.00-b1").fallback == "device-c0.25"
    assert made.point("p5-c0.25-r1.00-b1-i8").fallback == "device-c0.25-i8"
    assert made.point("p0-jpeg-q20-112px").fallback == "device-c0.25-i8"
    assert made.point("device-c0.25-i8").head_macs == narrow.head_macs


def test_unknown_points_and_foreign_classes_are_refused(weights, images, tmp_path):
    def measure(points, folder):
        measure_accuracy("efficientnet_lite0", folder, points, 0, tmp_path / "x", jobs=1, ray=None, weights=weights)

    with pytest.raises(ValueError, match="p9-none"):
        measure(["p9-none"], images)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="class folders that the CNN does not know"):
        measure([], tmp_path)


def counted(calls, number):
    calls.write_text(calls.read_text() + f"{number} ")
    return {"point": {"n": 1.0, "right": float(number)}}


def test_finished_chunks_are_not_done_again(tmp_path):
    calls, partial = tmp_path / "calls", tmp_path / "partial"
    calls.write_text("")
    first = run_chunks(counted, [(calls, 0), (calls, 1)], partial, "key", 1, None)
    partial.write_text(partial.read_text() + '{"key": "key", "chu')  # a line cut short by a crash
    again = run_chunks(counted, [(calls, 0), (calls, 1), (calls, 2)], partial, "key", 1, None)
    assert again[:2] == first
    assert calls.read_text() == "0 1 2 "
    run_chunks(counted, [(calls, 3)], partial, "other key", 1, None)
    assert calls.read_text() == "0 1 2 3 "


def test_counts_add_up():
    total = Counts()
    total.add(Counts(2, 1, 10.0, 52.0))
    total.add(Counts(1, 1, 4.0, 16.0))
    assert total == Counts(3, 2, 14.0, 68.0)


def test_measurement_warns_of_a_wide_spread():
    quiet, noisy = Measurement((1.0, 1.0, 1.02)), Measurement((1.0, 1.0, 2.0, 3.0))
    assert not quiet.noisy
    assert noisy.noisy
    assert quiet.median_s == 1.0


def test_interleaved_timing_calls_each_function_equally_often():
    calls = {"a": 0, "b": 0}

    def work(name):
        calls[name] += 1

    found = time_interleaved({n: lambda n=n: work(n) for n in calls}, rounds=2, runs=3, warm=1)
    assert calls == {"a": 8, "b": 8}
    assert all(len(m.times_s) == 6 for m in found.values())


def test_machine_facts_are_plain_values():
    assert json.loads(json.dumps(machine_facts(2)))["threads"] == 2


def test_input_scaling_is_the_trained_one():
    pixels = np.array([[[0, 255, 51]]], dtype=np.uint8)
    assert to_input(pixels).ravel() == pytest.approx([-1.0, 1.0, -0.6], abs=1e-6)


def test_weights_survive_the_file_within_float16(weights):
    net = SplitNet(EfficientNetLite0(2))
    load_weights(weights, net)
    assert not net.training
    assert read_metadata(weights)["classes"] == '["ant", "bee"]'
    torch.manual_seed(0)
    fresh = SplitNet(EfficientNetLite0(2))
    torch.testing.assert_close(net.net.stem, fresh.net.stem, rtol=1e-3, atol=1e-3)
    with pytest.raises((ValueError, RuntimeError)):
        load_weights(weights, SplitNet(EfficientNetLite0(3)))


@pytest.mark.parametrize(
    ("name", "accuracy", "most_bytes"), [("efficientnet_lite0", 0.9, 10_000), ("cifar_resnet", 0.75, 1100)]
)
def test_bundled_profile_is_consistent(name, accuracy, most_bytes):
    profile = load(name)
    assert profile.cnn["weights_sha256"] == sha256_of(weights_path(name))
    assert set(profile.devices) >= {"x86-2core", "raspberry-pi-4"}
    by_id = {point.id: point for point in profile.points}
    assert by_id["device-c1.00"].accuracy > accuracy
    for point in profile.points:
        assert math.isfinite(point.bytes_std)
        if point.codec == "feature":
            assert point.bytes_mean < most_bytes
            assert point.fallback == device_id(point.channel_ratio, point.precision)
    assert replace(profile) == profile
