"""The training of a bottleneck, on random features and a tail of one layer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from tidesplit.compression.net.bottleneck import Bottleneck, BottleneckSpec
from tidesplit.prepare.cut_net import FULL
from tidesplit.prepare.distilled import Distillation, DistillOptions
from tidesplit.prepare.linear_bottleneck import LinearBottleneck
from tidesplit.prepare.task import Classes
from tidesplit.runtime.wire.output_tensors import AnswerForm

SPEC = BottleneckSpec(wire=6, stride=2, kernel=3, hidden=12)


class _Tail(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.last = nn.Linear(5, 3).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.relu(x).mean((2, 3)))
        return out


class _Random:
    """In place of `Cached`: features that hold more dimensions than cross."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        self.features = torch.randn(64, 5, 7, 7) + torch.randn(5, 7, 7)
        self.logits = _Tail()(self.features)

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, which: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        return self.features[which], self.logits[which]


def distillation(bottleneck: Bottleneck, options: DistillOptions) -> Distillation:
    task = Classes(AnswerForm.of_classes("abc"), None)
    return Distillation([_Tail()], bottleneck, _Random(), task, options)  # type: ignore[arg-type, list-item]


def linear_bottleneck() -> LinearBottleneck:
    torch.manual_seed(0)
    return LinearBottleneck(1, (5, 7, 7), SPEC)


def test_training_moves_the_decoder_only() -> None:
    begun, trained, options = linear_bottleneck(), linear_bottleneck(), DistillOptions(steps=20, batch=16)
    start, whole = distillation(begun, options), distillation(trained, options)
    start.begin()
    whole.run(lambda share, loss: None)
    before, after, cached = begun.state_dict(), trained.state_dict(), _Random()
    assert {name for name, tensor in after.items() if not torch.equal(tensor, before[name])} == {
        "direct", "mean", "mix", "spread", "expand",
        *(f"{norm}.{part}" for norm in ("mix_norm", "spread_norm") for part in ("weight", "bias")),
    }  # fmt: skip
    rows = torch.full((64,), 2)
    with torch.no_grad():
        rebuilt = begun.decode(begun.encode(cached.features, FULL)[0])
        losses = [float(some.losses(cached.features, cached.logits, rows).mean()) for some in (start, whole)]
    torch.testing.assert_close(rebuilt.mean(0), cached.features.mean(0), atol=0.2, rtol=0)  # by position
    assert losses[1] < losses[0]


@pytest.mark.parametrize("kind", [Bottleneck, LinearBottleneck])
def test_minutes_end_a_training(kind: type[Bottleneck]) -> None:
    steps = list[float]()
    options = DistillOptions(minutes=1e-4, steps=10**6, batch=16)
    distillation(kind(1, (5, 7, 7), SPEC), options).run(lambda share, loss: steps.append(share))
    assert 0 < len(steps) < 10**6
