import pytest
import torch

from tidesplit.compression.net.cnn_work import work_of
from tidesplit.compression.net.deploy import head_model, part_model, tail_model
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.session import session
from tidesplit.models.efficientnet_lite0 import EfficientNetLite0


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    return SplitNet(EfficientNetLite0(11)).eval()


def run(model, x):
    return session(model.SerializeToString()).run(None, {"x": x})


def test_models_in_onnx_runtime_equal_torch(system):
    """Making a model compares it with its own module; here the whole network is compared."""
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        feature, y, score = run(head_model(system, 2, 0.25), image.numpy())
        expected = system.head(image, 2, 0.25)
        for ours, theirs in zip((feature, y, score), expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(ours), theirs, rtol=1e-3, atol=1e-3)
        cut = system.bottleneck(2).cut
        wire = torch.zeros(1, cut.channels, cut.height, cut.width)
        wire[:, : y.shape[1]] = torch.from_numpy(y)
        logits = run(tail_model(system, 2), wire.numpy())[0]
        torch.testing.assert_close(torch.from_numpy(logits), system.tail(wire, 2), rtol=1e-3, atol=1e-3)
        whole = run(part_model(system, 0, 6, 0.25), image.numpy())[0]
        finished = run(part_model(system, 2, 6, 0.25), feature)[0]
        torch.testing.assert_close(torch.from_numpy(whole), system.device(image, 0.25), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(torch.from_numpy(finished), torch.from_numpy(whole), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("partition", [1, 2, 3, 4, 5])
def test_a_narrow_head_computes_less(system, partition):
    image = torch.zeros(1, 3, 224, 224)
    narrow, full = (work_of(system.head, image, partition, ratio).macs for ratio in (0.25, 1.0))
    assert narrow * 2.5 < full


def test_export_refuses_training_mode():
    with pytest.raises(RuntimeError, match="eval"):
        part_model(SplitNet(EfficientNetLite0(11)), 0, 6, 0.25)
