"""Find CNNPC's best strategy (Yang et al., TPDS 2022) for a demand, exactly, on its tables or on your own.

    tidesplit cnnpc --tables ../shared/cnnpc/mobilenet --device MI8 --bandwidth 10 \\
        --accuracy ../shared/cnnpc/mobilenet/accuracy_top5.csv --A0 0.885

A strategy cuts the CNN once or twice, and removes a share of the channels at each cut: its rate, k / channels. One cut:
end|edge, end|cloud (over both hops), or edge|cloud (the raw image crosses hop one). Two cuts: end|edge|cloud.

Latency is the sum of T_R on each tier, T_C * (1 - rate) on each hop, and 1.66 ms. Accuracy is that of the uncut CNN
less the drop of each cut, linear between measured rates. Rates above the largest measured one are not offered.
--A0 asks for the lowest latency, and ties go to the higher accuracy. --T0 asks for the highest accuracy, and ties go to
the lower latency.

Files in --tables, for a CNN with C cuts:
  TR-DEVICE/T_R.npy          [C + 1, 3]  ms of each stretch between cuts on end, edge, cloud
  TC-20M-BANDWIDTHM/T_C.npy  [C + 1, 2]  ms of the raw image (row 0) and of each cut's whole feature on hops one and two
  partitions.npy             [2 or more, C]  row 0: block before each cut, row 1: channels there; other rows are ignored
A T_R.npy or T_C.npy directly in --tables has priority over the folders. --device or --bandwidth is then not needed.
The folders mobilenet and resnet, as published, need no partitions.npy.
--accuracy is a CSV file with the columns block1,rate1,block2,rate2,accuracy. Rows with block1 = block2 and
rate1 = rate2 describe one cut. A row with rate 0 gives the uncut CNN.

Exit code: 0, 2 for a mistake in options or files, 3 where no strategy meets the demand. The nearest feasible demand is
then printed.
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
from tidesplit.agents.cnnpc.solve import Infeasible, Solution, fastest, most_accurate
from tidesplit.agents.cnnpc.strategies import enumerate_strategies

INFEASIBLE = 3


def main(argv: list[str] | None = None) -> int:
    """Run. Returns 0 with a solution, 2 for a user's mistake, 3 for an infeasible demand."""
    options = arguments().parse_args(argv)
    try:
        show(solution(options)._asdict(), options.json)
    except TableError as error:
        print(f"tidesplit cnnpc: error: {error}", file=sys.stderr)
        return 2
    except Infeasible as found:
        print(f"tidesplit cnnpc: {found}", file=sys.stderr)
        if options.json:
            nearest = {"infeasible": str(found), "nearest": found.nearest, "answer": found.solution._asdict()}
            show(nearest, as_json=True)
        return INFEASIBLE
    return 0


def solution(options: argparse.Namespace) -> Solution:
    """The best strategy for the options of the command line.

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


def show(values: dict[str, Any], as_json: bool) -> None:
    """Print as JSON, or one line for each value."""
    if as_json:
        print(json.dumps(values))
        return
    for name, value in values.items():
        if isinstance(value, list):
            value = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
        print(f"{name:<11}{value}")


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
    demand.add_argument("--A0", type=float, metavar="X", help="lowest accuracy, 0 to 1: prints the fastest strategy")
    demand.add_argument("--T0", type=float, metavar="MS", help="highest latency, ms: prints the most accurate strategy")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
