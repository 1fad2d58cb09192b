"""Measure the ranges of a CNN's activations on training pictures. Its int8 models need them.

tidesplit fit-ranges --model efficientnet_lite0 --data DIR [--weights FILE]

DIR holds train/<class>/*.jpg, or is a packed .npz file. It reads no label. The ranges are written next to the weights
file, as NAME.ranges.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from tidesplit.compression.net.int8 import measure_ranges, save_ranges
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.packed import TrainingPictures
from tidesplit.models.registry import build, weights_path
from tidesplit.models.weights import load_weights, read_metadata


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="tidesplit fit-ranges", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet_lite0", help="name of the CNN (default: efficientnet_lite0)")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>/*.jpg, or a packed .npz")
    parser.add_argument("--weights", type=Path, help="weights file (default: models/<model>.safetensors)")
    parser.add_argument("--pictures", type=int, default=256, help="number of pictures (default: 256)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    path = options.weights or weights_path(options.model)
    try:
        if options.pictures < 1:
            raise ValueError(f"{options.pictures} pictures received, at least 1 expected")
        system = SplitNet(build(options.model, len(json.loads(read_metadata(path)["classes"]))))
        load_weights(path, system)
        data = TrainingPictures(options.data)
        rows = np.random.default_rng(0).permutation(len(data.labels))[: options.pictures]
        images = data.rows(rows, system.net.input_px).images
    except (KeyError, OSError, ValueError) as error:
        print(f"tidesplit fit-ranges: error: {error}", file=sys.stderr)
        return 2
    ranges = measure_ranges(system, images)
    written = save_ranges(path, system, ranges)
    print(f"{written}: ranges of {sum(map(len, ranges.values()))} values, from {len(images)} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
