"""The cut finder: published figures of well-known nets, bit-for-bit halves, and nets made to be awkward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.nets import MobileNetV2, NoCut, ResNet18, SkipDag, alexnet, conv_bn, vgg16
from tidesplit.profiling.cuts.legal_cuts import NoLegalCutError, find_cuts, main, split, table
from tidesplit.profiling.cuts.operations import TraceFailedError, trace

NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": ResNet18,
    "mobilenet_v2": MobileNetV2,
    "vgg16": vgg16,
    "alexnet": alexnet,
    "skip_dag": SkipDag,
}

# Multiply-accumulates in millions at 224x224 as published with torchvision's weights, and the number of operations
# after which one tensor is alive, the last one (the output) left out.
PUBLISHED = {"resnet18": (1814, 22), "mobilenet_v2": (301, 71), "vgg16": (15470, 39), "alexnet": (714, 21)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nets this small lose more to waiting for a second thread than they gain, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lively(net: nn.Module) -> nn.Module:
    """Batch norms with statistics that are not 0 and 1, so that leaving one out would show."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.empty(module.num_features).uniform_(-0.5, 0.5)
            module.running_var = torch.empty(module.num_features).uniform_(0.5, 2.0)
    return net.eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_multiply_accumulates(name: str) -> None:
    cuts = find_cuts(trace(NETS[name](), torch.zeros(1, 3, 224, 224)))
    total, count = PUBLISHED[name]
    assert len(cuts) == count
    assert {round((cut.macs_before + cut.macs_after) / 1e6) for cut in cuts} == {total}
    assert all(a.macs_before <= b.macs_before for a, b in pairwise(cuts))


@pytest.mark.parametrize(("name", "size", "every"), [
    ("resnet18", 32, 1), ("mobilenet_v2", 32, 4), ("vgg16", 32, 7), ("alexnet", 96, 3), ("skip_dag", 16, 1),
])  # fmt: skip
def test_head_and_tail_equal_the_whole_bit_for_bit(name: str, size: int, every: int) -> None:
    torch.manual_seed(0)
    net, x = lively(NETS[name]()), torch.randn(1, 3, size, size)
    traced = trace(net, x)
    with torch.no_grad():
        whole = net(x.clone())
        for cut in find_cuts(traced)[::every]:
            head, tail = split(traced, cut)
            feature = head(x.clone())
            assert (tuple(feature.shape), feature.nbytes) == (cut.shape, cut.feature_bytes)
            assert torch.equal(tail(feature), whole), cut.name


def test_cuts_of_a_dag_with_skips() -> None:
    cuts = find_cuts(trace(SkipDag(), torch.zeros(1, 3, 4, 4)))
    found = [(cut.name, cut.operation, cut.shape, cut.macs_before, cut.macs_after) for cut in cuts]
    assert found == [
        ("stem", "conv2d", (1, 8, 4, 4), 3456, 21504),  # 16 x 8 x 27
        ("relu", "relu", (1, 8, 4, 4), 3456, 21504),
        ("cat", "cat", (1, 16, 4, 4), 13696, 11264),  # + 16 x 8 x 72 + 16 x 8 x 8
        ("after", "conv2d", (1, 8, 4, 4), 15744, 9216),  # + 16 x 8 x 16; left: 16 x 8 x 72
    ]
    assert [cut.index for cut in cuts] == [1, 2, 3, 4]
    assert [cut.feature_bytes for cut in cuts] == [512, 512, 1024, 512]


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            NoCut(),
            "no legal cut: exactly one live tensor expected; .* after 'one', 2 are needed later: 'x', 'conv2d'",
        ),
        (nn.Conv2d(3, 3, 1), "no legal cut: at least two operations expected"),
        (nn.Identity(), "no legal cut: at least two operations expected"),
    ],
)
def test_nets_without_a_legal_cut_say_why(net: nn.Module, message: str) -> None:
    with pytest.raises(NoLegalCutError, match=message):
        find_cuts(trace(net, torch.zeros(1, 3, 4, 4)))


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x - 1


def test_control_flow_on_values_is_refused_with_its_reason() -> None:
    with pytest.raises(TraceFailedError, match=r"DataDependent: torch.export cannot follow this net \(.+\)"):
        trace(DataDependent(), torch.zeros(1, 3, 4, 4))


class Awkward(nn.Module):
    """A branch on a shape, a split into a list, a tensor made of weights only, in place work, a dict out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv_bn(3, 8, 3)
        self.scale = nn.Parameter(torch.randn(8))
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> dict[str, Any]:
        gain = self.scale.exp().view(1, -1, 1, 1)
        x.mul_(2)
        y = self.conv(x)
        if y.shape[-1] > 2:
            y = nn.functional.avg_pool2d(y, 2)
        y = y * gain
        left, right = y.chunk(2, dim=1)
        z = left.relu_() + right * gain[:, :4]
        return {"logits": self.fc(z.mean((2, 3))), "both": (z, [z.sum()])}


def test_an_awkward_net() -> None:
    torch.manual_seed(0)
    net, x = lively(Awkward()), torch.randn(1, 3, 8, 8)
    kept = x.clone()
    traced = trace(net, x)
    assert torch.equal(x, kept), "tracing must not touch the example"
    cuts = find_cuts(traced)
    assert {"conv.0", "conv.1", "conv.2"} < {cut.name for cut in cuts}
    assert {"chunk", "split"}.isdisjoint(cut.operation for cut in cuts), "a list is not a tensor"
    with torch.no_grad():
        whole = net(x.clone())
        for cut in cuts:
            head, tail = split(traced, cut)
            parts = tail(head(x.clone()))
            assert list(parts) == ["logits", "both"]
            assert torch.equal(parts["logits"], whole["logits"]), cut.name
            assert torch.equal(parts["both"][1][0], whole["both"][1][0]), cut.name


def test_weights_are_shared_and_training_flags_come_back() -> None:
    net = ResNet18()
    net.blocks[0].eval()
    before = [module.training for module in net.modules()]
    traced = trace(net, torch.zeros(1, 3, 32, 32))
    assert [module.training for module in net.modules()] == before
    head, tail = split(traced, find_cuts(traced)[5])
    ours = {weight.data_ptr() for half in (head, tail) for weight in half.parameters()}
    assert ours == {weight.data_ptr() for weight in net.parameters()}
    assert sum(weight.numel() for half in (head, tail) for weight in half.parameters()) == sum(
        weight.numel() for weight in net.parameters()
    )


def test_batch_norm_uses_its_statistics_even_if_the_net_was_training() -> None:
    torch.manual_seed(0)
    net, x = lively(ResNet18()).train(), torch.randn(2, 3, 32, 32)
    traced = trace(net, x)
    head, tail = split(traced, find_cuts(traced)[3])
    with torch.no_grad():
        assert torch.equal(tail(head(x)), net.eval()(x))


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tests.nets:SkipDag", "--shape", "1,3,4,4"]) == 0
    assert "1x16x4x4" in capsys.readouterr().out
    assert main(["tests.nets:SkipDag", "--shape", "1,3,4,4", "--json"]) == 0
    assert '"macs_before": 3456' in capsys.readouterr().out
    for wrong in (["tests.nets:NoCut"], ["tests.nets:Nothing"], ["no_such_module:net"], ["tests.nets:torch.nn"]):
        assert main(wrong) == 2
    assert capsys.readouterr().err.count("error: ") == 4
    assert table(()).startswith(" cut after")
