"""Train a CNN with all its operating points, phase by phase. `config.py` names the phases.

tidesplit train-cnn --model efficientnet_lite0 --data DIR --out runs/lite0 --teacher lite2 [--resume]
tidesplit train-cnn ... --start-from models/efficientnet_lite0.safetensors     # the last phases, from fullwidth on
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tidesplit.compression.codec.learned_entropy import named
from tidesplit.compression.fitting.fit_entropy import fit_tables
from tidesplit.compression.heap import keep_heap
from tidesplit.compression.net.measure import top1
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.phase.config import ConfigError, TrainConfig, parse
from tidesplit.compression.phase.parts import load_checkpoint, save_checkpoint
from tidesplit.compression.phase.phase_loop import TrainingJob
from tidesplit.compression.pictures.labelled import Pictures, split
from tidesplit.compression.pictures.packed import TrainingPictures
from tidesplit.compression.training.calibrate import calibrate
from tidesplit.compression.training.channel_ranking import learn_gates
from tidesplit.compression.training.distillation import Teacher, answer, train_lite2, untrained_lite2
from tidesplit.compression.training.finetune import finetune
from tidesplit.compression.training.fullwidth import train_full_width
from tidesplit.compression.training.refine import refine
from tidesplit.compression.training.sandwich import sandwich
from tidesplit.compression.training.small_pictures import fit_small_pictures
from tidesplit.compression.training.warmup import warm_bottlenecks
from tidesplit.models.efficientnet_lite0 import EfficientNetLite0
from tidesplit.models.imagenet import load_imagenet
from tidesplit.models.registry import build
from tidesplit.models.slim import fold_tails, seed_tail
from tidesplit.models.weights import load_weights, save_tables, save_weights, sha256_of

CACHE_PX = 256  # crops of 35 % of the area are then 151 px wide, close to the 160 px of training
CALIBRATION = 512  # pictures: 25,000 samples a channel even at the coarsest grid, 7x7


def _once(config: TrainConfig, name: str, module: nn.Module, work: Callable[[], object]) -> None:
    """Run a phase and keep the module's state. With `--resume`, load the state of a phase that was finished."""
    path = config.folder / f"{name}.done.pt"
    if config.resume and path.exists():
        module.load_state_dict(load_checkpoint(path)["module"])
        return
    work()
    save_checkpoint(path, module=module.state_dict())
    if config.until == name:
        raise SystemExit(f"stopped after phase {name}, as asked")


def _train_widths(system: SplitNet, job: TrainingJob) -> None:
    """Phases 1 to 3."""
    net, config = system.net, job.config
    if isinstance(net, EfficientNetLite0):
        load_imagenet(net)
    _once(config, "finetune", net, lambda: finetune(net, job))
    _once(config, "rank", net, lambda: net.rank(learn_gates(net, job)))
    _once(config, "sandwich", system, lambda: sandwich(system, deepcopy(net), job))


def _teacher(system: SplitNet, job: TrainingJob) -> Teacher:
    """The teacher that `--teacher` names."""
    net: nn.Module = deepcopy(system.net)
    if job.config.teacher:
        net = untrained_lite2(len(job.pictures.classes))
        _once(job.config, "teacher", net, lambda: net.load_state_dict(train_lite2(job).state_dict()))
    net = net.to(job.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return answer(net.eval())


def _train_points(system: SplitNet, teacher: Teacher, job: TrainingJob) -> None:
    """Phases 5 to 8."""
    _once(job.config, "fullwidth", system, lambda: train_full_width(system, teacher, job))
    _once(job.config, "warmup", system, lambda: warm_bottlenecks(system, job))
    _once(job.config, "refine", system, lambda: refine(system, job))
    _once(job.config, "pictures", system, lambda: fit_small_pictures(system, job))


def train(config: TrainConfig) -> None:
    """Run the phases in order; with `--resume`, those not yet finished. Raises ConfigError before the first."""
    if config.teacher not in {"", "lite2"}:
        raise ConfigError(f"no teacher called {config.teacher!r}: have 'lite2'")
    keep_heap()
    torch.set_flush_denormal(True)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = TrainingPictures(Path(config.data))
    pictures = data.all(CACHE_PX)
    index, held = split(pictures.labels, config.holdout, config.seed)
    job = TrainingJob(pictures, index, config, device)
    system = SplitNet(build(config.model, len(pictures.classes)))
    system = system.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    config.cuts(system.partitions)
    some = np.random.default_rng(config.seed).permutation(index)[:CALIBRATION]
    seen, unseen = (data.rows(rows, system.net.input_px) for rows in (some, held))
    if config.start_from:
        try:
            load_weights(Path(config.start_from), system, may_lack="_low.")
        except ValueError as error:
            raise ConfigError(f"--start-from: {error}") from error
        seed_tail(system.net, 0)  # fullwidth trains the uncut net through image offload
    else:
        _train_widths(system, job)
        _once(config, "calibrate", system, lambda: calibrate(system, seen.images, config.seed))
    _train_points(system, _teacher(system, job), job)
    system.eval()
    if len(held):
        accuracy = top1(lambda image: system.device(image, 1.0), unseen.images, unseen.labels)
        print(f"held-out accuracy, uncut, full width: {accuracy:.4f} (n = {len(held)})")
    _export(system, config, seen, unseen)


def _export(system: SplitNet, config: TrainConfig, seen: Pictures, unseen: Pictures) -> None:
    """Write the weights file with the recipe's options and the entropy stage's tables."""
    paths = {"data", "out", "weights", "start_from"}  # of one machine, so no part of the recipe
    options = {name: value for name, value in asdict(config).items() if name not in paths}
    recipe = {"name": config.model, "classes": json.dumps(seen.classes), "recipe": json.dumps(options)}
    path = Path(config.weights) if config.weights else config.folder / f"{config.model}.safetensors"
    fold_tails(system.net)
    save_weights(path, system, recipe)
    # Pictures not trained on have slightly other features, so tables are fitted to both kinds. No label is read.
    images = np.concatenate([seen.images, unseen.images])
    save_tables(path, named(fit_tables(system, images, lambda text: print(text, flush=True))))
    print(f"weights {sha256_of(path)[:16]} written to {path}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for a user's mistake."""
    try:
        train(parse(arguments))
    except (ConfigError, FileNotFoundError, NotADirectoryError) as mistake:
        print(f"tidesplit train-cnn: error: {mistake}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
