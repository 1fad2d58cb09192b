import numpy as np
import pytest
import torch

from tidesplit.compression.codec.errors import PayloadError
from tidesplit.compression.codec.knobs import BITS, Knobs, all_knobs
from tidesplit.compression.codec.wire import best_positions
from tidesplit.compression.net.bottleneck import keep_positions
from tidesplit.compression.net.cut_codec import Codec
from tidesplit.compression.net.quantizer import Quantizer
from tidesplit.compression.net.system import SplitNet
from tidesplit.models.efficientnet_lite0 import EfficientNetLite0


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    return SplitNet(EfficientNetLite0(11)).eval()


@pytest.fixture(scope="module")
def codec(system):
    return Codec(system, tag=7)


def random_head(codec, knobs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cut = codec.wire.cuts[knobs.partition]
    y = torch.randn(cut.kept_channels(knobs.ratio), cut.height, cut.width, generator=generator) * 2
    return y, torch.randn(cut.height, cut.width, generator=generator)


def test_decompress_inverts_compress_at_every_operating_point(codec):
    for knobs in all_knobs(6):
        y, score = random_head(codec, knobs)
        values, read = codec.decompress(codec.compress(y, score, knobs))
        assert read == knobs
        assert torch.equal(values, codec.forward(y, score, knobs)), knobs.id


def test_fewer_channels_positions_bits_mean_fewer_bytes(codec):
    def size(ratio, region, bits):
        knobs = Knobs(3, ratio, region, bits)
        return len(codec.compress(*random_head(codec, knobs), knobs))

    sizes = [size(1.0, 1.0, b) for b in BITS]
    assert sizes == sorted(sizes)
    assert size(0.5, 1.0, 4) < size(1.0, 1.0, 4)
    assert size(1.0, 0.5, 4) < size(1.0, 1.0, 4)
    cut = codec.wire.cuts[3]
    assert size(1.0, 1.0, 2) <= 8 + cut.channels * cut.height * cut.width * 2 // 8


def test_half_region_sends_the_positions_with_the_highest_score(codec):
    knobs = Knobs(3, 1.0, 0.5, 8)
    y, score = random_head(codec, knobs)
    values, _ = codec.decompress(codec.compress(y, score, knobs))
    sent = values.abs().sum(0) > 0
    assert int(sent.sum()) == 25
    assert score[sent].min() > score[~sent].max()


def test_equal_scores_keep_reading_order():
    assert best_positions(np.zeros((2, 3), dtype=np.float32), 2).tolist() == [[True, True, False], [False] * 3]
    tied = torch.zeros(1, 1, 7, 7)
    tied[0, 0, 5] = -1.0
    expected = best_positions(tied[0, 0].numpy(), 25)
    np.testing.assert_array_equal(keep_positions(tied, torch.tensor([0.5]), 0.5)[0, 0].numpy(), expected)


def test_values_that_are_not_finite_are_refused(codec):
    knobs = Knobs(3, 1.0, 1.0, 8)
    y, score = random_head(codec, knobs)
    y[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        codec.compress(y, score, knobs)


def test_a_payload_of_other_weights_is_refused(system, codec):
    knobs = Knobs(5, 0.25, 1.0, 1)
    with pytest.raises(PayloadError, match="weights"):
        Codec(system, tag=8).decompress(codec.compress(*random_head(codec, knobs), knobs))


def test_quantizer_known_answers():
    quantizer = Quantizer(1)
    with torch.no_grad():
        quantizer.low[1] = -1.5
        quantizer.log_step[1] = 0.0
    y = torch.tensor([-9.0, -1.1, -0.9, 0.0, 0.4, 1.1, 9.0]).view(1, 1, 1, 7)
    levels = quantizer(y, torch.tensor([1])).flatten().tolist()
    assert levels == [-1.5, -1.5, -0.5, 0.5, 0.5, 1.5, 1.5]  # a half goes to the even code


def test_quantizer_passes_gradients_inside_its_range_and_to_its_ends_outside():
    quantizer = Quantizer(1)
    y = torch.tensor([0.1, 9.0]).view(1, 1, 1, 2).requires_grad_()
    quantizer(y, torch.tensor([1])).sum().backward()
    assert y.grad.flatten().tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    assert quantizer.low.grad[1, 0] == pytest.approx(1.0, abs=1e-5)


def test_mask_has_exactly_the_share_of_positions_and_carries_gradient():
    score = torch.randn(3, 1, 7, 7, requires_grad=True)
    mask = keep_positions(score, torch.tensor([0.5, 1.0, 0.5]), 0.5)
    assert mask.sum(dim=(1, 2, 3)).tolist() == [25, 49, 25]
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    mask.sum().backward()
    assert score.grad[0].abs().min() > 0
    assert score.grad[1].abs().max() == 0


def test_forward_is_differentiable_end_to_end(system):
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    system.cut(image, 2, 0.5, torch.tensor([0, 3]), torch.tensor([0.5, 1.0])).sum().backward()
    bottleneck = system.bottleneck(2)
    for parameter in (system.net.stem, bottleneck.encoder, bottleneck.score, bottleneck.quantizer.log_step):
        assert parameter.grad is not None
        assert float(parameter.grad.abs().sum()) > 0
    system.zero_grad()
