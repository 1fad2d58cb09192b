"""Measure what the operating points of a CNN cost.

tidesplit profile accuracy --profile NAME --images DIR --json OUT    accuracy and bytes, on your own pictures too
tidesplit profile latency --profile NAME --device LABEL              timings of this machine, added to the profile
tidesplit profile chain --profile NAME --images DIR --json OUT       accuracy of two cuts in a row, for three tiers
tidesplit profile report --profile NAME [--plot FILE]                what the profile shows
tidesplit profile switching --profile NAME                           cost of changing the operating point
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from tidesplit.compression.codec.knobs import split
from tidesplit.profiling.measuring.accuracy import measure_accuracy
from tidesplit.profiling.measuring.assemble import assemble, profile_path
from tidesplit.profiling.measuring.chain import assumption, chain_table, measure_chains
from tidesplit.profiling.measuring.claims import plot, report
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.profiling.measuring.latency import measure_latency
from tidesplit.profiling.measuring.switching import time_switching
from tidesplit.profiling.measuring.trained import load_trained
from tidesplit.profiling.points import profile as profiles
from tidesplit.profiling.points.tiers import worth_measuring


def _accuracy(options: argparse.Namespace) -> None:
    out = Path(options.json)
    points = [point for point in options.points.split(",") if point]
    weights = Path(options.weights) if options.weights else None
    rows = measure_accuracy(
        options.profile, Path(options.images), points, options.limit, out.with_suffix(".partial.jsonl"), options.jobs,
        options.ray, weights,
    )  # fmt: skip
    out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} operating points on {rows[0]['n']} pictures written to {out}")
    if options.write_profile:
        path = profile_path(options.profile)
        devices = profiles.load(path).devices if path.exists() else {}
        facts = machine_facts(options.jobs)
        made = assemble(
            options.profile, load_trained(options.profile, weights), rows, devices,
            f"{facts['cpu']}, {facts['cores']} cores", options.dataset,
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        profiles.save(made, path)
        print(f"profile written to {path}")


def _chains(options: argparse.Namespace) -> None:
    out, path = Path(options.json), Path(options.file) if options.file else profile_path(options.profile)
    profile = profiles.load(path)
    weights = Path(options.weights) if options.weights else None
    pairs = [split(pair) for pair in options.pairs.split(",") if pair]
    chains = measure_chains(
        options.profile, Path(options.images), pairs or worth_measuring(profile), options.limit,
        out.with_suffix(".partial.jsonl"), options.jobs, weights,
    )  # fmt: skip
    out.write_text(json.dumps([asdict(chain) for chain in chains], indent=1) + "\n", encoding="utf-8")
    print(f"{len(chains)} pairs of cuts on {chains[0].n} pictures written to {out}; {assumption(profile, chains)}")
    if options.write_profile:
        facts = machine_facts(options.jobs)
        table = chain_table(options.profile, chains, f"{facts['cpu']}, {facts['cores']} cores")
        profiles.save(replace(profile, chains=table), path)
        print(f"pairs written to {path}")


def _latency(options: argparse.Namespace) -> None:
    path = Path(options.file) if options.file else profile_path(options.profile)
    trained = load_trained(options.profile, Path(options.weights) if options.weights else None)
    profile = profiles.load(path)
    torch.set_num_threads(options.threads)
    table, measured = measure_latency(trained, options.threads, options.rounds, options.runs)
    profiles.save(profile.with_device(options.device, table), path)
    noisy = sum(m.noisy for m in measured.values())
    print(f"{options.device}: {len(table.timings)} operating points timed, added to {path}")
    if noisy:
        print(f"warning: {noisy} of {len(measured)} timings spread by more than 10 % of their median: was it quiet?")


def _report(options: argparse.Namespace) -> None:
    profile = profiles.load(options.profile)
    print(report(profile))
    if options.plot:
        plot(profile, Path(options.plot))


def _switching(options: argparse.Namespace) -> None:
    constant, drawn = time_switching(load_trained(options.profile), options.threads)
    same, new = np.mean(constant.times_s), np.mean(drawn.times_s)
    print(f"head and encode, mean of {len(drawn.times_s)} frames: {1e3 * same:.2f} ms staying at a point,")
    print(f"{1e3 * new:.2f} ms with another point every frame: {1e3 * (new - same):+.2f} ms, no load, no retraining")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tidesplit profile", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    accuracy = verbs.add_parser("accuracy", help="accuracy and bytes of operating points on a folder of pictures")
    accuracy.add_argument("--profile", required=True, help="name of the CNN, e.g. efficientnet_lite0")
    accuracy.add_argument("--images", required=True, help="folder with one folder of pictures a class")
    accuracy.add_argument("--points", default="", help="ids of operating points, comma separated (default: all)")
    accuracy.add_argument("--limit", type=int, default=0, help="pictures, of a fixed shuffle (default: all)")
    accuracy.add_argument("--json", required=True, help="file of rows to write; finished work is kept beside it")
    accuracy.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    accuracy.add_argument("--ray", default=None, help="address of a Ray cluster to run on")
    accuracy.add_argument("--weights", default="", help="other weights file (default: the bundled one)")
    accuracy.add_argument("--write-profile", action="store_true", help="make these rows the profile's table")
    accuracy.add_argument("--dataset", default="Caltech-101 test", help="name of the pictures, for the profile")
    accuracy.set_defaults(run=_accuracy)
    chain = verbs.add_parser("chain", help="accuracy of two cuts in a row, on a folder of pictures")
    chain.add_argument("--profile", required=True, help="name of the CNN")
    chain.add_argument("--images", required=True, help="folder with one folder of pictures a class")
    chain.add_argument("--pairs", default="", help="ONE>TWO,... ids of points (default: those worth measuring)")
    chain.add_argument("--limit", type=int, default=400, help="pictures, of a fixed shuffle, 0: all (default: 400)")
    chain.add_argument("--json", required=True, help="file of pairs to write; finished work is kept beside it")
    chain.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    chain.add_argument("--file", default="", help="profile file (default: the bundled one)")
    chain.add_argument("--weights", default="", help="other weights file (default: the bundled one)")
    chain.add_argument("--write-profile", action="store_true", help="keep these pairs in the profile")
    chain.set_defaults(run=_chains)
    latency = verbs.add_parser("latency", help="time every operating point on this machine")
    latency.add_argument("--profile", required=True, help="name of the CNN")
    latency.add_argument("--device", required=True, help="label of this machine in the profile")
    latency.add_argument("--file", default="", help="profile file to add to (default: the bundled one)")
    latency.add_argument("--weights", default="", help="other weights file (default: the bundled one)")
    latency.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="ONNX Runtime threads")
    latency.add_argument("--rounds", type=int, default=6, help="interleaved rounds")
    latency.add_argument("--runs", type=int, default=5, help="timed runs a round, after three to warm up")
    latency.set_defaults(run=_latency)
    text = verbs.add_parser("report", help="what the profile shows, and its rate-accuracy plot")
    text.add_argument("--profile", required=True, help="name of the CNN, or a profile file")
    text.add_argument("--plot", default="", help="picture to write")
    text.set_defaults(run=_report)
    switching = verbs.add_parser("switching", help="time going from one operating point to another")
    switching.add_argument("--profile", required=True, help="name of the CNN")
    switching.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="ONNX Runtime threads")
    switching.set_defaults(run=_switching)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 when done, 2 for a user's mistake."""
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
