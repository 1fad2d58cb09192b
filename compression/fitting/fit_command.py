"""The command line of the fits that need a CNN's weights and some training pictures, and no label."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.labelled import Bytes
from tidesplit.compression.pictures.packed import TrainingPictures
from tidesplit.models.registry import build, weights_path
from tidesplit.models.weights import load_weights, read_classes

Fit = Callable[[Path, SplitNet, Bytes], str]
"""Fits something to pictures uint8 ``[N, px, px, 3]``, stores it by the weights file, and says what it has written."""


def run_fit(
    program: str, text: str, pictures: int, fit: Fit, arguments: list[str] | None = None, margin: float = 1.0
) -> int:
    """Run a fit by its command line. Returns 0, or 2 for a user's mistake.

    ``text`` describes the command, and ``pictures`` is its usual number of pictures. ``margin`` is their side over that
    of the CNN's input.
    """
    parser = argparse.ArgumentParser(prog=program, description=text)
    parser.add_argument("--model", default="efficientnet_lite0", help="name of the CNN (default: efficientnet_lite0)")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>/*.jpg, or a packed .npz")
    parser.add_argument("--weights", type=Path, help="weights file (default: models/<model>.safetensors)")
    parser.add_argument("--pictures", type=int, default=pictures, help="number of pictures (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    path = options.weights or weights_path(options.model)
    try:
        if options.pictures < 1:
            raise ValueError(f"{options.pictures} pictures received, at least 1 expected")
        system = SplitNet(build(options.model, len(read_classes(path))))
        load_weights(path, system)
        data = TrainingPictures(options.data)
        rows = np.random.default_rng(0).permutation(len(data.labels))[: options.pictures]
        images = data.rows(rows, round(margin * system.net.input_px)).images
    except (KeyError, OSError, ValueError) as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    print(f"{fit(path, system, images)}, from {len(images)} pictures")
    return 0
