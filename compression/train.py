"""Train a CNN with all its operating points: finetune -> rank -> sandwich -> warmup -> calibrate -> refine -> export.

python -m compression.train --model efficientnet_lite0 --data DIR --out runs/lite0 [--resume]
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compression.calibrate import calibrate
from compression.config import TrainConfig, parse
from compression.finetune import finetune
from compression.heap import keep_heap
from compression.loop import load_checkpoint, save_checkpoint, seed_everything
from compression.measure import top1
from compression.packed import load_packed
from compression.pictures import Ints, Pictures, list_pictures, load_pictures, split
from compression.pixels import load_square
from compression.rank import learn_gates
from compression.refine import refine
from compression.sandwich import sandwich
from compression.system import SplitNet
from compression.warmup import warm_bottlenecks
from models.efficientnet_lite0 import EfficientNetLite0
from models.imagenet import load_imagenet
from models.registry import build, weights_path
from models.slim import SlimNet
from models.weights import save_weights

CACHE_PX = 256  # crops of 35 % of the area are still 151 px wide, close to the 160 px trained on
CALIBRATION = 512  # pictures: at the coarsest grid, 7x7, still 25,000 samples a channel


def _training_pictures(config: TrainConfig, px: int) -> Pictures:
    """Training pictures squashed to `px`; those of a packed file at the size they have."""
    data = Path(config.data)
    return load_packed(data) if data.suffix == ".npz" else load_pictures(data / "train", px)


def _phase(config: TrainConfig, name: str, module: nn.Module) -> bool:
    """Load the outcome of a finished phase; False when it has yet to run."""
    path = config.folder / f"{name}.done.pt"
    if not (config.resume and path.exists()):
        return False
    module.load_state_dict(load_checkpoint(path)["module"])
    return True


def _finish(config: TrainConfig, name: str, module: nn.Module) -> None:
    save_checkpoint(config.folder / f"{name}.done.pt", module=module.state_dict())
    if config.until == name:
        raise SystemExit(f"stopped after phase {name}, as asked")


def _train_cnn(net: SlimNet, pictures: Pictures, index: Ints, config: TrainConfig, device: torch.device) -> None:
    """Phases 1 and 2."""
    if not _phase(config, "finetune", net):
        finetune(net, pictures, index, config, device)
        _finish(config, "finetune", net)
    if not _phase(config, "rank", net):
        net.rank(learn_gates(net, pictures, index, config, device))
        _finish(config, "rank", net)


def _device_pictures(config: TrainConfig, px: int, index: Ints, held: Ints) -> tuple[Pictures, Pictures]:
    """Pictures at the deployed size: some of those trained on, and those held out."""
    some = np.random.default_rng(config.seed).permutation(index)[:CALIBRATION]
    data = Path(config.data)
    if data.suffix == ".npz":
        full = load_packed(data)
        chosen = [(full.images[i], full.labels[i], full.classes) for i in (some, held)]
    else:
        files, labels, classes = list_pictures(data / "train")
        chosen = [(np.stack([load_square(files[j], px) for j in i]), labels[i], classes) for i in (some, held)]
    return Pictures(*chosen[0]), Pictures(*chosen[1])


def main(config: TrainConfig) -> None:
    """Run the phases in order; with `--resume`, those not yet finished."""
    keep_heap()
    torch.set_flush_denormal(True)
    torch.set_num_threads(config.threads)
    seed_everything(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pictures = _training_pictures(config, CACHE_PX)
    index, held = split(pictures.labels, config.holdout, config.seed)
    net = build(config.model, len(pictures.classes))
    if isinstance(net, EfficientNetLite0):
        load_imagenet(net)
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    _train_cnn(net, pictures, index, config, device)
    teacher = build(config.model, len(pictures.classes))
    teacher.load_state_dict(net.state_dict())
    teacher = teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    system = SplitNet(net).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not _phase(config, "sandwich", system):
        sandwich(system, teacher, pictures, index, config, device)
        _finish(config, "sandwich", system)
    if not _phase(config, "warmup", system):
        warm_bottlenecks(system, pictures, index, config, device)
        _finish(config, "warmup", system)
    seen, unseen = _device_pictures(config, net.input_px, index, held)
    if not _phase(config, "calibrate", system):
        calibrate(system, seen.images, config.seed)
        _finish(config, "calibrate", system)
    if not _phase(config, "refine", system):
        refine(system, pictures, index, config, device)
        _finish(config, "refine", system)
    system.eval()
    accuracy = top1(lambda image: system.device(image, 1.0), unseen.images, unseen.labels)
    print(f"held-out accuracy, uncut, full width: {accuracy:.4f} (n = {len(held)})")
    paths = {"data", "out", "weights"}  # where it was trained says nothing of how
    options = {name: value for name, value in asdict(config).items() if name not in paths}
    recipe = {"name": config.model, "classes": json.dumps(pictures.classes), "recipe": json.dumps(options)}
    save_weights(Path(config.weights) if config.weights else weights_path(config.model), system, recipe)


if __name__ == "__main__":
    main(parse())
