"""Fit image offload to small and heavily compressed pictures, and store it in the weights file.

tidesplit fit-pictures --model efficientnet_lite0 --data DIR [--weights FILE] [--out RUN] [--resume]

DIR holds train/<class>/*.jpg, or is a packed .npz file. Only image offload's own weights change. The file's hash
changes, and with it the tag of its payloads.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from tidesplit.compression.codec.image_codec import SMALLER_PX, encode_image, seen_by_server
from tidesplit.compression.heap import keep_heap
from tidesplit.compression.net.measure import top1
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.phase.config import ConfigError, TrainConfig
from tidesplit.compression.phase.phase_loop import TrainingJob
from tidesplit.compression.pictures.labelled import Pictures, split
from tidesplit.compression.pictures.packed import TrainingPictures
from tidesplit.compression.training.small_pictures import fit_small_pictures
from tidesplit.data.files import whole
from tidesplit.models.registry import build, weights_path
from tidesplit.models.weights import load_tables, load_weights, read_classes, read_metadata, save_tables, save_weights

CROPS_FROM = 8 / 7  # side of the pictures that crops are taken from, over the net's: 256 px for 224
OPTIONS = ("seed", "batch", "holdout", "pictures_steps", "pictures_minutes", "pictures_lr")  # kept in the file
JUDGED = 20  # JPEG quality at which the result is judged


def _accuracies(system: SplitNet, pictures: Pictures) -> str:
    """Accuracy of image offload at every size, in words."""
    px, found = system.net.input_px, []
    for side in (px, *(side for side in SMALLER_PX if side < px)):
        seen = [seen_by_server(encode_image(image, "jpeg", JUDGED, side), px) for image in pictures.images]
        found.append(f"{side} px {top1(system.offload, np.stack(seen), pictures.labels):.4f}")
    return ", ".join(found)


def _fit(path: Path, data: TrainingPictures, config: TrainConfig) -> None:
    """Train the weights in `path` further and write them back."""
    metadata, tables = read_metadata(path), load_tables(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    system = SplitNet(build(config.model, len(read_classes(path))))
    load_weights(path, system)
    system = system.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    px = system.net.input_px
    index, held = split(data.labels, config.holdout, config.seed)
    unseen = data.rows(held, px)
    before = _accuracies(system, unseen) if len(held) else ""
    fit_small_pictures(system, TrainingJob(data.all(round(CROPS_FROM * px)), index, config, device))
    if len(held):
        print(f"held-out accuracy (n = {len(held)}), JPEG quality {JUDGED}, before: {before}")
        print(f"after: {_accuracies(system, unseen)}")
    options = {name: asdict(config)[name] for name in OPTIONS}
    with whole(path) as part:
        save_weights(part, system, metadata | {"pictures": json.dumps(options)})
        save_tables(part, tables)
        shutil.copymode(path, part)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for a user's mistake."""
    usual = TrainConfig()
    parser = argparse.ArgumentParser(prog="tidesplit fit-pictures", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=usual.model, help=f"name of the CNN (default: {usual.model})")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>/*.jpg, or a packed .npz")
    parser.add_argument("--weights", type=Path, help="weights file to train (default: models/<model>.safetensors)")
    parser.add_argument("--out", default="runs/pictures", help="folder of checkpoints (default: runs/pictures)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    for name, text in (
        ("steps", "length in steps"), ("minutes", "length in minutes instead of steps; 0: by steps"),
        ("lr", "AdamW rate"),
    ):  # fmt: skip
        default = getattr(usual, f"pictures_{name}")
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (default: {default})")
    for name, text in (
        ("batch", "pictures in a step"), ("threads", "CPU threads"), ("seed", "seed of every generator"),
        ("holdout", "share of the training pictures that judge the result; 0: train on all"),
    ):  # fmt: skip
        default = getattr(usual, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (default: {default})")
    given = vars(parser.parse_args(arguments))
    data, path = given.pop("data"), given.pop("weights") or weights_path(given["model"])
    lengths = {f"pictures_{name}": given.pop(name) for name in ("steps", "minutes", "lr")}
    config = TrainConfig(**given, **lengths)
    keep_heap()
    torch.set_flush_denormal(True)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    try:
        _fit(path, TrainingPictures(data), config)
    except (ConfigError, KeyError, OSError, ValueError) as error:
        print(f"tidesplit fit-pictures: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
