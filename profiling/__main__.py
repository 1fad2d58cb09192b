"""Measure what the operating points of a CNN cost.

tidesplit profile accuracy --profile NAME --images DIR --json OUT    accuracy and bytes, on your own pictures too
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


# Each verb imports its own modules: without torch, `tidesplit profile --help` still says which verbs there are.


def _accuracy(options: argparse.Namespace) -> None:
    from tidesplit.profiling.measuring.accuracy import measure_accuracy
    from tidesplit.profiling.measuring.assemble import assemble
    from tidesplit.profiling.measuring.trained import load_trained

    rows = measure_accuracy(
        options.profile, options.images, options.points, options.limit, options.json.with_suffix(".partial.jsonl"),
        options.jobs, options.ray, options.weights,
    )  # fmt: skip
    _write(options.json, rows)
    print(f"{len(rows)} operating points on {rows[0]['n']} pictures written to {options.json}")
    if options.write_profile:
        begun, path = profile_files(options.profile, options.file)
        devices = profiles.load(begun).devices if begun.exists() else {}
        trained = load_trained(options.profile, options.weights)
        made = assemble(options.profile, trained, rows, devices, _machine(options), options.dataset)
        path.parent.mkdir(parents=True, exist_ok=True)
        profiles.save(made, path)
        print(f"profile written to {path}")


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
    for option, limit, to_write in ((accuracy, 0, "table of points"), (chain, 400, "pairs")):
        option("--images", type=Path, required=True, metavar="DIR", help="folder with one folder of pictures a class")
        option("--json", type=Path, required=True, metavar="FILE", help="file to write, next to one of finished work")
        option("--limit", type=int, default=limit, help="number of pictures, 0 for all (default: %(default)s)")
        option("--jobs", type=int, default=CORES, help="number of processes (default: one a core)")
        option("--write-profile", action="store_true", help=f"make the result the profile's {to_write}")
    accuracy("--ray", metavar="ADDRESS", help="Ray cluster to run on")
    accuracy("--dataset", default="Caltech-101 test", help="name of the pictures in the profile (default: %(default)s)")
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
