"""The loop of every training phase: order of pictures, learning rate, clipping, averaging, checkpoints, progress.

A phase's own code draws its losses from the batches, calls `backward` on them and then `Phase.step`:

    phase = Phase(job, "finetune", steps=..., optimizer=..., schedule=...)
    for image, label in phase.batches(seed, style):
        loss(image, label).backward()
        phase.step({"loss": ...})
    phase.finish()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from tidesplit.compression.phase.config import ConfigError, TrainConfig
from tidesplit.compression.phase.parts import (
    Average,
    Progress,
    Schedule,
    ThreadChooser,
    load_checkpoint,
    save_checkpoint,
)
from tidesplit.compression.pictures.labelled import CropStyle, Ints, Pictures, batches

SAVE_S = 120.0  # between two checkpoints of a phase without epochs


@dataclass(frozen=True)
class TrainingJob:
    """The inputs of every phase: pictures, the rows of them to train on, the recipe's options, the device."""

    pictures: Pictures
    index: Ints
    config: TrainConfig
    device: torch.device

    @property
    def epoch_steps(self) -> int:
        """Whole batches in an epoch."""
        return len(self.index) // self.config.batch


@dataclass
class Phase:
    """One phase. The learning rates of `optimizer` are those at the top of the schedule.

    Args:
        name: names the checkpoint and the curves in TensorBoard.
        steps: length of the phase, unless `minutes` limits it by time.
        schedule: factor on the learning rates.
        groups: parameters to average. The gradients of one group are clipped together.
        clip: largest norm of the gradients of one group.
        decay: of the moving average of the parameters; 0 keeps the last ones.
        kept: module whose state goes into the checkpoints; None for a phase without any.
        gives_way: True where the phase leaves the cores that other work uses.
    """

    job: TrainingJob
    name: str
    _: KW_ONLY
    steps: int
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    groups: Sequence[Sequence[Tensor]] = ()
    clip: float = 5.0
    decay: float = 0.0
    kept: nn.Module | None = None
    minutes: float = 0.0
    gives_way: bool = True

    def __post_init__(self) -> None:
        config, device = self.job.config, self.job.device
        if not self.job.epoch_steps:
            raise ConfigError(f"{len(self.job.index)} training pictures received, at least one batch expected")
        for group in self.optimizer.param_groups:
            group["base_lr"] = group["lr"]
        self.optimizer.zero_grad()
        self.average = Average([parameter for group in self.groups for parameter in group], self.decay)
        self.progress, self.smooth = Progress(self.name, self.steps), dict[str, float]()
        self.path, self.before_s = config.folder / f"{self.name}.pt", 0.0
        if self.kept is not None and config.resume and self.path.exists():
            self._resume(self.kept)
        self.chooser = ThreadChooser(config.threads if self.gives_way and device.type == "cpu" else 1)
        self.log = SummaryWriter(str(config.folder / "tensorboard"))
        self.start = self.saved = time.perf_counter()

    @property
    def done(self) -> int:
        """Steps done, those before a resumption included."""
        return self.progress.done

    @property
    def spent_s(self) -> float:
        """Seconds spent, those before a resumption included."""
        return self.before_s + time.perf_counter() - self.start

    @property
    def share(self) -> float:
        """How much of the phase is done, from 0 to 1."""
        if self.minutes:
            return self.spent_s / (60 * self.minutes)
        return self.done / self.steps if self.steps else 1.0

    def batches(
        self, seed: int, style: Callable[[float], CropStyle], by_epoch: bool = True
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures `[B, 3, px, px]` and labels `[B]` on the device, until the phase is over.

        Args:
            seed: of the order of pictures and of the crops.
            style: crops by the share of the phase that is done.
            by_epoch: True for whole epochs, each with one style, and a checkpoint after each. False where a change of
                style or a resumption starts a new order of pictures, with a checkpoint every two minutes.
        """
        job, epoch = self.job, self.done // self.job.epoch_steps
        while self.share < 1.0:
            now, order = style(self.share), epoch if by_epoch else self.done
            for image, label in batches(job.pictures, job.index, job.config.batch, now, seed, order):
                factor = self.schedule(self.done, self.share)
                for group in self.optimizer.param_groups:
                    group["lr"] = group["base_lr"] * factor
                yield image.to(job.device), label.to(job.device)
                if not by_epoch and time.perf_counter() - self.saved > SAVE_S:
                    self._save()
                if self.share >= 1.0 or not (by_epoch or style(self.share) == now):
                    break
            if by_epoch:
                self._save()
            epoch += 1

    def step(self, losses: Mapping[str, float]) -> None:
        """Move the weights by the gradients that are there, and show the losses."""
        for group in self.groups:
            torch.nn.utils.clip_grad_norm_(group, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update()
        self.chooser.step()
        for name, loss in losses.items():
            self.smooth[name] = 0.95 * self.smooth.get(name, loss) + 0.05 * loss
        shown = {"share": self.share} if self.minutes else {}
        if self.progress.step((shown | self.smooth).items()):
            for name, value in self.smooth.items():
                self.log.add_scalar(f"{self.name}/{name}", value, self.done)

    def finish(self) -> None:
        """Put the averaged parameters in place."""
        self.average.put()
        self.log.close()

    def _save(self) -> None:
        if self.kept is not None:
            save_checkpoint(
                self.path, step=self.done, spent_s=self.spent_s, module=self.kept.state_dict(),
                average=self.average.weights, optimizer=self.optimizer.state_dict(),
            )  # fmt: skip
        self.saved = time.perf_counter()

    def _resume(self, kept: nn.Module) -> None:
        state = load_checkpoint(self.path)
        kept.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load(state["average"], state["step"])
        self.progress.done, self.before_s = state["step"], state["spent_s"]
