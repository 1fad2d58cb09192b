"""Train the bottleneck of a cut by the uncut net's own answers. No labels are needed, and the net stays as it is.

It starts as the best linear code of the feature (`linear_start`, `level_start`), and training improves the decoder
(`linear_bottleneck`). The loss is the task's for answers that are not those of the uncut net, and the error of the
rebuilt feature, weighed by how much it matters to the answer. On a picture that the net knows by heart, the feature
says much more than the answer.

Each picture of a batch has a bit width of its own. Heads do not change, so their features are computed once
(`feature_cache`), and a step costs the tail only. A bottleneck with a layer before its encoder has no linear start. It
is trained whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.compression.codec.knobs import BITS
from tidesplit.compression.net.bottleneck import Bottleneck
from tidesplit.compression.phase.parts import Average, by_share
from tidesplit.prepare.cut_net import FULL, Part, run
from tidesplit.prepare.feature_cache import Cached
from tidesplit.prepare.level_start import put_levels
from tidesplit.prepare.linear_bottleneck import LinearBottleneck
from tidesplit.prepare.linear_start import components, metric, moments, patches, root, sensitivity
from tidesplit.prepare.task import Task

METHOD = "linear path"
"""Name of this way to train. Bottlenecks that were trained in another way are trained again."""
WARMUP = 20  # steps
CLIP = 1.0  # largest norm of a gradient
WEIGHT_DECAY = 0.01
LINEAR, CORRECTING = 0.3, 3.0
"""Rates of the decoder's linear path, which starts as the best one, and of the layers that correct it, over --rate."""
AVERAGE = 0.98  # weight of the past in the average of the weights, by step
FEATURE = 1.0  # weight of the feature's error
NORM_BATCHES = 12  # batches that the final statistics of BatchNorms are taken over
MOMENT_BATCHES, GRADIENT_BATCHES = 64, 32
"""Batches that the feature's covariance, and the answers' sensitivity to it, are taken over."""
LEVEL_BATCHES, LEVEL_ROWS = 8, 10000
"""Batches, and about how many of their patches, that the quantizer's levels are chosen by."""
BIT_CHANCES = (0.15, 0.25, 0.35, 0.25)
"""How often each bit width is trained."""
USUAL_BATCHES, TINY = 2, 1e-6
"""Batches of each bit width that its usual loss is taken over, and the least one."""

Say = Callable[[float, float], None]
"""Called with the share that is done and the loss."""


@dataclass(frozen=True)
class DistillOptions:
    """How long and how a bottleneck is trained.

    Args:
        minutes: longest time for one cut.
        steps: most steps for one cut.
        batch: pictures in a step.
        rate: of AdamW.
        seed: of every generator.
    """

    minutes: float = 4.0
    steps: int = 2000
    batch: int = 32
    rate: float = 1e-3
    seed: int = 0


class Distillation:
    """The training of one cut.

    Args:
        tails: the net's parts behind the cut, for batches of `options.batch` pictures.
        bottleneck: trained in place.
        cached: features at the cut, and the uncut net's answers.
        task: says how far an answer is off.
        options: how long and how.
        half: True where bfloat16 is quicker on this machine.
    """

    def __init__(
        self, tails: Sequence[Part], bottleneck: Bottleneck, cached: Cached, task: Task, options: DistillOptions,
        half: bool = False,
    ) -> None:  # fmt: skip
        self.tails, self.bottleneck, self.cached, self.task = tails, bottleneck, cached, task
        self.options, self.half = options, half
        self._rng = np.random.default_rng(options.seed)
        self._linear = bottleneck if isinstance(bottleneck, LinearBottleneck) else None
        self._grain = bottleneck.spec.stride if self._linear else 1
        self._weights = torch.eye(bottleneck.channels * self._grain**2)
        self._usual = torch.ones(len(BITS))

    def begin(self) -> None:
        """Measure how much each error of the feature matters. Where there is a best linear code, start from it.

        Then only the decoder is trained: codes and bytes stay as they are, and so do all statistics.
        """
        found = moments(self._features(MOMENT_BATCHES), self._grain)
        features = self._features(GRADIENT_BATCHES)
        information = sensitivity(self._answer, self.task.directions, features, self._grain, self.options.seed)
        weights = metric(information, found.covariance)
        self._weights = root(weights)[0]
        bottleneck = self._linear
        if bottleneck is None:
            return
        encoder, decoder = components(found.covariance, weights, bottleneck.spec.wire)
        bottleneck.start(found.mean, encoder, decoder)
        for fixed in bottleneck.fixed():
            fixed.requires_grad_(False)
        values = torch.cat([bottleneck.encode(feature, FULL)[0] for feature in self._features(LEVEL_BATCHES)])
        row = values[:, : len(encoder)].transpose(0, 1).flatten(1).T
        put_levels(bottleneck, row[:: max(1, len(row) // LEVEL_ROWS)], (decoder * (weights @ decoder)).sum(0))
        self._settle()
        self._usual = self._losses_by_bits()

    @torch.no_grad()
    def _losses_by_bits(self) -> Tensor:
        """Mean loss of each bit width now."""
        found = torch.zeros(len(BITS))
        for turn, (feature, target) in zip(range(len(BITS) * USUAL_BATCHES), self._batches(), strict=False):
            row = turn % len(BITS)
            found[row] += self.losses(feature, target, torch.full((len(feature),), row)).mean() / USUAL_BATCHES
        return found.clamp(min=TINY)

    def run(self, say: Say) -> None:
        """Train, then take exact statistics. Leaves the bottleneck in eval mode."""
        self.begin()
        options = self.options
        optimizer = torch.optim.AdamW(self._groups(), weight_decay=WEIGHT_DECAY)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        average, schedule, begun_s = Average(parameters, AVERAGE), by_share(WARMUP), time.perf_counter()
        self.bottleneck.train(self._linear is None)
        for step, (feature, target) in enumerate(self._batches()):
            spent = (time.perf_counter() - begun_s) / (60 * options.minutes)
            share = min(1.0, max(spent, step / options.steps))
            if share == 1.0 and step:  # one step at least, however slow the machine
                break
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * schedule(step, share)
            loss = self.loss(feature, target, self._rows())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            average.update()
            say(max(share, (step + 1) / options.steps), loss.item())
        average.put()
        if self._linear is None:
            self._settle()

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters to train, with their rates."""
        rate, trained = self.options.rate, [p for p in self.bottleneck.parameters() if p.requires_grad]
        if self._linear is None:
            return [{"params": trained, "rate": rate}]
        linear = set(self._linear.linear())
        return [
            {"params": [p for p in trained if p in linear], "rate": LINEAR * rate},
            {"params": [p for p in trained if p not in linear], "rate": CORRECTING * rate},
        ]

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and answers of whole batches in random order, for ever."""
        size = self.options.batch
        while True:
            order = self._rng.permutation(len(self.cached))
            for first in range(0, len(order) - size + 1, size):
                yield self.cached.rows(order[first : first + size])

    def _features(self, count: int) -> Iterator[Tensor]:
        """Features of so many batches."""
        for _, (feature, _) in zip(range(count), self._batches(), strict=False):
            yield feature

    def _answer(self, feature: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            return run(self.tails, feature).float()

    def _rows(self) -> Tensor:
        """A bit width for each picture of a batch, as an index into BITS."""
        return torch.from_numpy(self._rng.choice(len(BITS), self.options.batch, p=BIT_CHANCES))

    def loss(self, feature: Tensor, target: Tensor, rows: Tensor) -> Tensor:
        """Mean loss of a batch. Each bit width's is over its usual one, or few bits would outweigh all others."""
        return (self.losses(feature, target, rows) / self._usual[rows]).mean()

    def losses(self, feature: Tensor, target: Tensor, rows: Tensor) -> Tensor:
        """Losses `[B]` of features `[B, C, H, W]` in bit widths `rows`, with the uncut net's answers `[B, N]`."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            rebuilt = self._rebuilt(feature, rows)
            wrong = self.wrong(rebuilt, feature)
        return self.task.losses(self._answer(rebuilt), target) + FEATURE * wrong

    def wrong(self, rebuilt: Tensor, feature: Tensor) -> Tensor:
        """Errors `[B]` of features, weighed by how much they matter. They are one where nothing is rebuilt."""
        off = patches(rebuilt - feature, self._grain)
        return F.conv2d(off, self._weights[:, :, None, None]).float().square().sum(1).mean((1, 2))

    def _rebuilt(self, feature: Tensor, rows: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):  # codes are those of the device
            y, score = self.bottleneck.encode(feature, FULL)
        return self.bottleneck.decode(self.bottleneck.squeeze(y, score, rows, torch.ones(len(rows))))

    @torch.no_grad()
    def _settle(self) -> None:
        """Exact statistics of the BatchNorms, over a few batches."""
        self.bottleneck.train()
        norms = [m for m in self.bottleneck.modules() if isinstance(m, nn.BatchNorm2d)]
        kept = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        for feature in self._features(NORM_BATCHES):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                self._rebuilt(feature, self._rows())
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
        self.bottleneck.eval()
