"""Phase 2: rank the inner channels by a learned channel attention (JMDC), then permute the weights best first.

Each channel has one gate, trained with the weights frozen. A pressure towards zero acts on all gates, as large as the
median gradient of the loss. So the gates of channels that the loss does not defend sink towards zero.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tidesplit.compression.net.measure import autocast
from tidesplit.compression.phase.phase_loop import Phase, TrainingJob
from tidesplit.compression.pictures.labelled import CropStyle
from tidesplit.models.slim_net import SlimNet

RATE = 0.01  # Adam moves a gate by at most this a step: 100 undefended steps take it from 1 to 0


def _press(gates: dict[str, Tensor]) -> None:
    """Add to each gate's gradient a pull towards zero, scaled by its layer's median gradient."""
    for gate in gates.values():
        assert gate.grad is not None
        gate.grad += gate.grad.abs().median() * torch.sign(gate.detach())


def learn_gates(net: SlimNet, job: TrainingJob) -> dict[str, Tensor]:
    """Train the gates and return them by module name, each `[inner]`. Weights and statistics do not change."""
    config, modules = job.config, net.gated()
    gates = {name: torch.ones(m.inner, device=job.device, requires_grad=True) for name, m in modules.items()}
    for name, module in modules.items():
        module.gate = gates[name]
    net.requires_grad_(False)
    net.eval()
    phase = Phase(
        job, "rank", steps=config.rank_steps, optimizer=torch.optim.Adam(gates.values(), lr=RATE),
        schedule=lambda *_: 1.0, groups=[list(gates.values())], clip=math.inf, gives_way=False,
    )  # fmt: skip
    style = CropStyle(config.px, (config.crop_area, 1.0))
    for image, label in phase.batches(config.seed + 1, lambda _: style):
        with autocast(job.device):
            logits = net(image, "r100")
        loss = F.cross_entropy(logits.float(), label)
        loss.backward()  # type: ignore[no-untyped-call]
        _press(gates)
        phase.step({"loss": loss.item()})
    phase.finish()
    for module in modules.values():
        module.gate = None
    net.requires_grad_(True)
    return {name: gate.detach().cpu() for name, gate in gates.items()}
