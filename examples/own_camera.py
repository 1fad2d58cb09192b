"""A camera of your own: any Python code that gives pictures. Another function takes the answers.

    tidesplit server --port 50051
    python examples/own_camera.py out/lte localhost:50051

Here the pictures are drawn. `picamera2.capture_array()` and OpenCV's `read()` (BGR: turn the last axis round) give such
arrays too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np

from tidesplit.compression.codec.pixels import Pixels
from tidesplit.runtime.edge import watch
from tidesplit.runtime.log.record import Record


def pictures() -> Iterator[Pixels]:
    """Pictures uint8 `[height, width, 3]` in RGB, 30 a second, of any size: a bright square that wanders."""
    for number in range(1_000_000):
        picture = np.full((240, 320, 3), 40, dtype=np.uint8)
        left = 4 * number % 260
        picture[90:150, left : left + 60] = (250, 200, 60)
        time.sleep(1 / 30)  # a camera's next picture
        yield picture


def answered(record: Record) -> None:
    """Take a frame's end. It is called on a thread of its own, so that it may be slow."""
    best = ", ".join(f"{name} {100 * share:.0f} %" for name, share in record.top(2))
    print(f"{record.frame:5} {record.answered_by:6} {1e3 * record.latency_s:4.0f} ms  {record.decision:28} {best}")


def main(bundle: str, server: str, frames: str = "150", trace: str = "") -> None:
    """Classify pictures with a trained policy. With ``trace`` the uplink is recorded in this file meanwhile."""
    options = {"record_trace": trace} if trace else {}
    counts = watch(bundle, server, answered, pictures(), frames=int(frames), **options)
    print(counts.text())


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: own_camera.py BUNDLE HOST:PORT [FRAMES [TRACE.csv]]")
    main(*sys.argv[1:])
