"""The policy's nets: a scorer of operating points with shared weights, and a critic.

The nets see a point only through its features. They know neither how many points there are nor which CNN they belong
to, so a trained policy serves profiles that it never saw.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tidesplit.envs.world.fields import ONE_HOP, Fields, fields_of

# Columns get a common scale before they are standardised. Rates, sizes and ages in frames: their logarithm. Durations:
# their ratio to the deadline, so that one policy reads all deadlines alike. Energies: their logarithm above FINE_J.
# Others stay.
LOGARITHMIC = {"goodput", "goodput_last", "goodput_low", "payload", "in_flight_bytes"}
LOGARITHMIC |= {"steady_payload", "reference_age"}
LOGARITHMIC |= {f"hop2_{name}" for name in LOGARITHMIC}
DURATIONS = {name for group in fields_of(2) for name in group if name.endswith("_s")} - {"deadline_s"}
ENERGIES = {"joules"}
PRICES = {"joule_price": 1.0, "byte_price": 3e4}  # each with the factor that brings usual prices to about one
LEAST_PRICE = 0.1  # added to a price before its logarithm is taken, after the factor
FINE_J = 0.05  # energy, joules, with the same meaning as FINE
FINE = 0.05  # share of the deadline below which the scale of durations is linear, and above which it is logarithmic
CLIP = 8.0  # standard deviations; larger values are clipped, for they mean "never" or "unknown"


class Normaliser(nn.Module):
    """Standardises named columns, axis 1, to zero mean and unit variance."""

    mean: Tensor
    std: Tensor
    log_columns: Tensor
    time_columns: Tensor
    energy_columns: Tensor
    price_columns: Tensor
    price_factors: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(names)))
        self.register_buffer("std", torch.ones(len(names)))
        self.register_buffer("log_columns", torch.tensor([i for i, n in enumerate(names) if n in LOGARITHMIC]))
        self.register_buffer("time_columns", torch.tensor([i for i, n in enumerate(names) if n in DURATIONS]))
        energies = [i for i, n in enumerate(names) if n in ENERGIES]
        self.register_buffer("energy_columns", torch.tensor(energies, dtype=torch.int64))
        self.has_energies = bool(energies)
        prices = [(i, PRICES[n]) for i, n in enumerate(names) if n in PRICES]
        self.register_buffer("price_columns", torch.tensor([i for i, _ in prices], dtype=torch.int64))
        self.register_buffer("price_factors", torch.tensor([factor for _, factor in prices]))
        self.has_prices = bool(prices)

    def scaled(self, columns: Tensor, deadline_s: Tensor) -> Tensor:
        """Columns ``[B, C]`` or ``[B, C, A]`` on a common scale, not yet standardised."""
        relative = columns.index_select(1, self.time_columns) / deadline_s
        # The scale is finest near zero, where a few milliseconds make a frame late.
        relative = relative.sign() * torch.log1p(relative.abs() / FINE)
        logs = torch.log10(columns.index_select(1, self.log_columns).clamp(min=0.0) + 10.0)
        if self.has_prices:
            prices = torch.log10(columns.index_select(1, self.price_columns) * self.price_factors + LEAST_PRICE)
            columns = columns.index_copy(1, self.price_columns, prices)
        if not self.has_energies:
            return columns.index_copy(1, self.time_columns, relative).index_copy(1, self.log_columns, logs)
        joules = torch.log1p(columns.index_select(1, self.energy_columns).clamp(min=0.0) / FINE_J)
        scaled = columns.index_copy(1, self.time_columns, relative).index_copy(1, self.log_columns, logs)
        return scaled.index_copy(1, self.energy_columns, joules)

    def forward(self, columns: Tensor, deadline_s: Tensor) -> Tensor:
        """Standardised columns, same shape. ``deadline_s`` broadcasts against the columns."""
        shape = [1, -1] + [1] * (columns.ndim - 2)
        centred = self.scaled(columns, deadline_s) - self.mean.reshape(shape)
        return (centred / self.std.reshape(shape)).clamp(-CLIP, CLIP)

    @torch.no_grad()
    def fit(self, columns: Tensor, deadline_s: Tensor) -> None:
        """Set mean and standard deviation from a sample of observations."""
        scaled = self.scaled(columns, deadline_s)
        dims = [d for d in range(scaled.ndim) if d != 1]
        self.mean.copy_(scaled.mean(dim=dims))
        self.std.copy_(scaled.std(dim=dims).clamp(min=0.02))


class Features(nn.Module):
    """Normalises a raw state ``[B, S]`` and raw points ``[B, F, A]`` to a state ``[B, S]`` and points ``[B, A, F]``."""

    def __init__(self, fields: Fields = ONE_HOP) -> None:
        super().__init__()
        self.fields = fields
        self.state = Normaliser(fields.state)
        self.points = Normaliser(fields.points)

    def forward(self, state: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """State ``[B, S]`` and points ``[B, A, F]``, normalised."""
        deadline_s = state[:, [self.fields.state.index("deadline_s")]]
        return self.state(state, deadline_s), self.points(points, deadline_s[:, :, None]).transpose(1, 2)

    def fit(self, state: Tensor, points: Tensor) -> None:
        """Set mean and standard deviation of all columns from a sample of observations."""
        deadline_s = state[:, [self.fields.state.index("deadline_s")]]
        self.state.fit(state, deadline_s)
        self.points.fit(points, deadline_s[:, :, None])


class Scorer(nn.Module):
    """Scores each point from its own encoding with the state, and from the maximum over all points' encodings.

    Pooling over the points is that of DeepSets (Zaheer et al., NeurIPS 2017).
    """

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
    """Estimates the value of a state. It sees the mean, maximum and minimum of each column of the points.

    Args:
        hidden: width of the hidden layers.
        privileged: number of privileged columns.
        fields: names of the observation's columns.
    """

    def __init__(self, hidden: int, privileged: int, fields: Fields = ONE_HOP) -> None:
        super().__init__()
        self.value = nn.Sequential(
            nn.Linear(len(fields.state) + 3 * len(fields.points) + privileged, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, state: Tensor, points: Tensor, privileged: Tensor) -> Tensor:
        """Values ``[B, 1]`` of normalised features and privileged columns ``[B, P]``."""
        values: Tensor = self.value(self.summary(state, points, privileged))
        return values

    def summary(self, state: Tensor, points: Tensor, privileged: Tensor) -> Tensor:
        """Everything that the critic reads, ``[B, C]``."""
        columns = points.permute(1, 0, 2).contiguous()  # points first: sums and maxima are then of whole rows
        return torch.cat([privileged, state, columns.mean(dim=0), columns.amax(dim=0), columns.amin(dim=0)], dim=1)
