"""Cost of going from one operating point to another: the claim that one weights file serves them all, timed.

tidesplit profile switching --profile efficientnet_lite0
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tidesplit.compression.codec.knobs import BITS, RATIOS, REGIONS, Knobs
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.compression.net.deploy import head_model
from tidesplit.compression.session import session
from tidesplit.profiling.measuring.clock import Measurement, time_interleaved
from tidesplit.profiling.measuring.trained import Trained

__all__ = ["time_switching"]


def time_switching(trained: Trained, threads: int, rounds: int = 10) -> tuple[Measurement, Measurement]:
    """Seconds a frame (head and encode) at a constant point, and at a point drawn anew for every frame.

    Both see the same points equally often, so that the difference is the cost of switching alone.
    """
    x = to_input(natural_picture(trained.system.net.input_px))
    partitions = range(1, trained.system.net.partitions)
    runs = {
        (p, r): session(head_model(trained.system, p, r).SerializeToString(), threads)
        for p in partitions
        for r in RATIOS
    }
    points = [Knobs(p, r, g, b) for p, r in runs for g in REGIONS for b in BITS]

    def frame(knobs: Knobs) -> None:
        _, y, score = runs[knobs.partition, knobs.ratio].run(None, {"x": x})
        trained.codec.wire.encode(y[0], score[0, 0], knobs)

    def work(knobs: Knobs) -> Callable[[], object]:
        return lambda: frame(knobs)

    for knobs in points:
        frame(knobs)
    constant: list[float] = []
    for number in range(len(runs)):
        name = str(number)
        same = points[number * len(REGIONS) * len(BITS)]
        constant += time_interleaved({name: work(same)}, 1, rounds)[name].times_s
    drawn: list[float] = []
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        order = rng.permutation(len(runs)) * len(REGIONS) * len(BITS)
        for index in order:
            drawn += time_interleaved({"": work(points[index])}, 1, 1, warm=0)[""].times_s
    return Measurement(tuple(constant)), Measurement(tuple(drawn))
