import pytest
import torch
import torch.nn.functional as F

from tidesplit.models.depthwise import _Depthwise, depthwise, same_padding


@pytest.mark.parametrize(
    ("kernel", "stride", "expected"), [(3, 1, (1, 1)), (3, 2, (0, 1)), (5, 1, (2, 2)), (5, 2, (1, 2))]
)
def test_same_padding_is_tensorflows(kernel, stride, expected):
    assert same_padding(kernel, stride) == expected


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_equal_those_of_the_plain_convolution(kernel, stride):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 8, 12, generator=generator, requires_grad=True)
    weight = torch.randn(6, 1, kernel, kernel, generator=generator, requires_grad=True)
    before, after = same_padding(kernel, stride)
    plain = F.conv2d(F.pad(x, (before, after, before, after)), weight, stride=stride, groups=6)
    ours = _Depthwise.apply(x, weight, stride)
    torch.testing.assert_close(ours, plain)
    grad = torch.randn(plain.shape, generator=generator)
    expected = torch.autograd.grad(plain, (x, weight), grad)
    for got, want in zip(torch.autograd.grad(ours, (x, weight), grad), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_low_precision_takes_the_fast_path_and_stays_close():
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    weight = torch.randn(8, 1, 5, 5, requires_grad=True)
    low = depthwise(x.bfloat16(), weight, 2)
    assert low.grad_fn.name() == "_DepthwiseBackward"
    torch.testing.assert_close(low.float(), depthwise(x, weight, 2), rtol=0.05, atol=0.1)


def test_odd_sides_fall_back_to_the_plain_operation():
    y = depthwise(torch.ones(1, 2, 5, 5), torch.ones(2, 1, 3, 3), 2)
    assert y.shape == (1, 2, 3, 3)
    assert y[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
