"""The closed-form start of a bottleneck, against answers that are known beforehand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tidesplit.compression.net.bottleneck import BottleneckSpec
from tidesplit.prepare.cut_net import FULL
from tidesplit.prepare.level_start import SILENT, entropies, levels
from tidesplit.prepare.linear_bottleneck import LinearBottleneck, fits
from tidesplit.prepare.linear_start import components, metric, moments, patches, root, sensitivity
from tidesplit.prepare.task import Classes
from tidesplit.runtime.wire.output_tensors import AnswerForm

FORM = AnswerForm.of_classes("abc")


def features_of_rank(rank: int, channels: int, side: int, stride: int, count: int = 64) -> Tensor:
    """Features whose patches lie in a space of so many dimensions, off the origin."""
    made = torch.Generator().manual_seed(1)
    basis = torch.randn(channels * stride**2, rank, generator=made)
    values = torch.randn(count, rank, side // stride, side // stride, generator=made).clamp(-3, 3)
    return F.pixel_shuffle(torch.einsum("dr,brhw->bdhw", basis, values), stride) + 2.0


@pytest.mark.parametrize(
    "spec",
    [
        BottleneckSpec(wire=8, stride=1, kernel=1, hidden=24),
        BottleneckSpec(wire=8, stride=2, kernel=3, hidden=24),
        BottleneckSpec(wire=8, stride=4, kernel=7, hidden=24),
    ],
)
def test_a_feature_of_few_dimensions_is_given_back(spec: BottleneckSpec) -> None:
    torch.manual_seed(0)
    feature = features_of_rank(6, 12, 8, spec.stride) + 5.0 * torch.randn(12, 8, 8)  # each position has its own mean
    bottleneck = LinearBottleneck(1, (12, 8, 8), spec)
    found = moments([feature], spec.stride)
    encoder, decoder = components(found.covariance, torch.eye(len(found.covariance)), spec.wire)
    bottleneck.start(found.mean, encoder, decoder)
    with torch.no_grad():
        y, _ = bottleneck.encode(feature, FULL)
        rebuilt = bottleneck.eval().decode(y)
    assert fits(spec)
    torch.testing.assert_close(y[:, :6].mean(0), torch.zeros_like(y[0, :6]), atol=1e-3, rtol=0)
    torch.testing.assert_close(rebuilt, feature, atol=1e-3, rtol=1e-3)


def test_a_layer_before_the_encoder_has_no_closed_form() -> None:
    assert not fits(BottleneckSpec(wire=8, stride=8, kernel=3, inner=24))


def test_with_even_weights_the_code_is_that_of_principal_components() -> None:
    covariance = torch.diag(torch.tensor([1.0, 16.0, 4.0]))
    encoder, decoder = components(covariance, torch.eye(3), 2)
    torch.testing.assert_close(encoder.abs(), torch.tensor([[0.0, 0.25, 0.0], [0.0, 0.0, 0.5]]))
    torch.testing.assert_close(decoder @ encoder, torch.diag(torch.tensor([0.0, 1.0, 1.0])))


def test_what_the_answer_does_not_need_is_left_out() -> None:
    """The answer sees channel 1 only. So that crosses first, although channel 0 varies ten times as much."""
    torch.manual_seed(0)
    feature = torch.randn(32, 2, 4, 4) * torch.tensor([10.0, 1.0]).view(1, 2, 1, 1)
    steepness = torch.tensor([1.0, -2.0, 0.5])

    def answer(x: Tensor) -> Tensor:
        return x[:, 1].mean((1, 2))[:, None] * steepness

    information = sensitivity(answer, Classes(FORM, None).directions, [feature.clone()], 1, seed=0)
    assert information[0, 0] == information[0, 1] == 0 < information[1, 1]
    weights = metric(information, moments([feature], 1).covariance)
    encoder, _ = components(moments([feature], 1).covariance, weights, 1)
    assert abs(encoder[0, 1]) > 100 * abs(encoder[0, 0])


def test_an_error_as_large_as_the_feature_weighs_one() -> None:
    torch.manual_seed(0)
    basis = torch.randn(5, 5)
    information, covariance = basis.T @ basis, torch.diag(torch.arange(1.0, 6.0))
    for found in (information, torch.zeros(5, 5)):  # where the answers never move, all errors weigh the same
        weights = metric(found, covariance)
        assert (weights @ covariance).trace().item() == pytest.approx(1.0)
        there, back = root(weights)
        torch.testing.assert_close(there @ there, weights)
        torch.testing.assert_close(there @ back, torch.eye(5), atol=1e-4, rtol=0)


def test_patches_fill_up_with_zeros() -> None:
    found = patches(torch.ones(1, 2, 3, 3), 2)
    assert found.shape == (1, 8, 2, 2)
    assert found.sum() == 18


def test_entropies_of_known_codes() -> None:
    codes = torch.tensor([[0, 3, 1], [1, 3, 1], [2, 3, 2], [3, 3, 2]])
    torch.testing.assert_close(entropies(codes, 4), torch.tensor([2.0, 0.0, 1.0]))


def test_channels_that_matter_get_finer_levels() -> None:
    torch.manual_seed(0)
    values = torch.randn(20000, 3)
    _, free = levels(values, torch.ones(3), 2, price=0.0)
    assert free.tolist() == pytest.approx([0.9957] * 3, rel=0.15)  # Max (1960), four even levels of a normal value
    low, step = levels(values, torch.tensor([1.0, 0.05, 1e-4]), 4, price=0.002)
    assert step[0] < 0.5 < step[1] < step[2] == SILENT
    assert low[2] == 0.0


def test_at_one_price_bits_follow_importance() -> None:
    """A quarter of the importance takes about one bit less, as rate-distortion theory says."""
    torch.manual_seed(0)
    values = torch.randn(20000, 2)
    low, step = levels(values, torch.tensor([1.0, 0.25]), 8, price=0.004)
    codes = ((values - low) / step).round().clamp(0, 255)
    first, second = entropies(codes, 256).tolist()
    assert first - second == pytest.approx(1.0, abs=0.2)
