import pytest
import torch

from tidesplit.compression.net.cnn_work import work_of
from tidesplit.compression.net.measure import top1
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.packed import load_packed
from tidesplit.data.ratios import RATIOS
from tidesplit.models.cifar_resnet import CifarResNet
from tidesplit.models.registry import weights_path
from tidesplit.models.slim import frozen, set_of_ratio
from tidesplit.profiling.measuring.trained import load_trained


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return CifarResNet().eval()


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_net_of_one_width_is_small_and_answers_the_same(net, ratio):
    width_set = set_of_ratio(ratio)
    small, image = frozen(net, width_set), torch.rand(2, 3, 32, 32) * 2 - 1
    assert small.blocks[0].first.shape[0] == 32 * ratio
    with torch.no_grad():
        assert torch.equal(small(image, width_set), net(image, width_set))


def test_head_and_tail_join_to_the_whole(net):
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        for p in range(1, net.partitions):
            feature = net.part(image, "r25", 0, p)
            assert feature.shape[1:] == net.shape(p)
            assert torch.equal(net.part(feature, "r25", p, net.partitions), net(image, "r25"))


def test_ranking_permutes_without_changing_the_function(net):
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = net(image)
        net.rank({name: torch.rand(module.inner) for name, module in net.gated().items()})
        torch.testing.assert_close(net(image), before, rtol=1e-3, atol=1e-4)


def test_the_first_cut_comes_early(net):
    system, image = SplitNet(net).eval(), torch.zeros(1, 3, 32, 32)
    whole, head = work_of(system.device, image, 1.0).macs, work_of(system.head, image, 1, 1.0).macs
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
