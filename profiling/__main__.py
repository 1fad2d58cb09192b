"""Measure what the operating points of a CNN cost.

tidesplit profile accuracy --profile NAME --images DIR --json OUT    accuracy and bytes, on your own pictures too
tidesplit profile accuracy --profile NAME --stream KIND --images DIR --json OUT    the same of streams, on clips
tidesplit profile latency --profile NAME --device LABEL --cnn DIR    timings of this machine, added to NAME.json
tidesplit profile chain --profile NAME --images DIR --json OUT       accuracy of two consecutive cuts, for three tiers
tidesplit profile report --profile NAME [--plot FILE]                the profile as text and plot
tidesplit profile switching --profile NAME                           cost of changing the operating point
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from tidesplit.compression.codec.knobs import split
from tidesplit.data.files import profile_files
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.tiers import worth_measuring

CORES = os.cpu_count() or 1
CLIPS = 200  # to measure streams on, unless a number is given: half a point of accuracy for a stream's loss


# Each verb imports its own modules: without torch, `tidesplit profile --help` still says which verbs there are.


def _accuracy(options: argparse.Namespace) -> None:
    if options.stream:
        _streams(options)
    elif options.images is None:
        raise ValueError("--images DIR expected: a folder with one folder of pictures a class")
    else:
        _stills(options)


def _stills(options: argparse.Namespace) -> None:
    from tidesplit.profiling.measuring.accuracy import measure_accuracy
    from tidesplit.profiling.measuring.assemble import assemble
    from tidesplit.profiling.measuring.trained import load_trained
    from tidesplit.profiling.streams.stream_points import with_streams_of

    rows = measure_accuracy(
        options.profile, options.images, options.points, options.limit or 0, options.json.with_suffix(".partial.jsonl"),
        options.jobs, options.ray, options.weights,
    )  # fmt: skip
    _write(options.json, rows)
    print(f"{len(rows)} operating points on {rows[0]['n']} pictures written to {options.json}")
    if options.write_profile:
        begun, path = profile_files(options.profile, options.file)
        before = profiles.load(begun) if begun.exists() else None
        trained, devices = load_trained(options.profile, options.weights), before.devices if before else {}
        made = assemble(
            options.profile, trained, rows, devices, _machine(options), options.dataset or _folder(options.images)
        )
        if before:
            made = with_streams_of(before, made)
            _say_which_streams(before, made)
        path.parent.mkdir(parents=True, exist_ok=True)
        profiles.save(made, path)
        print(f"profile written to {path}")


def _say_which_streams(before: profiles.Profile, made: profiles.Profile) -> None:
    had, kept = (sum(point.stream is not None for point in profile.points) for profile in (before, made))
    if had:
        print(f"{kept} of the profile's {had} points of streams are kept; --stream measures them again")


def _streams(options: argparse.Namespace) -> None:
    from tidesplit.profiling.measuring.trained import load_trained
    from tidesplit.profiling.streams.clip_rows import measure_streams, stream_ids
    from tidesplit.profiling.streams.clip_source import source_of
    from tidesplit.profiling.streams.stream_points import codec_times, with_streams

    limit = CLIPS if options.limit is None else options.limit
    source, trained = source_of(options.stream, options.images, limit), load_trained(options.profile, options.weights)
    rows = measure_streams(
        options.profile, source, options.points or stream_ids(trained), options.json.with_suffix(".partial.jsonl"),
        options.jobs, options.ray, options.weights,
    )  # fmt: skip
    _write(options.json, rows)
    print(f"{len(rows)} points on {rows[0]['n_clips']} clips written to {options.json}: {rows[0]['measure']}")
    if options.write_profile:
        begun, path = profile_files(options.profile, options.file)
        said = f"tidesplit profile accuracy --profile {options.profile} --stream {source.name}"
        origin = profiles.Provenance(
            kind="measured", source=said, machine=_machine(options), n=rows[0]["n"], spread="95 %, between clips"
        )
        times = codec_times(options.profile, options.weights, rows)
        profiles.save(with_streams(profiles.load(begun), rows, times, origin), path)
        print(f"points of streams written to {path}")


def _chains(options: argparse.Namespace) -> None:
    from tidesplit.profiling.measuring.cut_pairs import assumption, chain_table, measure_chains

    begun, path = profile_files(options.profile, options.file)
    profile = profiles.load(begun)
    pairs = [split(pair) for pair in options.pairs]
    chains = measure_chains(
        options.profile, options.images, pairs or worth_measuring(profile), options.limit,
        options.json.with_suffix(".partial.jsonl"), options.jobs, options.weights,
    )  # fmt: skip
    _write(options.json, [asdict(chain) for chain in chains])
    print(f"{len(chains)} pairs of cuts on {chains[0].n} pictures written to {options.json}")
    print(assumption(profile, chains))
    if options.write_profile:
        profiles.save(replace(profile, chains=chain_table(options.profile, chains, _machine(options))), path)
        print(f"pairs written to {path}")


def _report(options: argparse.Namespace) -> None:
    from tidesplit.profiling.measuring.claims import plot, report

    profile = profiles.load(options.profile)
    print(report(profile))
    if options.plot:
        plot(profile, options.plot)


def _switching(options: argparse.Namespace) -> None:
    from tidesplit.profiling.measuring.switching import time_switching
    from tidesplit.profiling.measuring.trained import load_trained

    constant, drawn = time_switching(load_trained(options.profile), options.threads)
    same, new = fmean(constant.times_s), fmean(drawn.times_s)
    print(f"head and encode, mean of {len(drawn.times_s)} frames: {1e3 * same:.2f} ms staying at a point,")
    print(f"{1e3 * new:.2f} ms with another point every frame: {1e3 * (new - same):+.2f} ms, no load, no retraining")


def _write(path: Path, rows: Sequence[Any]) -> None:
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _folder(path: Path) -> str:
    """A folder's name with that of the folder around it, because pictures often lie in one called test."""
    return "/".join(path.resolve().parts[-2:])


def _machine(options: argparse.Namespace) -> str:
    facts = machine_facts(options.jobs)
    return f"{facts['cpu']}, {facts['cores']} cores"


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidesplit profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], None], text: str) -> Callable[..., Any]:
        made = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        made.set_defaults(run=run)
        what = "CNN or profile file" if run is _report else "CNN"
        made.add_argument("--profile", required=True, metavar="NAME", help=f"{what}, e.g. efficientnet_lite0")
        return made.add_argument

    accuracy = verb("accuracy", _accuracy, "measure accuracy and bytes of operating points on a folder of pictures")
    chain = verb("chain", _chains, "measure accuracy and bytes of two consecutive cuts on a folder of pictures")
    shown = verb("report", _report, "show a profile as text, and as a plot of accuracy over bytes")
    switching = verb("switching", _switching, "time the change from one operating point to another")
    accuracy("--points", type=_words, default=[], metavar="ID,...", help="ids of operating points (default: all)")
    chain("--pairs", type=_words, default=[], metavar="ID>ID,...", help="pairs (default: those worth measuring)")
    accuracy(
        "--stream", metavar="WHAT",
        help="measure streams: on clips of a folder, or on those that a camera makes of --images: static, handheld or "
        "vehicle, whose rows belong in a profile",
    )  # fmt: skip
    pictures = "folder with one folder of pictures a class"
    for option, limit, to_write in ((accuracy, None, "table of points, or of its streams"), (chain, 400, "pairs")):
        option("--images", type=Path, required=option is chain, metavar="DIR", help=pictures)
        option("--json", type=Path, required=True, metavar="FILE", help="file to write, next to one of finished work")
        usual = f"{CLIPS} clips, all pictures" if limit is None else "%(default)s"
        option("--limit", type=int, default=limit, help=f"number of pictures or clips, 0 for all (default: {usual})")
        option("--jobs", type=int, default=CORES, help="number of processes (default: one a core)")
        option("--write-profile", action="store_true", help=f"make the result the profile's {to_write}")
    accuracy("--ray", metavar="ADDRESS", help="Ray cluster to run on")
    accuracy("--dataset", default="", help="name of the pictures in the profile (default: that of their folder)")
    for option in (accuracy, chain):
        option(
            "--file", type=Path, help="profile file to read and write (default: NAME.json, begun as the bundled one)"
        )
        option("--weights", type=Path, metavar="FILE", help="weights file (default: the bundled one)")
    switching("--threads", type=int, default=CORES, help="ONNX Runtime threads (default: one a core)")
    shown("--plot", type=Path, metavar="FILE", help="picture to write")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for a user's mistake."""
    chosen = _parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except (ValueError, OSError) as error:
        print(f"tidesplit profile: error: {error}", file=sys.stderr)
        return 2
    except KeyError as error:  # its text is the quoted sentence
        print(f"tidesplit profile: error: {error.args[0]}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
