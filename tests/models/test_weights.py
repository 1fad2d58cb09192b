import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tidesplit.compression.net.quantizer import Quantizer
from tidesplit.models.slim import LowRank
from tidesplit.models.weights import load_tables, load_weights, read_metadata, save_tables, save_weights


class Net(nn.Module):
    def __init__(self, further=False):
        super().__init__()
        self.conv = nn.Parameter(torch.randn(2, 3, 1, 1))
        self.norm = nn.BatchNorm2d(2)
        self.quantizer = Quantizer(2)
        self.classifier = nn.Linear(2, 2)
        if further:
            self.conv_low = LowRank(2, 3, {"p0": 1, "p1": 1})


def test_halves_but_for_quantizer_and_bias(tmp_path):
    net = Net()
    net.norm.running_var = torch.tensor([2.0, 3.0])
    save_weights(tmp_path / "w", net, {"name": "net"})
    kinds = {name: tensor.dtype for name, tensor in load_file(tmp_path / "w").items()}
    assert kinds["conv"] == kinds["norm.running_var"] == kinds["norm.weight"] == torch.float16
    assert kinds["quantizer.low"] == kinds["classifier.bias"] == torch.float32
    assert not [name for name in kinds if "batches" in name]
    assert read_metadata(tmp_path / "w") == {"name": "net"}


def test_equal_tensors_are_stored_once_and_filled_in_again(tmp_path):
    net, other = Net(), Net()
    net.norm.weight.data = net.norm.running_var = torch.tensor([2.0, 3.0])
    net.conv.data = net.conv.data.half().float()
    save_weights(tmp_path / "w", net, {"name": "net"})
    assert len({"norm.weight", "norm.running_var"} & load_file(tmp_path / "w").keys()) == 1
    load_weights(tmp_path / "w", other)
    for name, tensor in net.state_dict().items():
        if name.startswith(("norm", "conv")):
            assert torch.equal(other.state_dict()[name], tensor), name


def test_a_tensor_said_to_equal_one_that_is_not_there_is_missing(tmp_path):
    net = Net()
    state = {name: t for name, t in net.state_dict().items() if name != "conv" and "batches" not in name}
    save_file(state, tmp_path / "w", {"same": '{"conv": "nowhere"}'})
    with pytest.raises(ValueError, match=r"missing \['conv'\]"):
        load_weights(tmp_path / "w", Net())


def test_what_half_cannot_hold_is_refused(tmp_path):
    net = Net()
    net.norm.running_var.fill_(1e5)
    with pytest.raises(ValueError, match=r"norm\.running_var holds 1e\+05"):
        save_weights(tmp_path / "w", net, {})


def test_only_what_may_be_lacking_may_be_lacking(tmp_path):
    save_weights(tmp_path / "w", Net(), {})
    with pytest.raises(ValueError, match=r"missing \['conv_low.up.p1', 'conv_low.down.p1'\]"):
        load_weights(tmp_path / "w", Net(further=True))
    load_weights(tmp_path / "w", Net(further=True), may_lack="_low.")


def test_tables_lie_next_to_the_weights_and_replace_older_ones(tmp_path):
    net = Net()
    save_weights(tmp_path / "w", net, {"name": "net"})
    save_tables(tmp_path / "w", {"p1-b1": b"old", "p1-b2": b"older"})
    save_tables(tmp_path / "w", {"p1-b1": b"\x00\xff"})
    assert load_tables(tmp_path / "w") == {"p1-b1": b"\x00\xff"}
    assert read_metadata(tmp_path / "w") == {"name": "net"}
    load_weights(tmp_path / "w", net)
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
