"""Measure the ranges of a CNN's activations on training pictures. Its int8 models need them.

tidesplit fit-ranges --model efficientnet_lite0 --data DIR [--weights FILE]

DIR holds train/<class>/*.jpg, or is a packed .npz file. It reads no label. The ranges are written next to the weights
file, as NAME.ranges.json.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tidesplit.compression.fitting.fit_command import run_fit
from tidesplit.compression.net.int8 import measure_ranges, save_ranges
from tidesplit.compression.net.system import SplitNet
from tidesplit.compression.pictures.labelled import Bytes


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for a user's mistake."""
    return run_fit("tidesplit fit-ranges", __doc__.splitlines()[0], 256, _fit, arguments)


def _fit(path: Path, system: SplitNet, images: Bytes) -> str:
    ranges = measure_ranges(system, images)
    written = save_ranges(path, system, ranges)
    return f"{written}: ranges of {sum(map(len, ranges.values()))} values"


if __name__ == "__main__":
    sys.exit(main())
