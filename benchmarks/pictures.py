"""Draw the README's picture of twenty seconds with an outage: python benchmarks/pictures.py --bundle out/lte

Simulated. The uplink is the bundled LTE trace from the second on at which nothing was trained or tuned any more: 8 s at
eight times its bandwidth, an outage of 5 s, then 7 s of the trace unchanged; the round trip is 40 ms. Every controller
plays it on the same nine random courses of events. The picture shows the course on which PPO's lead over the threshold
rule is the median of the nine, and the means over all nine are printed. Tuning the rules takes about a minute.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np

from tidesplit.agents import bundle as bundles
from tidesplit.agents.judging import budgeted, ladder
from tidesplit.agents.judging.budgeted import THRESHOLD
from tidesplit.agents.judging.evaluation import Entrant, History, play, simulation_of
from tidesplit.envs.simulation.simulation import Scenario
from tidesplit.envs.traces.trace import Trace, concatenate, load_traces
from tidesplit.envs.world.vocabulary import DEVICE, MISS, SERVER, Floats

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first: there may be no display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TRAINED_SHARE = 0.8  # what train.py trains on; the rest of the trace is held out
FAST_S, OUTAGE_S, WHOLE_S, FASTER = 8.0, 5.0, 20.0, 8.0
RTT_S = 0.040  # of the README's emulated link
COURSES = 9  # odd, so that there is a median
RIVAL = THRESHOLD  # the best rule that sees what the policy sees
SHOWN = {ladder.POLICY: "#1f5fa8", RIVAL: "#b0492c", "MPC, tuned": "#7a7a7a", "best static point": "#b9b9b9"}
ANSWERED = {
    SERVER: ("server", "#2a9d55", "o"),
    DEVICE: ("device", "#e0a030", "o"),
    MISS: ("nobody in time", "#c03030", "x"),
}

OUT = Path(__file__).resolve().parents[1] / "docs" / "outage.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Play, draw, print the means."""
    parser = argparse.ArgumentParser(
        prog="pictures.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bundle", type=Path, required=True, help="folder that train.py wrote for lte.csv, with a budget"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="picture to write")
    options = parser.parse_args(argv)
    bundle = bundles.load(options.bundle)
    (whole,) = load_traces("lte")
    seen, unseen = whole.split(TRAINED_SHARE)
    if not bundle.demand.budgeted:
        parser.error(f"{options.bundle} has no budget, and the {THRESHOLD} needs one")
    world = bundle.world.under(bundle.demand)
    tune_on = Scenario(traces=(seen,), demands=(bundle.demand,), table=bundle.table, world=world)
    judge_on = replace(tune_on, traces=(with_outage(unseen),), world=replace(world, rtt_s=RTT_S))
    entrants: dict[str, Entrant] = {
        **ladder.tuned_rules(tune_on, ladder.Tuning(), SHOWN),
        ladder.POLICY: budgeted.policy_of(bundle, bundle.demand),
    }
    records = {name: play(entrants[name], simulation_of(judge_on, range(COURSES))) for name in SHOWN}
    for name, played in records.items():
        print(f"{name:16} {summary(played)}")
    ahead = leads(records[ladder.POLICY], records[RIVAL])
    course = int(np.argsort(ahead)[COURSES // 2])
    figure = draw({name: played[course] for name, played in records.items()}, bundle.demand.period_s)
    figure.savefig(options.out, dpi=100)
    plt.close(figure)
    print(f"{ladder.POLICY} is ahead of {RIVAL} on {np.count_nonzero(ahead > 0.0)} of {COURSES} courses")
    print(f"{options.out} shows course {course}, of the median lead")
    return 0


def with_outage(trace: Trace) -> Trace:
    """The trace's first 20 s: faster at first, then an outage, then unchanged."""
    fast = trace.slice(0.0, FAST_S)
    gone = Trace("outage", np.zeros(1), OUTAGE_S, np.zeros(1))
    rest = trace.slice(FAST_S + OUTAGE_S, WHOLE_S)
    return concatenate("outage", [replace(fast, bandwidth_bps=FASTER * fast.bandwidth_bps), gone, rest])


def summary(played: Sequence[History]) -> str:
    """Mean utility and share of missed frames over all courses."""
    utility = np.array([record.utility.mean() for record in played])
    missed = np.mean([np.mean(record.answered_by == MISS) for record in played])
    return f"utility {utility.mean():.3f} ({utility.min():.3f} to {utility.max():.3f}), {100 * missed:.1f} % missed"


def leads(ours: Sequence[History], theirs: Sequence[History]) -> Floats:
    """Difference in mean utility on each course, `[COURSES]`."""
    return np.array([one.utility.mean() - other.utility.mean() for one, other in zip(ours, theirs, strict=True)])


def draw(records: Mapping[str, History], period_s: float) -> Figure:
    """Bandwidth, what PPO and the rival send and who answers, and every controller's utility over the last second."""
    figure, (link, ours, theirs, worth) = plt.subplots(
        4, 1, figsize=(9.6, 8.0), sharex=True, layout="constrained", height_ratios=(2, 3, 3, 3)
    )
    one = records[ladder.POLICY]
    time_s = np.arange(len(one.utility), dtype=np.float64) * period_s
    link.fill_between(time_s, one.goodput_bps / 1e6, color="#c9d8ea", step="post")
    link.set_ylabel("uplink\nMbit/s")
    for axes, name in ((ours, ladder.POLICY), (theirs, RIVAL)):
        _decisions(axes, time_s, records[name], name)
    ours.legend(loc="upper right", ncols=3, fontsize=8, title="answered by", title_fontsize=8)
    second = round(1.0 / period_s)
    for name, colour in SHOWN.items():
        mean = records[name].utility.mean()
        worth.plot(time_s, running(records[name].utility, second), color=colour, label=f"{name}  ({mean:.3f})")
    worth.set_ylabel("utility,\nlast second")
    worth.set_ylim(0.4, 1.0)
    worth.set_xlabel("time, s")
    worth.legend(loc="lower right", ncols=4, fontsize=8, title="in brackets: mean of the 20 s", title_fontsize=8)
    for axes in (link, ours, theirs, worth):
        axes.axvspan(FAST_S, FAST_S + OUTAGE_S, color="#f3dada", zorder=0, lw=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.0)
    link.set_title("Simulated: 8 times LTE's bandwidth, an outage, LTE", loc="left", fontsize=10)
    return figure


def _decisions(axes: Axes, time_s: Floats, record: History, name: str) -> None:
    """A dot a frame: the bytes that its decision sends, coloured by who answered."""
    for who, (label, colour, marker) in ANSWERED.items():
        rows = record.answered_by == who
        axes.scatter(time_s[rows], record.sent_bytes[rows], s=9, color=colour, marker=marker, label=label, lw=0.8)
    axes.set_yscale("symlog", linthresh=100.0)
    axes.set_ylim(-20.0, 30_000.0)
    axes.set_yticks([0, 100, 1_000, 10_000], ["0", "100", "1k", "10k"])
    axes.set_ylabel(f"{name}\nbytes a frame")


def running(values: Floats, frames: int) -> Floats:
    """Mean of the last so many values at every frame, of fewer at the beginning."""
    end = np.arange(len(values)) + 1
    begin = np.maximum(end - frames, 0)
    sums = np.concatenate([np.zeros(1), np.cumsum(values)])
    means: Floats = (sums[end] - sums[begin]) / (end - begin)
    return means


if __name__ == "__main__":
    sys.exit(main())
