"""What a net computes for one input, counted while it runs without arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


class CnnWork(NamedTuple):
    """Multiply-accumulates, and values that convolutions read and write, without weights and padding."""

    macs: float
    values: float


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    macs = values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is aten.constant_pad_nd.default:
            self.values -= made.numel() - args[0].numel()
        elif func is aten.convolution.default:
            self.values += args[0].numel() + made.numel()
        flops = flop_registry.get(func.overloadpacket)
        self.macs += 0 if flops is None else flops(*args, **(kwargs or {}), out_val=made) // 2
        return made


def work_of(run: Callable[..., object], x: Tensor, *options: object) -> CnnWork:
    """The work of a run for `x` `[1, ...]`, and further arguments."""
    counter = _Counter()  # type: ignore[no-untyped-call]
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as fake, counter:
        run(fake.from_tensor(x), *options)
    return CnnWork(counter.macs, counter.values)
