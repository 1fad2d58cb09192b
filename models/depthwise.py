"""Depthwise convolution whose bfloat16 backward is fast on a CPU.

oneDNN (torch 2.13, AMX bf16) has two slow paths in the depthwise backward. The input gradient at stride 2 takes 40 to
110 ms a layer at batch 32, and the weight gradient of 5x5 kernels 40 to 90 ms. Together they cost more than the rest of
the network. Here both are expressed by calls that take the fast path (1 to 15 ms).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def same_padding(kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis of *even* length, by TensorFlow's SAME rule. The ImageNet weights assume it."""
    total = max(kernel - stride, 0)
    return total // 2, total - total // 2


def _pad(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad height and width of `x` `[B, C, H, W]`. At stride 2, an odd axis needs one more zero in front."""
    pads: list[int] = []
    for size in (int(x.shape[3]), int(x.shape[2])):  # plain numbers also where it is traced
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads) if any(pads) else x


def _grad(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Weight gradient `[C, 1, k, k]` of a depthwise convolution of a padded `x`."""
    channels = weight.shape[0]
    result = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride, stride], [0, 0], [1, 1], False, [0, 0], channels, [False, True, False]
    )[1]
    assert isinstance(result, Tensor)
    return result


def _weight_grad(grad: Tensor, padded: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Weight gradient. One of 5x5 is tiled from four of 3x3, which overlap in the middle row and column."""
    if weight.shape[2] != 5:
        return _grad(grad, padded, weight, stride)
    result = torch.empty_like(weight)
    rows, columns = ((size - 1) * stride + 3 for size in grad.shape[2:])
    small = weight[:, :, :3, :3].contiguous()
    for i in (0, 2):
        for j in (0, 2):
            window = padded[:, :, i : i + rows, j : j + columns].contiguous(memory_format=torch.channels_last)
            result[:, :, i : i + 3, j : j + 3] = _grad(grad, window, small, stride)
    return result


def _input_grad(grad: Tensor, weight: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Input gradient as a stride-1 convolution of the zero-interleaved output gradient with the flipped kernel."""
    kernel = weight.shape[2]
    if stride > 1:
        offset = kernel - 1 - same_padding(kernel, stride)[0] - kernel // 2
        spread = grad.new_zeros((grad.shape[0], grad.shape[1], *size)).to(memory_format=torch.channels_last)
        spread[:, :, offset::stride, offset::stride] = grad
        grad = spread
    return F.conv2d(grad, weight.flip(2, 3), padding=kernel // 2, groups=weight.shape[0])


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        low = weight.to(x.dtype)
        padded = _pad(x, low.shape[2], stride)
        ctx.save_for_backward(padded, weight)
        ctx.stride, ctx.size = stride, tuple(x.shape[2:])
        return F.conv2d(padded, low, stride=stride, groups=low.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        padded, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        low = weight.to(grad.dtype)
        grad_x = _input_grad(grad, low, ctx.stride, ctx.size) if ctx.needs_input_grad[0] else None
        grad_w = _weight_grad(grad, padded, low, ctx.stride).to(weight.dtype) if ctx.needs_input_grad[1] else None
        return grad_x, grad_w, None


def depthwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Depthwise convolution with SAME padding. `x` `[B, C, H, W]`, `weight` `[C, 1, k, k]`."""
    even = x.shape[2] % stride == 0 and x.shape[3] % stride == 0
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and torch.is_grad_enabled() and even:
        result = _Depthwise.apply(x, weight, stride)  # type: ignore[no-untyped-call]
        assert isinstance(result, Tensor)
        return result
    weight = weight if weight.dtype == x.dtype else weight.to(x.dtype)
    if stride == 1:
        return F.conv2d(x, weight, padding=weight.shape[2] // 2, groups=len(weight))
    return F.conv2d(_pad(x, weight.shape[2], stride), weight, stride=stride, groups=len(weight))
