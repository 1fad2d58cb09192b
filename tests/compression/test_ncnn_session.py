"""A model in ncnn answers as in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper
from torch import nn

from tidesplit.compression.ncnn_session import NcnnSession
from tidesplit.compression.net.deploy import head_model, part_model
from tidesplit.compression.net.onnx_export import to_onnx
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.session import session
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.models.ncnn_model import to_ncnn

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def system() -> SplitNet:
    pytest.importorskip("ncnn", reason="needs tidesplit[ncnn]")
    torch.manual_seed(0)
    return SplitNet(CifarResNet(4)).eval().requires_grad_(False)


def ncnn_session(folder: Path, model: onnx.ModelProto, threads: int = 1) -> NcnnSession:
    layers, weights = to_ncnn(model)
    (folder / "m.param").write_text(layers, encoding="utf-8")
    (folder / "m.bin").write_bytes(weights)
    return NcnnSession(folder / "m.param", folder / "m.bin", threads)


def assert_same(folder: Path, model: onnx.ModelProto, threads: int = 1) -> None:
    """Both engines give the same outputs, in the same order and of the same shape."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    theirs = session(model.SerializeToString()).run(None, {"x": x})
    ours = ncnn_session(folder, model, threads).run(None, {"x": x})
    assert [value.shape for value in ours] == [value.shape for value in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=TOLERANCE)


def test_a_head_has_the_same_feature_values_and_score(system: SplitNet, tmp_path: Path) -> None:
    assert_same(tmp_path, head_model(system, 2, 0.5))


def test_a_finish_and_a_whole_net_have_the_same_logits(system: SplitNet, tmp_path: Path) -> None:
    assert_same(tmp_path, part_model(system, 2, 3, 0.5))
    assert_same(tmp_path, part_model(system, 0, 3, 0.25), threads=2)


class Every(nn.Module):
    """Padding that differs by side, groups of several channels, a shuffle, and an output that is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.strided, self.spatial = nn.Conv2d(4, 8, 3, 2), nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.grouped, self.linear = nn.Conv2d(8, 8, 1, groups=2), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = F.relu6(self.strided(F.pad(x, [0, 1, 0, 1])))
        y = torch.add(y, F.relu6(self.grouped(self.spatial(y))))
        return self.linear(y.mean(dim=(2, 3))), y, F.pixel_shuffle(y, 2)


def test_every_operator_is_converted(tmp_path: Path) -> None:
    pytest.importorskip("ncnn", reason="needs tidesplit[ncnn]")
    torch.manual_seed(0)
    outputs = ("logits", "feature", "wide")
    assert_same(tmp_path, to_onnx(Every().eval(), torch.randn(1, 4, 12, 12), "m", outputs))


def test_another_operator_is_refused() -> None:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["y"])], "m", [x], [x])
    with pytest.raises(ValueError, match="Sigmoid"):
        to_ncnn(helper.make_model(graph))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("ncnn", reason="needs tidesplit[ncnn]")
    (tmp_path / "m.param").write_text("nothing\n")
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="ncnn cannot read"):
        NcnnSession(tmp_path / "m.param", tmp_path / "m.bin")
