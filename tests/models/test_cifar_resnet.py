import pytest
import torch

from models.cifar_resnet import CUTS, CifarResNet
from models.graph import Builder
from models.slim import RATIOS, set_of_ratio


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return CifarResNet().eval()


@pytest.mark.parametrize("ratio", RATIOS)
def test_folded_graph_equals_the_module(net, ratio):
    width_set = set_of_ratio(ratio)
    builder = Builder((3, 32, 32))
    graph = builder.finish(net.build_tail(builder, net.build_head(builder, width_set, 0), width_set, 0))
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(graph.run(image)[0], net(image, width_set), rtol=1e-3, atol=1e-3)


def test_head_and_tail_join_to_the_whole(net):
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        for cut in CUTS:
            feature = net.head(image, "r25", cut)
            assert feature.shape[1:] == net.feature_shape(cut, 32)
            assert torch.equal(net.tail(feature, "r25", cut), net(image, "r25"))


def test_ranking_permutes_without_changing_the_function(net):
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = net(image)
        net.rank({name: torch.rand(net.inner_of(name)) for name in net.gated()})
        torch.testing.assert_close(net(image), before, rtol=1e-3, atol=1e-4)
