"""A device's process as far as its first frame: python benchmarks/edge_process.py --bundle OUT

It imports what `tidesplit edge` imports, loads every model of the bundle and runs each point once. It prints the
resident memory on the way, MiB, as one line of JSON. `edge_cost.py` starts it, so that nothing else is in the process.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tidesplit.agents import bundle as bundles
from tidesplit.compression.codec.knobs import sender
from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.heap import packed_heap
from tidesplit.runtime import edge
from tidesplit.runtime.device.engine import Engine, points_of
from tidesplit.runtime.export import for_bundle

__all__ = ["edge", "main", "resident_mib"]


def resident_mib() -> float:
    """Memory of this process that is in RAM."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def main(argv: Sequence[str] | None = None) -> None:
    """Load and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder that tidesplit train wrote")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run (default: 1)")
    parser.add_argument("--without-video", action="store_true", help="leave out the points that send video")
    options = parser.parse_args(argv)
    found = {"libraries": resident_mib()}
    loaded = bundles.load(options.bundle)
    cnn = for_bundle(options.bundle)
    points = [point for point in points_of(loaded.profile, loaded.table.ids) if not _left_out(point.codec, options)]
    with packed_heap():
        engine = Engine(cnn, tuple(points), options.threads)
    found["loaded"] = resident_mib()
    known, picture = {point.id for point in points}, natural_picture(cnn.input_px)
    for point_id in loaded.table.ids:
        if sender(point_id) in known:
            result = engine.head(point_id, picture)
            if result.payload is not None:
                engine.finish(point_id, result.feature)
    found["run"] = resident_mib()
    print(json.dumps(found))


def _left_out(codec: str, options: argparse.Namespace) -> bool:
    return bool(options.without_video) and codec == "h264"


if __name__ == "__main__":
    main()
