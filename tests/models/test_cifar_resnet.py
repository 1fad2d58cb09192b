import pytest
import torch

from tidesplit.compression.net.deployed_graphs import device_graph, head_graph
from tidesplit.compression.net.measure import top1
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.packed import load_packed
from tidesplit.data.ratios import RATIOS
from tidesplit.models.cifar_resnet import CUTS, CifarResNet
from tidesplit.models.graph import Builder
from tidesplit.models.registry import weights_path
from tidesplit.models.slim import set_of_ratio
from tidesplit.profiling.measuring.trained import load_trained


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
        net.rank({name: torch.rand(module.inner) for name, module in net.gated().items()})
        torch.testing.assert_close(net(image), before, rtol=1e-3, atol=1e-4)


def test_the_first_cut_comes_early(net):
    system = SplitNet(net).eval()
    whole, head = device_graph(system, 1.0).macs(), head_graph(system, 1, 1.0).macs()
    assert whole < 22e6
    assert head < 0.25 * whole  # its encoder counted


def test_bundled_weights_are_small_and_right_about_most_test_pictures(shared):
    path = weights_path("cifar_resnet")
    assert path.stat().st_size <= 640_000
    data = shared / "data" / "cifar10" / "cifar10_jpeg_test_packed.npz"
    if not data.exists():
        pytest.skip("needs the packed CIFAR-10 pictures")
    trained, pictures = load_trained("cifar_resnet"), load_packed(data)
    assert trained.classes == pictures.classes
    few = pictures.images[:500], pictures.labels[:500]
    assert top1(lambda image: trained.system.device(image, 1.0), *few) > 0.75
