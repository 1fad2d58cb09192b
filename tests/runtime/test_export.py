"""Which models are written: all of a CNN, or those that the points of a policy need."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.deployed import points, small_source, with_memory
from tidesplit.compression.codec.knobs import INT8
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.compression.net.deploy import head_model, part_model
from tidesplit.compression.net.int8 import int8_model, measure_ranges
from tidesplit.compression.session import session
from tidesplit.profiling.measuring.trained import Trained
from tidesplit.profiling.points.profile import OperatingPoint, Profile
from tidesplit.runtime.chains import device_plan
from tidesplit.runtime.cnn import MANIFEST, Cnn, CnnError, load_cnn
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.export import export, for_device
from tidesplit.runtime.models import finish_model, first_model, points_of


@pytest.fixture(scope="module")
def source() -> Trained:
    """The small CNN with ranges for int8."""
    made = small_source()
    images = np.stack([natural_picture(made.system.net.input_px, seed) for seed in range(4)])
    return replace(made, ranges=measure_ranges(made.system, images))


def both_precisions() -> Profile:
    """A small picture, a cut and the narrowest net, the latter two in int8."""
    profile, _ = points(3)
    picture, cut, net = profile.points
    net8 = replace(net, id="device-c0.25-i8", precision=INT8)
    cut8 = replace(cut, id="p1-c0.50-r1.00-b2-i8", precision=INT8, fallback=net8.id)
    small = replace(picture, id="p0-jpeg-q50-24px", resolution=24, fallback=net8.id)
    return replace(profile, points=(picture, small, cut, cut8, net, net8), devices={})


PROFILE = both_precisions()


def written(source: Trained, ids: list[str]) -> list[str]:
    return sorted(for_device(source, points_of(PROFILE, ids)).chains)


@pytest.mark.parametrize(
    ("ids", "models"),
    [
        (["device-c0.25-i8"], ["device-c0.25-i8"]),
        (["p0-jpeg-q50"], ["device-c0.25"]),
        (["p0-jpeg-q50-24px"], ["device-c0.25-i8"]),
        (["p0-jpeg-q50+device-c0.25-i8"], ["device-c0.25", "device-c0.25-i8"]),
        (["p1-c0.50-r1.00-b2"], ["finish-p1-c0.50", "head-p1-c0.50"]),
        (["p1-c0.50-r1.00-b2-i8+finish>cloud"], ["finish-p1-c0.50-i8", "head-p1-c0.50-i8"]),
        (["p1-c0.50-r1.00-b2+device-c0.25"], ["device-c0.25", "finish-p1-c0.50", "head-p1-c0.50"]),
    ],
)
def test_a_point_needs_these_models(source: Trained, ids: list[str], models: list[str]) -> None:
    assert written(source, ids) == models


def test_a_cnn_has_five_models_of_each_ratio_and_precision(source: Trained) -> None:
    every = for_device(source).chains
    assert len(every) == 4 * 5 * 2  # of two cuts: two heads, two finishes, the whole net
    plain = for_device(replace(source, ranges=None)).chains
    assert list(plain) == [name for name in every if not name.endswith("-i8")]


def test_int8_without_ranges_is_refused(source: Trained) -> None:
    with pytest.raises(CnnError, match=r"no model 'device-c0\.25-i8' of cifar_resnet; int8 needs .* fit-ranges"):
        written(replace(source, ranges=None), ["device-c0.25-i8"])


def test_models_of_one_ratio_share_their_files(source: Trained) -> None:
    """A net is divided at the cuts that are used, and nowhere else."""
    of = "c0.50-i8"
    plan = device_plan(source, {f"device-{of}", f"head-p2-{of}", f"finish-p1-{of}", "device-c0.25", "head-p1-c1.00"})
    assert plan.chains == {
        f"device-{of}": (f"part-0-1-{of}", f"part-1-2-{of}", f"part-2-3-{of}"),
        f"head-p2-{of}": (f"part-0-1-{of}", f"part-1-2-{of}", f"encoder-p2-{of}"),
        f"finish-p1-{of}": (f"part-1-2-{of}", f"part-2-3-{of}"),
        "device-c0.25": ("device-c0.25",),
        "head-p1-c1.00": ("part-0-1-c1.00", "encoder-p1-c1.00"),
    }
    assert plan.makers.keys() == {file for chain in plan.chains.values() for file in chain}


def test_chains_answer_as_the_whole_models_do(source: Trained, every: Cnn) -> None:
    """In int8 every bit is the same, because both parts give a cut's feature the same codes. In float32 only the order
    of sums may differ."""
    x = to_input(natural_picture(every.input_px, 3))
    whole = {
        "device-c0.75": part_model(source.system, 0, 3, 0.75),
        "head-p2-c0.75": head_model(source.system, 2, 0.75),
        "device-c0.75-i8": int8_model(part_model(source.system, 0, 3, 0.75), source.ranges or {}),
    }
    for name, model in whole.items():
        expected = session(model.SerializeToString()).run(None, {"x": x})
        found = every.session(name).run(None, {"x": x})
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert np.array_equal(ours, theirs) if name.endswith("i8") else ours == pytest.approx(theirs, abs=1e-5)


def test_a_file_in_several_models_is_opened_once_and_only_while_it_is_used(every: Cnn) -> None:
    head, net, fewer = (every.session(name) for name in ("head-p1-c0.50", "device-c0.50", "finish-p1-c0.50"))
    assert len(every._opened) == 4  # three parts and an encoder
    del head, net
    assert sorted(file for file, _, _ in every._opened) == ["part-1-2-c0.50.onnx", "part-2-3-c0.50.onnx"]
    assert every.session("finish-p1-c0.50", 2) is not fewer


def test_a_folder_of_before_has_a_file_for_each_model(every: Cnn, tmp_path: Path) -> None:
    manifest = json.loads((every.folder / MANIFEST).read_text())
    (tmp_path / "tail-p1.onnx").write_bytes(b"")
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "models": None, "files": {"tail-p1.onnx": "0"}}))
    older = load_cnn(tmp_path)
    assert older.models == {"tail-p1": ("tail-p1.onnx",)}


@pytest.mark.parametrize("files", [[], ["other.onnx"], 7])
def test_a_chain_of_files_that_are_not_there_is_refused(every: Cnn, tmp_path: Path, files: object) -> None:
    manifest = json.loads((every.folder / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "models": {"tail-p1": files}}))
    with pytest.raises(CnnError, match="a key is missing or holds a wrong value"):
        load_cnn(tmp_path)


@pytest.mark.parametrize("wrong", [{"outputs": []}, {"outputs": {"a": [1, float("inf")]}}, {"cuts": []}])
def test_values_of_another_kind_are_one_sentence(every: Cnn, tmp_path: Path, wrong: dict[str, object]) -> None:
    manifest = json.loads((every.folder / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, **wrong}))
    with pytest.raises(CnnError, match="a key is missing or holds a wrong value"):
        load_cnn(tmp_path)


@pytest.fixture(scope="module")
def every(source: Trained, tmp_path_factory: pytest.TempPathFactory) -> Cnn:
    """All models of two ratios."""
    names = {name for name in device_plan(source).chains if "c0.50" in name or "c0.75" in name}
    return export(source, tmp_path_factory.mktemp("every"), device_plan(source, names))


@pytest.fixture(scope="module")
def cnn(source: Trained, tmp_path_factory: pytest.TempPathFactory) -> Cnn:
    return export(source, tmp_path_factory.mktemp("int8"), for_device(source, PROFILE.points))


def test_the_engine_runs_a_point_in_its_precision(cnn: Cnn) -> None:
    engine, pixels = Engine(cnn, PROFILE.points), natural_picture(cnn.input_px, 9)
    models = {name for point in PROFILE.points for name in (first_model(point), finish_model(point)) if name}
    assert set(engine._sessions) == models
    plain, int8 = (engine.head(f"p1-c0.50-r1.00-b2{suffix}", pixels) for suffix in ("", "-i8"))
    assert (plain.feature != int8.feature).any()
    assert int8.feature == pytest.approx(plain.feature, abs=0.1 * float(np.abs(plain.feature).max()))
    expected = cnn.session("head-p1-c0.50-i8").run(None, {"x": to_input(pixels)})[0]
    assert np.array_equal(int8.feature, expected)
    logits = cnn.session("finish-p1-c0.50-i8").run(None, {"x": expected})[0][0]
    assert np.array_equal(engine.finish("p1-c0.50-r1.00-b2-i8+finish", int8.feature), logits)


def test_a_small_picture_crosses_small_and_its_race_sees_all_of_it(cnn: Cnn) -> None:
    engine, pixels = Engine(cnn, PROFILE.points), natural_picture(cnn.input_px, 9)
    whole, small = (engine.head(f"p0-jpeg-q50{size}+device-c0.25-i8", pixels) for size in ("", "-24px"))
    assert whole.payload is not None
    assert small.payload is not None
    assert len(small.payload) < len(whole.payload)
    assert np.array_equal(small.feature, to_input(pixels))
    local = engine.head("device-c0.25-i8", pixels).logits
    assert np.array_equal(engine.finish("p0-jpeg-q50-24px+device-c0.25-i8", small.feature), local)


def test_names_belong_to_the_point(cnn: Cnn) -> None:
    def models(point: OperatingPoint) -> tuple[str | None, str | None]:
        return first_model(point), finish_model(point)

    assert models(PROFILE.point("p0-jpeg-q50-24px")) == (None, "device-c0.25-i8")
    assert models(PROFILE.point("device-c0.25-i8")) == ("device-c0.25-i8", None)
    assert models(replace(PROFILE.point("p1-c0.50-r1.00-b2"), fallback=None)) == ("head-p1-c0.50", None)


def test_a_version_names_the_weights_and_the_tables_of_streams(cnn: Cnn) -> None:
    """A device whose streams a server would decode with other tables is refused, as with other weights."""
    streams = with_memory(cnn)
    fewer = replace(streams, codec=replace(streams.codec, changes=dict(list(streams.codec.changes.items())[:-1])))
    assert cnn.version == cnn.weights_sha256[:16]
    assert len({cnn.version, streams.version, fewer.version}) == 3
    assert streams.version == with_memory(cnn).version
