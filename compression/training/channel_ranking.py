"""Phase 2: rank the inner channels by a learned channel attention (JMDC), then permute the weights best first.

One gate a channel, trained with the weights frozen. A sparsity pressure as large as the median of the loss's own
gradient lets gates of channels that the loss does not defend sink towards zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tidesplit.compression.net.measure import autocast
from tidesplit.compression.pictures.labelled import CropStyle, Ints, Pictures, batches
from tidesplit.compression.training.config import TrainConfig
from tidesplit.compression.training.loop import Progress
from tidesplit.models.slim import SlimNet

__all__ = ["learn_gates"]

RATE = 0.01  # Adam moves a gate by at most this a step: 100 undefended steps take it from 1 to 0


def _pressure(gates: dict[str, Tensor]) -> None:
    """Add to each gate's gradient a pull towards zero, scaled by its layer's median gradient."""
    for gate in gates.values():
        assert gate.grad is not None
        gate.grad += gate.grad.abs().median() * torch.sign(gate.detach())


def learn_gates(
    net: SlimNet, pictures: Pictures, index: Ints, config: TrainConfig, device: torch.device
) -> dict[str, Tensor]:
    """Train the gates and return them by module name, each `[inner]`. The weights and statistics stay."""
    modules = net.gated()
    gates = {name: torch.ones(net.inner_of(name), device=device, requires_grad=True) for name in modules}
    for name, module in modules.items():
        module.gate = gates[name]
    optimizer = torch.optim.Adam(gates.values(), lr=RATE)
    frozen = [p for p in net.parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    net.eval()
    progress = Progress("rank", config.rank_steps)
    style = CropStyle(config.px, (config.crop_area, 1.0))
    epoch = 0
    while progress.done < config.rank_steps:
        for image, label in batches(pictures, index, config.batch, style, config.seed + 1, epoch):
            with autocast(device):
                logits = net(image.to(device), "r100")
            loss = F.cross_entropy(logits.float(), label.to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            _pressure(gates)
            optimizer.step()
            progress.step([("loss", loss.item())])
            if progress.done >= config.rank_steps:
                break
        epoch += 1
    for module in modules.values():
        module.gate = None
    for parameter in frozen:
        parameter.requires_grad_(True)
    return {name: gate.detach().cpu() for name, gate in gates.items()}
