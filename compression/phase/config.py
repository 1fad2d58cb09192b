"""The options of the training recipe as one frozen record. The command line is made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from tidesplit.compression.pictures.labelled import CropStyle
from tidesplit.models.registry import MODELS


class ConfigError(ValueError):
    """An option that cannot be followed. The sentence names it and its expected values."""


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """Train a CNN with all its operating points, phase by phase."""

    model: str = _option("efficientnet_lite0", "which CNN")
    data: str = _option("", "folder with train/<class>/*.jpg, or a packed .npz file of training pictures (CIFAR-10)")
    out: str = _option("runs/cnn", "folder of checkpoints and TensorBoard logs")
    weights: str = _option("", "weights file to write; empty: <model>.safetensors in --out")
    resume: bool = _option(False, "go on from the checkpoints in --out")
    until: str = _option(
        "export", "last phase to run: finetune, rank, sandwich, calibrate, fullwidth, warmup, refine, pictures, export"
    )
    seed: int = _option(0, "seed of every generator")
    px: int = _option(160, "side of training crops, smaller than the input of the deployed net (FixRes)")
    start_px: int = _option(128, "side of crops in the first 70 % of sandwich, and in warmup")
    crop_area: float = _option(0.35, "smallest share of a picture that a crop shows")
    end_px: int = _option(0, "side of crops at the end of fullwidth and refine; 0: --px to the end")
    end_area: float = _option(0.5, "smallest share of a picture that these crops show")
    end_share: float = _option(0.35, "share of the steps of these phases that is at --end-px")
    batch: int = _option(32, "pictures in a step")
    holdout: float = _option(0.1, "share of the training pictures kept for validation; 0: train on all")
    finetune_epochs: int = _option(7, "epochs of finetune, which trains the full-width uncut net")
    finetune_lr: float = _option(5e-4, "AdamW rate of pretrained weights; the new classifier gets five times that")
    rank_steps: int = _option(160, "steps of rank, which trains the channel gates")
    warmup_steps: int = _option(300, "steps of warmup, in which new bottlenecks learn to rebuild their features")
    sandwich_epochs: float = _option(14.0, "epochs of sandwich, which trains all widths jointly")
    sandwich_lr: float = _option(6e-4, "AdamW rate of sandwich")
    weight_decay: float = _option(0.02, "AdamW weight decay of finetune and sandwich")
    smoothing: float = _option(0.1, "label smoothing of finetune")
    mixup: float = _option(0.2, "Beta parameter of mixup in finetune; 0: no mixup")
    average: float = _option(0.998, "decay of the moving average of the weights in finetune and sandwich")
    codec_share: float = _option(0.35, "share of the pictures of finetune that pass through JPEG or WebP")
    start_from: str = _option("", "weights file; its net skips the phases before fullwidth")
    teacher: str = _option("", "teacher of fullwidth: lite2; empty: the net as it was before that phase")
    teacher_epochs: int = _option(3, "epochs of the teacher's own fine-tuning")
    teacher_share: float = _option(0.6, "weight of the teacher's answer in fullwidth; the label gets the rest")
    fullwidth_steps: int = _option(800, "steps of fullwidth, which trains the weights that only the full width uses")
    fullwidth_lr: float = _option(4e-4, "AdamW rate of these convolutions; the BatchNorms get 2.5 times that")
    refine_steps: int = _option(2500, "steps of refine, which trains the partitions, all in one run")
    refine_reuse: int = _option(4, "steps on a batch of crops before a new one is drawn; its features are kept")
    refine_kept: int = _option(200, "batches of features kept (32 crops of 224 px take 10 MB, or 5 without cut 1)")
    refine_minutes: float = _option(0.0, "length of refine in minutes instead of steps; 0: by steps")
    refine_lr: float = _option(1e-3, "AdamW rate of refine")
    pictures_steps: int = _option(800, "steps of pictures, which fits image offload to small and compressed pictures")
    pictures_minutes: float = _option(0.0, "length of pictures in minutes instead of steps; 0: by steps")
    pictures_lr: float = _option(1e-3, "AdamW rate of pictures")
    partitions: str = _option("", "partitions that warmup sets back and refine trains, comma separated; empty: all")
    threads: int = _option(2, "CPU threads")
    minutes: float = _option(0.0, "length of sandwich in minutes instead of epochs; 0: by epochs")

    def cuts(self, partitions: int) -> list[int]:
        """Inner partitions to train in a CNN of so many partitions. Raises ConfigError for any other."""
        inner = [str(p) for p in range(1, partitions)]
        asked = [p.strip() for p in self.partitions.split(",") if p.strip()] or inner
        if not set(asked) <= set(inner):
            raise ConfigError(f"--partitions {self.partitions} received, of {', '.join(inner)} expected")
        return sorted({int(p) for p in asked})

    def crops(self, fraction: float) -> CropStyle:
        """How crops are drawn after `fraction` of one of the last phases. Those at its end are larger and milder."""
        late = self.end_px > 0 and fraction >= 1.0 - self.end_share
        return CropStyle(self.end_px, (self.end_area, 1.0)) if late else CropStyle(self.px, (self.crop_area, 1.0))

    @property
    def folder(self) -> Path:
        """The folder of checkpoints and logs."""
        return Path(self.out)


def parse(arguments: list[str] | None = None) -> TrainConfig:
    """Read the command line. Raises ConfigError for a CNN that is not in the registry."""
    config = tyro.cli(
        TrainConfig,
        prog="tidesplit train-cnn",
        description=TrainConfig.__doc__,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    if config.model not in MODELS:
        raise ConfigError(f"no CNN called {config.model!r}: have {', '.join(MODELS)}")
    return config
