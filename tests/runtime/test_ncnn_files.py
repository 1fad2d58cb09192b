"""A CNN exported for ncnn: the device answers as with ONNX Runtime, and altered files are refused."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.deployed import points
from tidesplit.compression.ncnn_session import NcnnSession
from tidesplit.profiling.points import profile as profiles
from tidesplit.runtime.cnn import Cnn, CnnError, load_cnn
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.ncnn_files import for_engine
from tidesplit.runtime.timing import __main__ as timing


@pytest.fixture(scope="module")
def both(cnn: Cnn, tmp_path_factory: pytest.TempPathFactory) -> Cnn:
    """The small CNN for both engines."""
    folder = tmp_path_factory.mktemp("ncnn") / "cnn"
    shutil.copytree(cnn.folder, folder)
    return for_engine(load_cnn(folder), "ncnn")


def test_models_of_the_device_get_files_once(cnn: Cnn, both: Cnn) -> None:
    added = set(both.files) - set(cnn.files)
    assert {"part-0-1-c0.25.param", "part-2-3-c1.00.param", "encoder-p1-c0.50.bin"} <= added
    assert not [name for name in added if name.startswith(("tail", "middle"))]
    assert for_engine(both, "ncnn") == both
    assert for_engine(cnn, "onnxruntime") == cnn


def test_the_device_answers_as_with_onnx_runtime(both: Cnn) -> None:
    pytest.importorskip("ncnn", reason="needs tidesplit[ncnn]")
    made = points(both.partitions)[0].points
    engine, usual = Engine(both, made, 2), Engine(replace(both, engine="onnxruntime"), made)
    assert all(isinstance(session, NcnnSession) for session in both._opened.values())
    pixels = np.random.default_rng(0).integers(0, 256, (both.input_px, both.input_px, 3), np.uint8)
    for point in made:
        ours, theirs = engine.head(point.id, pixels), usual.head(point.id, pixels)
        np.testing.assert_allclose(ours.feature, theirs.feature, atol=1e-3)
        if point.codec == "none":
            np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-3)
        else:
            finished = engine.finish(point.id, ours.feature)
            np.testing.assert_allclose(finished, usual.finish(point.id, theirs.feature), atol=1e-3)


def test_a_model_that_ncnn_does_not_have_runs_in_onnx_runtime(cnn: Cnn) -> None:
    with_ncnn = replace(cnn, engine="ncnn")
    whole = with_ncnn.device_session("device-c0.25", 1)
    assert not [session for session in with_ncnn._opened.values() if isinstance(session, NcnnSession)]
    assert whole.run(None, {"x": np.zeros((1, 3, cnn.input_px, cnn.input_px), np.float32)})[0].shape == (1, 4)


def test_altered_weights_are_refused(both: Cnn, tmp_path: Path) -> None:
    folder = tmp_path / "cnn"
    shutil.copytree(both.folder, folder)
    (folder / "part-1-2-c0.25.bin").write_bytes(b"other")
    with pytest.raises(CnnError, match="it was altered"):
        for_engine(load_cnn(folder), "ncnn").device_session("device-c0.25", 1)


def test_without_ncnn_the_extra_is_named(both: Cnn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(CnnError, match=r"tidesplit\[ncnn\]"):
        both.device_session("device-c0.25", 1)


def test_without_onnx_the_place_of_the_export_is_named(cnn: Cnn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CnnError, match=r"has no models for ncnn, .* where 'tidesplit\[train\]' is installed"):
        for_engine(cnn, "ncnn")


def test_a_machine_is_timed_with_ncnn(both: Cnn, tmp_path: Path) -> None:
    pytest.importorskip("ncnn", reason="needs tidesplit[ncnn]")
    file = tmp_path / "three.json"
    profiles.save(replace(points(both.partitions)[0], cnn={"weights_sha256": both.weights_sha256}), file)
    words = f"--profile {file} --device mine --cnn {both.folder} --engine ncnn --rounds 1 --runs 1 --threads 2"
    assert timing.main(words.split()) == 0
    table = profiles.load(file).devices["mine"]
    assert (table.engine, table.threads) == ("ncnn", 2)
