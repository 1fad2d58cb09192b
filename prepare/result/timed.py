"""Times of a prepared net's points: measured on this machine, and estimated for a Raspberry Pi 4."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tidesplit.envs.world.vocabulary import Demand
from tidesplit.prepare.step_files import Show
from tidesplit.profiling.devices.boards import BOARDS
from tidesplit.profiling.devices.raspberry_pi import values_of, with_boards
from tidesplit.profiling.points.profile import Profile, to_json
from tidesplit.profiling.points.tiers import points_of
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.timing.loop_cost import loop_s
from tidesplit.runtime.timing.machine import table_of_machine, time_turns, with_loop
from tidesplit.runtime.timing.work import turns_of

RUNS = 3


def timed(cnn: Cnn, profile: Profile, options: argparse.Namespace, path: Path, show: Show) -> str:
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
    found = with_boards(found, options.device, list(BOARDS), values_of(found))
    path.write_text(json.dumps(to_json(found), indent=1) + "\n", encoding="utf-8")
    whole = {label: found.devices[label].timings["device-c1.00"].head_s for label in (options.device, "raspberry-pi-4")}
    return "whole net " + ", ".join(f"{1e3 * seconds:.1f} ms on {label}" for label, seconds in whole.items())
