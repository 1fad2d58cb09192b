"""One frozen configuration of the training recipe; the command line is made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from tidesplit.models.registry import MODELS

__all__ = ["ConfigError", "TrainConfig", "parse"]


class ConfigError(ValueError):
    """An option that cannot be followed, in one sentence."""


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """Recipe of one CNN: finetune, rank, sandwich, calibrate, fullwidth, warmup, refine, entropy."""

    model: str = _option("efficientnet_lite0", "which CNN: efficientnet_lite0 or cifar_resnet")
    data: str = _option("", "folder with train/<class>/*.jpg, or a packed .npz file of training pictures (CIFAR-10)")
    out: str = _option("runs/cnn", "folder of checkpoints and TensorBoard logs")
    weights: str = _option("", "weights file to write; empty: models/<model>.safetensors")
    resume: bool = _option(False, "go on from the checkpoints in --out")
    until: str = _option(
        "export", "last phase to run: finetune, rank, sandwich, calibrate, fullwidth, warmup, refine, export"
    )
    seed: int = _option(0, "seed of every generator")
    px: int = _option(160, "side of training crops; the net is deployed at its own input size (FixRes: larger)")
    start_px: int = _option(128, "side of crops in the first 70 % of the sandwich phase, which costs a third less")
    crop_area: float = _option(0.35, "smallest share of a picture that a training crop shows")
    end_px: int = _option(0, "side of crops at the end of the last two phases; 0: --px to the end")
    end_area: float = _option(0.5, "smallest share of a picture that these crops show")
    end_share: float = _option(0.35, "how much of the steps are at --end-px")
    batch: int = _option(32, "pictures a step")
    holdout: float = _option(0.1, "share of the training pictures kept for validation; 0: train on all")
    finetune_epochs: int = _option(7, "epochs of the full-width uncut net")
    finetune_lr: float = _option(5e-4, "AdamW rate of pretrained weights; the new classifier gets five times that")
    rank_steps: int = _option(160, "steps that train the channel gates")
    warmup_steps: int = _option(300, "steps in which new bottlenecks learn to rebuild their features")
    sandwich_epochs: float = _option(14.0, "epochs of joint training of all widths")
    sandwich_lr: float = _option(6e-4, "AdamW rate of the sandwich phase")
    weight_decay: float = _option(0.02, "AdamW weight decay")
    smoothing: float = _option(0.1, "label smoothing")
    mixup: float = _option(0.2, "Beta parameter of mixup; 0 turns it off")
    average: float = _option(0.998, "decay of the weight average that is evaluated and exported")
    codec_share: float = _option(0.35, "share of pictures that pass through JPEG or WebP in full-width steps")
    start_from: str = _option("", "weights file whose net goes straight to the phase fullwidth")
    teacher: str = _option("", "teacher of the phase fullwidth: lite2; empty: the net of the phase before")
    teacher_epochs: int = _option(3, "epochs of the teacher's own fine-tuning")
    teacher_share: float = _option(0.6, "fullwidth: weight of the teacher's answer beside the label")
    fullwidth_steps: int = _option(800, "steps of what only the full width uses, with everything else frozen")
    fullwidth_lr: float = _option(4e-4, "AdamW rate of these convolutions; the BatchNorms get 2.5 times that")
    refine_steps: int = _option(2500, "steps that refine the partitions, side by side, with everything else frozen")
    refine_reuse: int = _option(4, "steps that train on a batch of crops before it is replaced; features are kept")
    refine_kept: int = _option(200, "batches of crops kept (a batch of 32 at 224 px takes 10 MB, or 5 without cut 1)")
    refine_minutes: float = _option(0.0, "refine for so many minutes instead; 0: by steps")
    refine_lr: float = _option(1e-3, "AdamW rate of refine")
    partitions: str = _option("", "partitions to begin anew and refine, comma separated; empty: all")
    threads: int = _option(2, "CPU threads")
    minutes: float = _option(0.0, "stop the sandwich phase after so many minutes, rate annealed to fit; 0: no limit")

    def cuts(self, partitions: int) -> list[int]:
        """Inner partitions to train, of a CNN with that many. Raises ConfigError for others."""
        inner = [str(p) for p in range(1, partitions)]
        asked = [p.strip() for p in self.partitions.split(",") if p.strip()] or inner
        if not set(asked) <= set(inner):
            raise ConfigError(f"--partitions {self.partitions} received, of {', '.join(inner)} expected")
        return sorted({int(p) for p in asked})

    @property
    def folder(self) -> Path:
        """Where checkpoints and logs go."""
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
