"""ONNX models of parts: for batches where the part takes them, and otherwise all parts for one picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.prepare.small_net import small_net
from tidesplit.compression.net.onnx_export import FREE
from tidesplit.compression.session import session
from tidesplit.prepare.cut_net import Part
from tidesplit.prepare.result.onnx_parts import alike, onnx_part
from tidesplit.profiling.cuts.operations import trace


class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


def first_axis(data: bytes) -> int | str:
    axis = onnx.load_from_string(data).graph.input[0].type.tensor_type.shape.dim[0]
    return axis.dim_param or axis.dim_value


def made(function: Callable[[Tensor], Tensor]) -> bytes:
    return onnx_part(_Function(function), torch.randn(1, 4, 3, 3), "part", ["out"])


def test_a_traced_net_takes_batches() -> None:
    """Its views were traced for one picture."""
    net, x = small_net().eval(), torch.randn(3, 3, 32, 32)
    data = onnx_part(Part(trace(net, x[:1]), None, None), x[:1], "net", ["logits"])
    assert first_axis(data) == FREE
    with torch.no_grad():
        np.testing.assert_allclose(session(data).run(None, {"x": x.numpy()})[0], net(x).numpy(), atol=1e-5)


@pytest.mark.parametrize(("side", "goal"), [(5, (7, 7)), (7, (2, 3)), (9, (3, 2)), (8, (2, 4))])
def test_adaptive_pools_of_any_size(side: int, goal: tuple[int, int]) -> None:
    net, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(goal), nn.ReLU()), torch.randn(2, 3, side, side)
    part = Part(trace(net, x[:1]), None, None)
    data = onnx_part(part, x[:1], "net", ["feature"])
    with torch.no_grad():
        torch.testing.assert_close(part(x), net(x))
        np.testing.assert_allclose(session(data).run(None, {"x": x.numpy()})[0], net(x).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean(0, keepdim=True),
        lambda x: x.reshape(4, 9) @ x.reshape(9, 4),
        lambda x: torch.cat([torch.ones(1, 4, 1, 3), x], 2),
    ],
)
def test_pictures_that_see_each_other_come_one_by_one(function: Callable[[Tensor], Tensor]) -> None:
    assert first_axis(made(function)) == 1


def test_one_part_for_one_picture_makes_all_so() -> None:
    free, bound = made(lambda x: 2 * x), made(lambda x: x - x.mean(0, keepdim=True))
    assert [*map(first_axis, alike({"a": free, "b": free}).values())] == [FREE, FREE]
    found = alike({"a": free, "b": bound})
    assert [*map(first_axis, found.values())] == [1, 1]
    x = np.ones((1, 4, 3, 3), np.float32)
    np.testing.assert_array_equal(session(found["a"]).run(None, {"x": x})[0], 2 * x)
