"""Which models are written: all of a CNN, or those that the points of a policy need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.runtime.deployed import points, small_source, with_memory
from tidesplit.compression.codec.knobs import INT8
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.compression.net.int8 import measure_ranges
from tidesplit.profiling.measuring.trained import Trained
from tidesplit.profiling.points.profile import OperatingPoint, Profile
from tidesplit.runtime.cnn import Cnn, CnnError
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
    return [model.graph.name for model in for_device(source, points_of(PROFILE, ids))]


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
    every = [model.graph.name for model in for_device(source)]
    assert len(every) == len(set(every)) == 4 * 5 * 2  # of two cuts: two heads, two finishes, the whole net
    plain = [model.graph.name for model in for_device(replace(source, ranges=None))]
    assert plain == [name for name in every if not name.endswith("-i8")]


def test_int8_without_ranges_is_refused(source: Trained) -> None:
    with pytest.raises(CnnError, match=r"no model 'device-c0\.25-i8' of cifar_resnet; int8 needs .* fit-ranges"):
        written(replace(source, ranges=None), ["device-c0.25-i8"])


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
