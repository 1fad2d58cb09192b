"""Cost of changing the operating point from frame to frame. One weights file serves all points, so it should be small.

tidesplit profile switching --profile efficientnet_lite0
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tidesplit.compression.codec.knobs import BITS, REGIONS, Knobs
from tidesplit.compression.codec.pixels import natural_picture, to_input
from tidesplit.compression.net.deploy import head_model
from tidesplit.compression.session import session
from tidesplit.profiling.measuring.clock import Measurement, time_interleaved
from tidesplit.profiling.measuring.trained import Trained


def time_switching(trained: Trained, threads: int, rounds: int = 10) -> tuple[Measurement, Measurement]:
    """Seconds a frame (head and encode): at a constant point, and at a point that is drawn for every frame.

    Both see the same points equally often, so their difference is the cost of switching.
    """
    net = trained.system.net
    x = to_input(natural_picture(net.input_px))
    heads = {
        Knobs(partition, ratio, REGIONS[0], BITS[0]): head_model(trained.system, partition, ratio)
        for partition in range(1, net.partitions)
        for ratio in net.ratios
    }
    runs = {knobs: session(head.SerializeToString(), threads) for knobs, head in heads.items()}

    def frame(knobs: Knobs) -> None:
        _, y, score = runs[knobs].run(None, {"x": x})
        trained.codec.wire.encode(y[0], score[0, 0], knobs)

    def timed(knobs: Knobs, runs: int, warm: int) -> tuple[float, ...]:
        return time_interleaved({"": partial(frame, knobs)}, 1, runs, warm)[""].times_s

    points, rng = list(runs), np.random.default_rng(0)
    constant = [seconds for knobs in points for seconds in timed(knobs, rounds, warm=3)]
    order = [points[i] for _ in range(rounds) for i in rng.permutation(len(points))]
    drawn = [seconds for knobs in order for seconds in timed(knobs, 1, warm=0)]
    return Measurement(tuple(constant)), Measurement(tuple(drawn))
