"""An ONNX file as a torch module: the same answers, also for a batch, and files that cannot be taken."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import Tensor, nn

from tests.nets import MobileNetV3Small
from tests.prepare.small_net import small_net
from tidesplit.prepare.chosen_cuts import choose
from tidesplit.prepare.cut_net import CutNet, run
from tidesplit.prepare.source.onnx_net import load_onnx
from tidesplit.prepare.source.picture_net import PictureNet, load_picture_net, shapes_of
from tidesplit.prepare.source.preprocessing import PRESETS, PrepareError
from tidesplit.profiling.cuts.legal_cuts import find_cuts
from tidesplit.profiling.cuts.operations import trace

PX = 64


def written(net: nn.Module, path: Path, px: int = PX) -> Path:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (torch.zeros(1, 3, px, px),), path, dynamo=False, opset_version=17)
    return path


def with_softmax() -> nn.Module:
    return nn.Sequential(small_net(), nn.Softmax(1))


def pooled() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, 2, 2), nn.LeakyReLU(), nn.AvgPool2d(2), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 3, 2),
        nn.Sigmoid(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.ELU(),
    )  # fmt: skip


def clipped() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.ReplicationPad2d((0, 1, 1, 0)), nn.Conv2d(3, 8, 3, 2), nn.ReLU6(), nn.ReflectionPad2d(1), nn.Conv2d(8, 8, 3),
        nn.Hardtanh(-0.1, 0.7), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


class _Upsampled(nn.Module):
    """Maps of kinds and a vector, as a segmentation with another head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem, self.up, self.last = nn.Conv2d(3, 8, 3, 4, 1), nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.up(self.stem(x).relu())
        coarse = F.interpolate(self.last(found), scale_factor=2.0, mode="bilinear")
        return coarse.softmax(1), F.interpolate(found, scale_factor=2.0).mean((2, 3))


def test_several_outputs_have_their_names(tmp_path: Path) -> None:
    net = _Upsampled().eval()
    made = load_picture_net(str(written(net, tmp_path / "net.onnx")), None, replace(PRESETS["lite"], size=PX))
    assert (made.task, [*shapes_of(made, PX).values()]) == ("tensor", [(1, 4, PX, PX), (1, 8)])
    x = torch.randn(2, 3, PX, PX)
    with torch.no_grad():
        expected = torch.cat([tensor.flatten(1) for tensor in net(x)], 1)  # with the softmax, which is no classifier's
        torch.testing.assert_close(made(x), expected, rtol=1e-4, atol=1e-5)


def test_probabilities_of_classes_are_tensors_where_the_user_says_so(tmp_path: Path) -> None:
    path, lite = str(written(with_softmax(), tmp_path / "net.onnx")), replace(PRESETS["lite"], size=PX)
    logits, probabilities = (load_picture_net(path, None, lite, task) for task in (None, "tensor"))
    x = torch.randn(2, 3, PX, PX)
    with torch.no_grad():
        torch.testing.assert_close(probabilities(x), logits(x).softmax(1))


@pytest.mark.parametrize("make", [small_net, with_softmax, pooled, clipped, lambda: MobileNetV3Small(10)])
def test_the_same_answers(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    net = make().eval()
    found = load_onnx(written(net, tmp_path / "net.onnx"), PX, "NCHW")
    x = torch.randn(3, 3, PX, PX)
    with torch.no_grad():
        expected = (net[0] if make is with_softmax else net)(x)  # type: ignore[index]
        np.testing.assert_allclose(
            next(iter(found(x).values())), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
        )


@pytest.mark.parametrize("make", [small_net, clipped])
def test_it_can_be_cut(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    net = PictureNet(load_onnx(written(make(), tmp_path / "net.onnx"), PX, "NCHW"), PRESETS["imagenet"]).eval()
    traced = trace(net, torch.zeros(1, 3, PX, PX))
    cut = CutNet(net, traced, choose(find_cuts(traced), PX), PX)
    x = torch.randn(2, 3, PX, PX)
    with torch.no_grad():
        torch.testing.assert_close(run(cut.in_batches(2), x), net(x))


def test_files_that_cannot_be_taken(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(PrepareError, match="no such file"):
        load_onnx(path, PX, "NCHW")
    path.write_bytes(b"no model")
    with pytest.raises(PrepareError, match="not an ONNX model"):
        load_onnx(path, PX, "NCHW")
    written(small_net(), path)
    with pytest.raises(PrepareError, match=r"of shape \[1, 3, 64, 64\]; one of shape \[1, 3, 32, 32\] expected"):
        load_onnx(path, 32, "NCHW")
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, PX, PX]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Sin", ["x"], ["y"])], "net", io[:1], io[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(PrepareError, match="operations Sin received"):
        load_onnx(path, PX, "NCHW")
