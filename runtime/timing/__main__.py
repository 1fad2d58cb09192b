"""Time every operating point on this machine: tidesplit profile latency --profile NAME --device LABEL --cnn FOLDER

It needs the base installation only, so it runs on the device itself. FOLDER is the output of tidesplit export. The
times go into the profile as the table of this machine, which tidesplit train --profile FILE --device LABEL then uses.
Ctrl-C ends the timing early and keeps the rounds that were completed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tidesplit.agents import bundle as bundles
from tidesplit.agents.bundle import Bundle
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.profile import Profile, ProfileError
from tidesplit.profiling.points.tiers import points_of
from tidesplit.runtime.cnn import ENGINES, Cnn, CnnError, load_cnn
from tidesplit.runtime.export import cached_all, say
from tidesplit.runtime.ncnn_files import for_engine
from tidesplit.runtime.timing.loop_cost import loop_s
from tidesplit.runtime.timing.machine import only, table_of_machine, time_turns, with_loop
from tidesplit.runtime.timing.work import check_models, turns_of

CORES = os.cpu_count() or 1


def run(options: argparse.Namespace) -> None:
    """Time the points, and write the profile."""
    whole, file = _files(options.profile, options.file)
    profile = only(whole, options.points) if options.points else whole
    _keep_points(profile, file)
    file.parent.mkdir(parents=True, exist_ok=True)
    cnn = for_engine(_cnn(options.cnn, profile, options.weights), options.engine, say)
    check_models(cnn, profile)
    policy = None if options.bundle is None else bundles.load(options.bundle)
    turns = turns_of(cnn, profile, options.threads)
    measured = time_turns(turns, options.rounds, options.runs, _progress(options.rounds * len(turns)))
    table = table_of_machine(profile, measured, options.threads, options.engine)
    table = with_loop(table, *_loop(profile.with_device(options.device, table), options.device, policy))
    if options.device in whole.devices:  # its watts stay: they have a source of their own
        table = replace(table, power=whole.devices[options.device].power)
    profiles.save(profile.with_device(options.device, table), file)
    kept = table.provenance.n // options.runs  # fewer rounds than asked for after Ctrl-C
    print(
        f"{options.device}: {len(profile.points)} operating points, {kept} of {options.rounds} rounds, saved in {file}"
    )
    print(f"the loop takes {1e3 * table.loop_s:.2f} ms a frame: {table.provenance.spread['loop']}")
    if noisy := table.provenance.spread["noisy"]:
        print(f"warning: {noisy} of {len(measured)} timings spread by more than 10 % of their median; was it quiet?")


def _files(name: str, file: Path | None) -> tuple[Profile, Path]:
    """The profile to begin with, and the file to write."""
    named, here = Path(name), Path(f"{name}.json")
    begun = next((path for path in (file, named, here) if path is not None and path.is_file()), name)
    profile = profiles.load(begun)
    return profile, file or (named if named.is_file() else Path(f"{profile.name}.json"))


def _keep_points(profile: Profile, file: Path) -> None:
    """Refuse to write fewer points over a file that has more."""
    before = len(profiles.load(file).points) if file.is_file() else 0
    if before > len(profile.points):
        raise ProfileError(
            f"{file} has {before} operating points, and --points would leave {len(profile.points)} of them: "
            "name another file with --file"
        )


def _cnn(folder: Path | None, profile: Profile, weights: Path | None) -> Cnn:
    """The exported CNN. Without a folder it comes from the user's cache, into which it is exported if need be."""
    if folder is not None:
        return load_cnn(folder)
    try:
        return cached_all(profile.name, weights, say)
    except CnnError as error:
        raise CnnError(f"{error}; --cnn names a folder that tidesplit export wrote elsewhere") from error


def _loop(profile: Profile, device: str, trained: Bundle | None) -> tuple[float, str]:
    """Seconds that the loop takes for a frame, and its parts."""
    if trained is not None:
        return loop_s(trained.table, trained.demand, trained.policy), "observation, policy, record and request"
    table = points_of(profile, (device, device))
    return loop_s(table, Demand(), None), "observation, record and request; --bundle adds the policy"


def _progress(total: int) -> Callable[[], None]:
    """A function to call after each turn. It shows the share done and the time left, or a line a tenth in a log."""
    begun_s, done, live = time.monotonic(), 0, sys.stderr.isatty()

    def tick() -> None:
        nonlocal done
        done += 1
        if not live and done * 10 // total == (done - 1) * 10 // total:
            return
        left_s = (time.monotonic() - begun_s) / done * (total - done)
        begin, end = ("\r\x1b[K", "" if done < total else "\n") if live else ("", "\n")
        sys.stderr.write(f"{begin}timing: {100 * done // total} %, {left_s:.0f} s left{end}")
        sys.stderr.flush()

    return tick


def _at_least_1(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="tidesplit profile latency", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = made.add_argument
    option("--profile", required=True, metavar="NAME", help="bundled profile or profile file, e.g. efficientnet_lite0")
    option("--device", required=True, metavar="LABEL", help="name of this machine in the profile")
    option("--cnn", type=Path, metavar="FOLDER", help="exported CNN (default: exported here, which needs torch)")
    option("--file", type=Path, help="profile file to write, and read if it exists (default: NAME.json)")
    option("--weights", type=Path, metavar="FILE", help="without --cnn: weights file (default: the bundled one)")
    option("--points", type=_ids, default=[], metavar="ID,...", help="the profile gets these points only")
    option("--bundle", type=Path, help="folder of tidesplit train, to time its policy as a part of the loop")
    option("--threads", type=_at_least_1, default=CORES, help="threads of a run (default: one a core)")
    option("--engine", choices=ENGINES, default=ENGINES[0], help="what runs the CNN (default: %(default)s)")
    option("--rounds", type=_at_least_1, default=6, help="interleaved rounds (default: %(default)s)")
    option(
        "--runs",
        type=_at_least_1,
        default=5,
        help="timed runs in a round, after three to warm up (default: %(default)s)",
    )
    return made


def _ids(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 0, 2 for a user's mistake, 130 when stopped before anything was timed."""
    try:
        run(parser().parse_args(arguments))
    except (ValueError, OSError, ImportError) as error:
        print(f"tidesplit profile latency: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tidesplit profile latency: stopped in the first round, nothing written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
