"""The policy's two nets: one that scores every operating point with shared weights, and a critic.

Because a point is seen through its features alone, the nets know neither how many points there are nor which CNN they
belong to: a policy trained once serves a profile that it never saw.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tidesplit.envs.world.fields import ONE_HOP, Fields, fields_of

# How each column is brought to a common scale before it is standardised: rates and sizes by their logarithm, durations
# by their ratio to the deadline (so that one policy reads every deadline alike), the rest as it is.
LOGARITHMIC = {"goodput", "goodput_last", "goodput_low", "payload", "in_flight_bytes"}
LOGARITHMIC |= {f"hop2_{name}" for name in LOGARITHMIC}
DURATIONS = {name for group in fields_of(2) for name in group if name.endswith("_s")} - {"deadline_s"}
FINE = 0.05  # of the deadline: durations far below it are told apart by their size, those above by their logarithm
CLIP = 8.0  # standard deviations; what lies beyond is as good as infinite


class Normaliser(nn.Module):
    """Brings a group of named columns, axis 1, to zero mean and unit variance."""

    mean: Tensor
    std: Tensor
    log_columns: Tensor
    time_columns: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(names)))
        self.register_buffer("std", torch.ones(len(names)))
        self.register_buffer("log_columns", torch.tensor([i for i, n in enumerate(names) if n in LOGARITHMIC]))
        self.register_buffer("time_columns", torch.tensor([i for i, n in enumerate(names) if n in DURATIONS]))

    def scaled(self, columns: Tensor, deadline_s: Tensor) -> Tensor:
        """Columns ``[B, C]`` or ``[B, C, A]`` on a common scale, not yet standardised."""
        relative = columns.index_select(1, self.time_columns) / deadline_s
        # Finely near zero, where a few milliseconds make a frame late, and ever more coarsely away from it.
        relative = relative.sign() * torch.log1p(relative.abs() / FINE)
        logs = torch.log10(columns.index_select(1, self.log_columns).clamp(min=0.0) + 10.0)
        return columns.index_copy(1, self.time_columns, relative).index_copy(1, self.log_columns, logs)

    def forward(self, columns: Tensor, deadline_s: Tensor) -> Tensor:
        """Standardised columns, same shape."""
        shape = [1, -1] + [1] * (columns.ndim - 2)
        centred = self.scaled(columns, deadline_s) - self.mean.reshape(shape)
        return (centred / self.std.reshape(shape)).clamp(-CLIP, CLIP)

    @torch.no_grad()
    def fit(self, columns: Tensor, deadline_s: Tensor) -> None:
        """Take mean and spread from a sample of observations."""
        scaled = self.scaled(columns, deadline_s)
        dims = [d for d in range(scaled.ndim) if d != 1]
        self.mean.copy_(scaled.mean(dim=dims))
        self.std.copy_(scaled.std(dim=dims).clamp(min=0.02))


class Features(nn.Module):
    """Normalised state ``[B, S]`` and points ``[B, A, F]`` out of raw state ``[B, S]`` and points ``[B, F, A]``."""

    def __init__(self, fields: Fields = ONE_HOP) -> None:
        super().__init__()
        self.fields = fields
        self.state = Normaliser(fields.state)
        self.points = Normaliser(fields.points)

    def forward(self, state: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Both column groups, normalised."""
        deadline_s = state[:, [self.fields.state.index("deadline_s")]]
        return self.state(state, deadline_s), self.points(points, deadline_s[:, :, None]).transpose(1, 2)

    def fit(self, state: Tensor, points: Tensor) -> None:
        """Take mean and spread from a sample of observations."""
        deadline_s = state[:, [self.fields.state.index("deadline_s")]]
        self.state.fit(state, deadline_s)
        self.points.fit(points, deadline_s[:, :, None])


class Scorer(nn.Module):
    """Encodes each point beside the state, then lets it look at the best of all others (max pooling, DeepSets)."""

    def __init__(self, hidden: int, fields: Fields = ONE_HOP) -> None:
        super().__init__()
        self.of_state = nn.Linear(len(fields.state), hidden)
        self.of_point = nn.Linear(len(fields.points), hidden, bias=False)
        self.own = nn.Linear(hidden, hidden)
        self.others = nn.Linear(hidden, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, state: Tensor, points: Tensor) -> Tensor:
        """Logits ``[B, A]`` of normalised features."""
        encoded = torch.relu(self.of_state(state)[:, None, :] + self.of_point(points))
        pooled = encoded.amax(dim=1)
        scores: Tensor = self.score(torch.relu(self.own(encoded) + self.others(pooled)[:, None, :]))
        return scores[:, :, 0]


class Critic(nn.Module):
    """Value of a situation. It sees the points through their columns' mean and extremes: a value needs no order.

    ``told`` further columns ``[B, told]`` come with the state.
    """

    def __init__(self, hidden: int, told: int, fields: Fields = ONE_HOP) -> None:
        super().__init__()
        self.value = nn.Sequential(
            nn.Linear(len(fields.state) + 3 * len(fields.points) + told, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, state: Tensor, points: Tensor, told: Tensor) -> Tensor:
        """Values ``[B, 1]`` of normalised features."""
        summary = [told, state, points.mean(dim=1), points.amax(dim=1), points.amin(dim=1)]
        values: Tensor = self.value(torch.cat(summary, dim=1))
        return values
