"""Train the bottleneck of a cut by the uncut net's own answers. No labels are needed, and the net stays as it is.

The loss is the divergence of the answers behind the bottleneck from those of the uncut net, and the error of the
rebuilt feature over its variance. Each picture of a batch has a bit width of its own. Heads do not change, so their
features are computed once (`feature_cache`), and a step costs the tail only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.compression.codec.knobs import BITS
from tidesplit.compression.net.bottleneck import Bottleneck
from tidesplit.compression.phase.parts import Average, by_share
from tidesplit.prepare.cut_net import FULL, Part, run
from tidesplit.prepare.feature_cache import Cached

WARMUP = 20  # steps
CLIP = 1.0  # largest norm of a gradient
WEIGHT_DECAY = 0.01
AVERAGE = 0.98  # weight of the past in the average of the weights, by step
FEATURE = 0.3  # weight of the feature's error
NORM_BATCHES = 12  # batches that the final statistics of BatchNorms are taken over
BIT_CHANCES = (0.3, 0.3, 0.25, 0.15)
"""How often each bit width is trained. Few bits need it most."""

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
    rate: float = 4e-3
    seed: int = 0


class Distillation:
    """The training of one cut.

    Args:
        tails: the net's parts behind the cut, for batches of `options.batch` pictures.
        bottleneck: trained in place.
        cached: features at the cut, and the uncut net's logits.
        options: how long and how.
        half: True where bfloat16 is quicker on this machine.
    """

    def __init__(
        self, tails: Sequence[Part], bottleneck: Bottleneck, cached: Cached, options: DistillOptions, half: bool = False
    ) -> None:
        self.tails, self.bottleneck, self.cached = tails, bottleneck, cached
        self.options, self.half = options, half
        self._rng = np.random.default_rng(options.seed)

    def run(self, say: Say) -> None:
        """Train, then take exact statistics. Leaves the bottleneck in eval mode."""
        options = self.options
        parameters = [p for p in self.bottleneck.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, options.rate, weight_decay=WEIGHT_DECAY)
        average, schedule, begun_s = Average(parameters, AVERAGE), by_share(WARMUP), time.perf_counter()
        self.bottleneck.train()
        for step, (feature, target) in enumerate(self._batches()):
            spent = (time.perf_counter() - begun_s) / (60 * options.minutes)
            share = max(spent, step / options.steps)
            if share >= 1.0:
                break
            for group in optimizer.param_groups:
                group["lr"] = options.rate * schedule(step, share)
            loss = self.loss(feature, target, self._rows())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            average.update()
            say(max(share, (step + 1) / options.steps), loss.item())
        average.put()
        self._settle()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and logits of whole batches in random order, for ever."""
        size = self.options.batch
        while True:
            order = self._rng.permutation(len(self.cached))
            for start in range(0, len(order) - size + 1, size):
                yield self.cached.rows(order[start : start + size])

    def _rows(self) -> Tensor:
        """A bit width for each picture of a batch, as an index into BITS."""
        return torch.from_numpy(self._rng.choice(len(BITS), self.options.batch, p=BIT_CHANCES))

    def loss(self, feature: Tensor, target: Tensor, rows: Tensor) -> Tensor:
        """Loss of a batch of features `[B, C, H, W]` with the uncut net's logits `[B, classes]`."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            rebuilt = self._rebuilt(feature, rows)
            answer = run(self.tails, rebuilt).float()
        wrong = (rebuilt.float() - feature).square().mean() / feature.var()
        return _divergence(answer, target) + FEATURE * wrong

    def _rebuilt(self, feature: Tensor, rows: Tensor) -> Tensor:
        y, score = self.bottleneck.encode(feature, FULL)
        return self.bottleneck.decode(self.bottleneck.squeeze(y, score, rows, torch.ones(len(rows))))

    @torch.no_grad()
    def _settle(self) -> None:
        """Exact statistics of the BatchNorms, over a few batches."""
        norms = [m for m in self.bottleneck.modules() if isinstance(m, nn.BatchNorm2d)]
        kept = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        for _, (feature, _) in zip(range(NORM_BATCHES), self._batches(), strict=False):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                self._rebuilt(feature, self._rows())
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
        self.bottleneck.eval()


def _divergence(answer: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of answers from the uncut net's, both logits `[B, classes]`."""
    return F.kl_div(answer.log_softmax(1), target.log_softmax(1), log_target=True, reduction="batchmean")
