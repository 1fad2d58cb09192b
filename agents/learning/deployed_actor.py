"""The part of a policy that is deployed: normaliser and actor, without the critic, in few operations.

A decision is small: each operation of ONNX Runtime costs more than its numbers do. So state and points are scaled
together, by one formula for all kinds of columns. The logits equal the trained policy's up to rounding.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tidesplit.agents.learning.policy import PointPolicy
from tidesplit.agents.learning.scorer import CLIP, FINE, FINE_J, LEAST_PRICE, Normaliser

LEAST = 10.0  # added to a column before its logarithm is taken, see `Normaliser`


class _Scales(NamedTuple):
    """Constants of some columns, ``[C]``.

    A scaled column is sign(z) * log(1 + abs(z)), where z = max(column / (of_deadline * deadline + fixed), least).
    Others stay. Both are then standardised.
    """

    of_deadline: Tensor
    fixed: Tensor
    least: Tensor
    scaled: Tensor
    mean: Tensor
    std: Tensor


def _scales(of: Normaliser) -> _Scales:
    mean, std = of.mean.double(), of.std.double()
    found = _Scales(
        torch.zeros_like(mean), torch.ones_like(mean), torch.zeros_like(mean),
        torch.zeros_like(mean, dtype=torch.bool), mean.clone(), std.clone(),
    )  # fmt: skip
    times, logs, joules = of.time_columns, of.log_columns, of.energy_columns
    found.of_deadline[times], found.fixed[times], found.least[times] = FINE, 0.0, -math.inf
    found.fixed[joules] = FINE_J
    # log10(x + 10) = 1 + log(1 + x / 10) / log(10). The sum and the factor go to mean and spread.
    found.fixed[logs], found.mean[logs], found.std[logs] = (
        LEAST,
        (mean[logs] - 1.0) * math.log(10),
        std[logs] * math.log(10),
    )
    # log10(f x + 0.1) = log(1 + f x / 0.1) / log(10) - 1, where f is a price's factor.
    prices = of.price_columns
    found.fixed[prices], found.mean[prices], found.std[prices] = (
        LEAST_PRICE / of.price_factors.double(),
        (mean[prices] + 1.0) * math.log(10),
        std[prices] * math.log(10),
    )
    found.scaled[torch.cat([times, logs, joules, prices])] = True
    return _Scales(*(column if column.dtype == torch.bool else column.float() for column in found))


class DeployedActor(nn.Module):
    """Raw state ``[B, S]`` and points ``[B, F, A]`` to logits ``[B, A]``."""

    def __init__(self, policy: PointPolicy) -> None:
        super().__init__()
        self.actor = policy.actor
        self._deadline = policy.fields.state.index("deadline_s")
        self._of_state, self._of_points = _scales(policy.features.state), _scales(policy.features.points)

    def arrays(self) -> dict[str, Any]:
        """The constants of all columns and the weights by name, for `agents.device_net`."""
        groups = {"state": self._of_state, "points": self._of_points}
        constants = {f"{group}.{k}": v for group, of in groups.items() for k, v in of._asdict().items()}
        tensors = {**constants, **self.actor.state_dict()}
        numbers = {"deadline": np.array(self._deadline), "clip": np.array(CLIP)}
        return {**numbers, **{name: t.detach().cpu().numpy() for name, t in tensors.items()}}

    def forward(self, state: Tensor, points: Tensor) -> Tensor:
        """Logits of raw observations."""
        width, fields, count = state.shape[1], points.shape[1], points.shape[2]
        pairs = zip(self._of_state, self._of_points, strict=True)
        of = _Scales(*(torch.cat([s, p[:, None].expand(-1, count).reshape(-1)]) for s, p in pairs))
        columns = torch.cat([state, points.flatten(1)], dim=1)
        deadline_s = state[:, self._deadline : self._deadline + 1]
        z = torch.maximum(columns / (deadline_s * of.of_deadline + of.fixed), of.least)
        scaled = torch.where(of.scaled, z.sign() * (z.abs() + 1.0).log(), columns)
        standard = ((scaled - of.mean) / of.std).clamp(-CLIP, CLIP)
        logits: Tensor = self.actor(standard[:, :width], standard[:, width:].reshape(-1, fields, count).transpose(1, 2))
        return logits
