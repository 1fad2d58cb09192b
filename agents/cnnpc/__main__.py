"""The best of CNNPC's strategies (Yang et al., TPDS 2022) for a demand, exactly, on its tables or on your own.

    tidesplit cnnpc --tables ../shared/cnnpc/mobilenet --device MI8 --bandwidth 10 \\
        --accuracy ../shared/cnnpc/mobilenet/accuracy_top5.csv --A0 0.885

A strategy cuts the CNN once or twice and removes a share of the channels (its rate, k / channels) at each cut.
Latency: T_R of each tier, T_C * (1 - rate) of each hop, 1.66 ms. One cut: end|edge, end|cloud (over both hops) or
edge|cloud (the raw image crossed hop one). Two: end|edge|cloud. Accuracy: that of the uncut CNN less each cut's drop,
linear between measured rates; rates above the largest measured one are not offered. --A0: lowest latency, ties to the
higher accuracy. --T0: highest accuracy, ties to the lower latency.

Files in --tables, for a CNN with C cuts:
  TR-DEVICE/T_R.npy      [C + 1, 3]  ms of each stretch between cuts on end, edge, cloud
  TC-20M-BANDWIDTHM/T_C.npy  [C + 1, 2]  ms of the raw image (row 0) and of each cut's whole feature, hops one and two
  partitions.npy         [2 or more, C]  row 0: block that each cut follows, row 1: channels there; others are not read
T_R.npy or T_C.npy straight in --tables goes before the folders, and --device or --bandwidth is then not needed;
partitions.npy is not needed in the folders mobilenet and resnet as published. --accuracy: a CSV with the columns
block1,rate1,block2,rate2,accuracy (block1 = block2: one cut); a row of rate 0 gives the uncut CNN.

Exit code: 0, 2 for a mistake in options or files, 3 where nothing meets the demand; the nearest feasible one is named.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from tidesplit.agents.cnnpc import pruning, published_tables
from tidesplit.agents.cnnpc.published_tables import TableError
from tidesplit.agents.cnnpc.solve import Answer, Infeasible, fastest, most_accurate
from tidesplit.agents.cnnpc.strategies import enumerate_strategies

INFEASIBLE = 3


def main(argv: list[str] | None = None) -> int:
    """Run; 0 with an answer, 2 for a user's mistake, 3 where the demand is infeasible."""
    options = arguments().parse_args(argv)
    try:
        tell(answer(options)._asdict(), options.json)
    except TableError as error:
        print(f"tidesplit cnnpc: error: {error}", file=sys.stderr)
        return 2
    except Infeasible as told:
        print(f"agents.cnnpc: {told}", file=sys.stderr)
        if options.json:
            tell({"infeasible": str(told), "nearest": told.nearest, "answer": told.answer._asdict()}, as_json=True)
        return INFEASIBLE
    return 0


def answer(options: argparse.Namespace) -> Answer:
    """The best strategy for what the command line asks.

    Raises:
        TableError: a mistake in files or demand.
        Infeasible: no strategy meets the demand.
    """
    if options.A0 is not None and not 0.0 <= options.A0 <= 1.0:
        raise TableError(f"--A0 {options.A0:g} received, an accuracy from 0 to 1 expected")
    if options.T0 is not None and not 0.0 < options.T0 < math.inf:
        raise TableError(f"--T0 {options.T0:g} received, more than 0 ms expected")
    timed = published_tables.load(options.tables, options.device, options.bandwidth)
    strategies = enumerate_strategies(timed, pruning.load(options.accuracy, timed))
    if options.A0 is not None:
        return fastest(strategies, timed, options.A0)
    return most_accurate(strategies, timed, options.T0)


def tell(found: dict[str, Any], as_json: bool) -> None:
    """Print as JSON, or one line a value."""
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        shown = (
            ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value) if isinstance(value, list) else value
        )
        print(f"{name:<11}{shown}")


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="tidesplit cnnpc", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=Path, required=True, metavar="DIR", help="folder of the tables")
    parser.add_argument("--device", metavar="NAME", help="end device, for example MI8: reads TR-NAME/T_R.npy")
    parser.add_argument("--bandwidth", metavar="MBPS", help="edge-cloud Mbit/s: reads TC-20M-MBPSM/T_C.npy")
    parser.add_argument("--accuracy", type=Path, required=True, metavar="CSV", help="measured accuracies")
    demand = parser.add_mutually_exclusive_group(required=True)
    demand.add_argument("--A0", type=float, metavar="X", help="accuracy to keep, 0 to 1: the fastest strategy")
    demand.add_argument("--T0", type=float, metavar="MS", help="latency to keep, ms: the most accurate strategy")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
