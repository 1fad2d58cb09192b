"""Parts of the training phases: schedules, averaged weights, mixup, checkpoints, threads, progress."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tidesplit.data.files import whole


def cosine(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate. It rises linearly over `warmup` steps, then falls as half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


Schedule = Callable[[int, float], float]  # from the step and the share of the phase done to a factor on the rate


def by_steps(steps: int, warmup: int) -> Schedule:
    """Cosine over a number of steps."""
    return lambda step, _: cosine(step, steps, warmup)


def by_share(warmup: int) -> Schedule:
    """Cosine over the share of the phase that is done, for phases that are limited by time."""
    return lambda step, share: min(1.0, (step + 1) / warmup) * cosine(round(share * 10000), 10000, 0)


def adamw(net: nn.Module, rate: float, weight_decay: float, classifier: float = 1.0) -> torch.optim.Optimizer:
    """AdamW with `classifier` times the rate for the classifier, and no decay of one-dimensional parameters."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        groups.setdefault((name.startswith("classifier"), parameter.dim() > 1), []).append(parameter)
    options = [
        {"params": some, "lr": rate * (classifier if last else 1.0), "weight_decay": weight_decay * decays}
        for (last, decays), some in groups.items()
    ]
    return torch.optim.AdamW(options)


class Average:
    """Exponential moving average of parameters. A phase ends with it in place of them."""

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self.parameters, self.decay, self.steps = parameters, decay, 0
        self.weights = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Blend in the parameters as they are now. Early ones count more, so that the start is forgotten."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.weights, [p.detach() for p in self.parameters], 1.0 - decay)

    @torch.no_grad()
    def put(self) -> None:
        """Overwrite the parameters with their average."""
        for parameter, weight in zip(self.parameters, self.weights, strict=True):
            parameter.copy_(weight)

    @torch.no_grad()
    def load(self, weights: Sequence[Tensor], steps: int) -> None:
        """Go on from an average of so many steps."""
        self.steps = steps
        for own, weight in zip(self.weights, weights, strict=True):
            own.copy_(weight)


def mixup(image: Tensor, label: Tensor, classes: int, alpha: float, smoothing: float) -> tuple[Tensor, Tensor]:
    """Blend each picture with another one. Returns images `[B, 3, H, W]` and smoothed targets `[B, classes]`."""
    target = torch.full((len(label), classes), smoothing / classes, device=label.device)
    target.scatter_(1, label[:, None], 1.0 - smoothing + smoothing / classes)
    if alpha <= 0.0:
        return image, target
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    share = max(share, 1.0 - share)
    return image * share + image.flip(0) * (1.0 - share), target * share + target.flip(0) * (1.0 - share)


def save_checkpoint(path: Path, **state: Any) -> None:
    """Write a checkpoint. A run that dies meanwhile leaves the previous one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        torch.save(state, part)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint. It may hold tensors and plain values, but no code."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def busy_cores() -> float | None:
    """Processor seconds used since the machine started, without niced processes. None where that is unknown."""
    try:
        ticks = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, _, system = (int(t) for t in ticks[:3])
    return (user + system) / os.sysconf("SC_CLK_TCK")


class ThreadChooser:
    """Sets torch's threads to the number of cores that other work leaves free, every few seconds.

    A parallel loop waits for its slowest thread. With one of two cores taken by other work, a training step on two
    threads took three to six times as long as on one.
    """

    def __init__(
        self, threads: int, every_s: float = 4.0, clock: Callable[[], float] = time.perf_counter,
        everyone: Callable[[], float | None] = busy_cores, own: Callable[[], float] = time.process_time,
    ) -> None:  # fmt: skip
        self.threads, self.every_s, self.clock, self.everyone, self.own = threads, every_s, clock, everyone, own
        self.last = (clock(), everyone(), own())

    def step(self) -> None:
        """Judge the load, if it is time. Call it after every step."""
        now = (self.clock(), self.everyone(), self.own())
        (start, before, mine), (end, after, ours) = self.last, now
        if self.threads == 1 or before is None or after is None or end - start < self.every_s:
            return
        others = ((after - before) - (ours - mine)) / (end - start)
        torch.set_num_threads(max(1, self.threads - round(others + 0.2)))
        self.last = now


@dataclass
class Progress:
    """Prints a line now and then: steps done, losses, pace, time left."""

    name: str
    steps: int
    done: int = 0
    every_s: float = 20.0
    start: float = field(default_factory=time.perf_counter)
    last: float = 0.0
    first: int | None = None

    def step(self, values: Iterable[tuple[str, float]]) -> bool:
        """Count a step. Returns True where it printed a line."""
        self.first = self.done if self.first is None else self.first
        self.done += 1
        now = time.perf_counter()
        if now - self.last < self.every_s and self.done != self.steps:  # a phase by time may pass its steps
            return False
        self.last = now
        pace = (now - self.start) / max(1, self.done - self.first)
        left = pace * (self.steps - self.done)
        text = " ".join(f"{key} {value:.4f}" for key, value in values)
        print(
            f"{self.name} {self.done}/{self.steps} {text} {pace:.2f} s/step {left / 60:.1f} min left "
            f"({time.strftime('%H:%M:%S')})",
            flush=True,
        )
        return True
