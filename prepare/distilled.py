"""Train the bottleneck of a cut by the uncut net's own answers. No labels are needed, and the net stays as it is.

The loss is the divergence of the answers behind the bottleneck from those of the uncut net, and the error of the
rebuilt feature over its variance. Each picture of a batch has a bit width of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidesplit.compression.codec.knobs import BITS
from tidesplit.compression.net.bottleneck import Bottleneck
from tidesplit.compression.phase.parts import Average, by_share
from tidesplit.compression.pictures.labelled import CropStyle, Pictures, batches
from tidesplit.prepare.cut_net import FULL, Part, run

WARMUP = 20  # steps
CLIP = 1.0  # largest norm of a gradient
WEIGHT_DECAY = 0.01
AVERAGE = 0.98  # weight of the past in the average of the weights, by step
FEATURE = 0.3  # weight of the feature's error
AREA = (0.5, 1.0)  # share of the picture that a training crop shows
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
        parts: the net's parts for batches of `options.batch` pictures.
        partition: of the cut, from 1.
        bottleneck: trained in place.
        pictures: to draw crops from, larger than the net's.
        px: side of a crop.
        options: how long and how.
        half: True where bfloat16 is quicker on this machine.
    """

    def __init__(
        self, parts: Sequence[Part], partition: int, bottleneck: Bottleneck, pictures: Pictures, px: int,
        options: DistillOptions, half: bool = False,
    ) -> None:  # fmt: skip
        self.heads, self.tails = parts[:partition], parts[partition:]
        self.bottleneck, self.options, self.half = bottleneck, options, half
        self._pictures, self._style = pictures, CropStyle(px, AREA)

    def run(self, say: Say) -> None:
        """Train, then take exact statistics. Leaves the bottleneck in eval mode."""
        options, rng = self.options, np.random.default_rng(self.options.seed)
        parameters = [p for p in self.bottleneck.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, options.rate, weight_decay=WEIGHT_DECAY)
        average, schedule, begun_s = Average(parameters, AVERAGE), by_share(WARMUP), time.perf_counter()
        self.bottleneck.train()
        for step, image in enumerate(self._images()):
            spent = (time.perf_counter() - begun_s) / (60 * options.minutes)
            share = max(spent, step / options.steps)
            if share >= 1.0:
                break
            for group in optimizer.param_groups:
                group["lr"] = options.rate * schedule(step, share)
            loss = self.loss(image, torch.from_numpy(rng.choice(len(BITS), len(image), p=BIT_CHANCES)))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            average.update()
            say(max(share, (step + 1) / options.steps), loss.item())
        average.put()
        self._settle(rng)

    def _images(self) -> Iterator[Tensor]:
        every = np.arange(len(self._pictures.labels))
        for epoch in count():
            yield from (
                image
                for image, _ in batches(
                    self._pictures, every, self.options.batch, self._style, self.options.seed, epoch
                )
            )

    def loss(self, image: Tensor, rows: Tensor) -> Tensor:
        """Loss of a batch `[B, 3, px, px]`. `rows` `[B]`: indices into BITS."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            with torch.no_grad():
                feature = run(self.heads, image)
                target = run(self.tails, feature).float()
            rebuilt = self._rebuilt(feature, rows)
            answer = run(self.tails, rebuilt).float()
        wrong = (rebuilt.float() - feature.float()).square().mean() / feature.float().var()
        return _divergence(answer, target) + FEATURE * wrong

    def _rebuilt(self, feature: Tensor, rows: Tensor) -> Tensor:
        y, score = self.bottleneck.encode(feature, FULL)
        return self.bottleneck.decode(self.bottleneck.squeeze(y, score, rows, torch.ones(len(rows))))

    @torch.no_grad()
    def _settle(self, rng: np.random.Generator) -> None:
        """Exact statistics of the BatchNorms, over a few batches."""
        norms = [m for m in self.bottleneck.modules() if isinstance(m, nn.BatchNorm2d)]
        kept = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        for _, image in zip(range(NORM_BATCHES), self._images(), strict=False):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                feature = run(self.heads, image)
                self._rebuilt(feature, torch.from_numpy(rng.choice(len(BITS), len(image), p=BIT_CHANCES)))
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
        self.bottleneck.eval()


def _divergence(answer: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of answers from the uncut net's, both logits `[B, classes]`."""
    return F.kl_div(answer.log_softmax(1), target.log_softmax(1), log_target=True, reduction="batchmean")


def half_is_quicker(parts: Sequence[Part], image: Tensor) -> bool:
    """True where bfloat16 takes less time than float32 on this machine, for a batch `[B, 3, px, px]`."""
    times = {}
    with torch.no_grad():
        for half in (False, True, False, True):
            begun_s = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                run(parts, image)
            times[half] = time.perf_counter() - begun_s
    return times[True] < 0.8 * times[False]
