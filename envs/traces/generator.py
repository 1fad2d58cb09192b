"""Generates synthetic uplink traces, and compares them with measured ones.

    tidesplit trace --seed 1 --out lte.csv                 # the bundled trace, byte for byte
    tidesplit trace --preset umts --duration 600 --out umts.csv
    tidesplit trace --compare TRACE                        # statistics of TRACE and of the preset
    tidesplit trace --fit TRACE                            # parameters fitted to TRACE (file or folder)

The model is in `envs.traces.model`, its presets in `presets`, the statistics in `comparison`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tidesplit.envs.traces.comparison import measure, table
from tidesplit.envs.traces.fit import fit
from tidesplit.envs.traces.model import LinkModel, generate
from tidesplit.envs.traces.presets import PRESETS
from tidesplit.envs.traces.trace import Trace, TraceError, load_traces

DURATION_S = 1200.0  # 20 minutes: about seven long outages of the LTE model in a file of 160 KB
LONG_RUN_S = 20 * 3600.0  # so long that the model's statistics hardly depend on the seed


def csv_text(model: LinkModel, duration_s: float, seed: int) -> str:
    """A trace file drawn from `model`: in `#` lines the command and parameters that made it, then the CSV."""
    trace = generate(model, duration_s, np.random.default_rng(seed))
    head = ["# Synthetic uplink, not a measurement. Made by:"]
    head.append(f"# tidesplit trace --preset {model.name} --seed {seed} --duration {duration_s:g}")
    head += [f"# {name} = {value}" for name, value in asdict(model).items()]
    return "\n".join([*head, *csv_rows(trace)]) + "\n"


def csv_rows(trace: Trace) -> list[str]:
    """Header and one row for each bin, rounded to milliseconds and kbit/s."""
    rows = zip(trace.time_s.tolist(), (trace.bandwidth_bps / 1e6).tolist(), strict=True)
    return ["time_s,bandwidth_mbps", *(f"{time_s:.3f},{mbps:.3f}" for time_s, mbps in rows)]


def comparison(model: LinkModel, source: Sequence[Trace], duration_s: float, seed: int) -> str:
    """Markdown table of the measured source, a long run of the model, and the trace that `seed` gives."""
    return table(
        {
            "measured": measure(source),
            f"model, {LONG_RUN_S / 3600:.0f} h": measure([generate(model, LONG_RUN_S, np.random.default_rng(seed))]),
            f"seed {seed}": measure([generate(model, duration_s, np.random.default_rng(seed))]),
        }
    )


def parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    result = argparse.ArgumentParser(prog="tidesplit trace", description="Synthetic uplink traces.")
    result.add_argument("--preset", choices=sorted(PRESETS), default="lte", help="preset model (default: lte)")
    result.add_argument("--seed", type=int, default=1, help="seed of the random generator (default: 1)")
    result.add_argument("--duration", type=float, default=DURATION_S, help="seconds (default: %(default)g)")
    result.add_argument("--out", type=Path, help="file to write (default: standard output)")
    result.add_argument("--compare", metavar="TRACE", help="print the statistics of TRACE and of the preset")
    result.add_argument("--fit", metavar="TRACE", help="print the parameters fitted to TRACE (a file or a folder)")
    result.add_argument("--step", type=float, default=0.1, help="step of --fit in seconds (default: 0.1)")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0 on success and 2 if the input cannot be used."""
    args = parser().parse_args(argv)
    model = PRESETS[args.preset]
    try:
        if args.duration < model.step_s or args.step <= 0:
            raise ValueError(f"got --duration {args.duration:g} and --step {args.step:g}, expected positive seconds")
        if args.fit:
            print(fit(load_traces(args.fit), Path(args.fit).stem, f"fitted to {Path(args.fit).name}", args.step))
        elif args.compare:
            print(comparison(model, load_traces(args.compare), args.duration, args.seed))
        elif args.out:
            args.out.write_text(csv_text(model, args.duration, args.seed), encoding="utf-8", newline="\n")
        else:
            sys.stdout.write(csv_text(model, args.duration, args.seed))
    except (TraceError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
