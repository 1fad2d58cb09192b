"""Times of a prepared net's points: measured on this machine, and estimated for a Raspberry Pi 4."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from torch import Tensor

from tidesplit.envs.world.vocabulary import Demand
from tidesplit.prepare.cut_net import CutNet
from tidesplit.prepare.result.models_of_cut_net import RATIO
from tidesplit.prepare.step_files import Show
from tidesplit.profiling.cuts.operations import Traced
from tidesplit.profiling.devices.boards import BOARDS
from tidesplit.profiling.devices.raspberry_pi import with_boards
from tidesplit.profiling.points.profile import Profile, to_json
from tidesplit.profiling.points.tiers import points_of
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.timing.loop_cost import loop_s
from tidesplit.runtime.timing.machine import table_of_machine, time_turns, with_loop
from tidesplit.runtime.timing.work import turns_of

RUNS = 3


def timed(cnn: Cnn, profile: Profile, net: CutNet, options: argparse.Namespace, path: Path, show: Show) -> str:
    """Write the profile with the tables of this machine and of the boards. Returns a few words about them."""
    turns, done = turns_of(cnn, profile, options.threads), 0

    def tick() -> None:
        nonlocal done
        done += 1
        show(done / (options.rounds * len(turns)))

    measured = time_turns(turns, options.rounds, RUNS, tick)
    machine = table_of_machine(profile, measured, options.threads)
    found = profile.with_device(options.device, machine)
    loop = loop_s(points_of(found, (options.device, options.device)), Demand(), None)
    found = profile.with_device(options.device, with_loop(machine, loop, "observation, record and request"))
    found = with_boards(found, options.device, list(BOARDS), {RATIO: values_moved(net.traced)})
    path.write_text(json.dumps(to_json(found), indent=1) + "\n", encoding="utf-8")
    whole = {label: found.devices[label].timings["device-c1.00"].head_s for label in (options.device, "raspberry-pi-4")}
    return "whole net " + ", ".join(f"{1e3 * seconds:.1f} ms on {label}" for label, seconds in whole.items())


def values_moved(traced: Traced) -> float:
    """Values that the convolutions read and write for one picture, without weights."""
    total = 0
    for node in traced.nodes:
        if "conv" in str(node.target):
            source, made = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
            total += sum(math.prod(tensor.shape) for tensor in (source, made) if isinstance(tensor, Tensor))
    return float(total)
