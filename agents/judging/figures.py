"""Results for people: the ladder as a table in the terminal, and figures of decisions, utilities and misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from rich import box
from rich.table import Table

from tidesplit.agents.judging.budgeted import FORESIGHT, MIXTURE, within
from tidesplit.agents.judging.evaluation import History, Row, captured, mean_row
from tidesplit.agents.judging.intervals import Standing
from tidesplit.envs.world.vocabulary import DEVICE, MISS, SERVER, Demand
from tidesplit.profiling.points.table import PointTable

mpl.use("Agg")
from matplotlib import pyplot as plt  # imported after the backend is chosen, since there may be no display
from matplotlib.figure import Figure

USUAL_DEMAND = Demand()
PARTITION_COLOURS = "viridis"
CONTROLLER_COLOURS = "turbo"  # a continuous map: as many different colours as there are controllers
ANSWER_COLOURS = {SERVER: "#2a9d55", DEVICE: "#e0a030", MISS: "#c03030"}


def ladder_table(rows: Sequence[Row], bounds: Mapping[str, float], title: str, demand: Demand = USUAL_DEMAND) -> Table:
    """One line for each controller: means over its rows, and the share of the headroom that it captures.

    Under budgets the headroom is that between the best mixture of points and a few frames of foresight, and controllers
    that do not meet them are dim and marked "over". ``bounds``: the clairvoyant's mean utility by trace, without
    budgets.
    """
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.controller, []).append(row)
    means = {name: mean_row(of) for name, of in by_name.items()}
    bound = float(np.mean(list(bounds.values())))
    low, high = (MIXTURE, FORESIGHT) if demand.budgeted else ("best static point", "")
    static = means[low]["utility"] if low in means else float("nan")
    ceiling = means[high]["utility"] if high in means else bound
    # 80 columns hold no more. The rest of each row is in the JSON.
    table = _table(title, "utility", "head- room %", "miss %", "right %", "p95 ms", "watts", "GB a month", "µs")
    meets = {name: within(m["watts"], m["gb_per_month"], demand) for name, m in means.items()}
    best = max((m["utility"] for name, m in means.items() if meets[name]), default=None)
    for name, m in means.items():
        table.add_row(
            name if meets[name] else f"{name} (over)",
            f"{m['utility']:.4f}",
            "" if np.isnan(static) else f"{100 * captured(m['utility'], static, ceiling):.0f}",
            f"{100 * m['miss_rate']:.2f}",
            f"{100 * m['accuracy']:.2f}",
            f"{m['latency_ms_p95']:.1f}",
            f"{m['watts']:.2f}",
            f"{m['gb_per_month']:.0f}",
            f"{m['decision_us']:.0f}",
            style="dim" if not meets[name] else "bold" if m["utility"] == best else "",
        )
    table.add_section()
    name, share = ("clairvoyant, no budget", "") if demand.budgeted else ("clairvoyant bound", "100")
    table.add_row(name, f"{bound:.4f}", share, *[""] * (len(table.columns) - 3))
    return table


def standings_table(found: Mapping[str, Standing], rival: str, title: str) -> Table:
    """One line for each controller: interquartile mean of the utility, and the paired difference to the rival."""
    table = _table(title, "utility, IQM [95 %]", f"less {rival} [95 %]", "better")
    for name, one in found.items():
        utility, ahead = one.utility, one.difference
        paired = f"{ahead.value:+.4f} [{ahead.low:+.3f}, {ahead.high:+.3f}]"
        wins = f"{one.better_on} of {len(one.by_trace)}"
        shown = ("", "") if name == rival else (paired, wins)
        table.add_row(name, f"{utility.value:.4f} [{utility.low:.3f}, {utility.high:.3f}]", *shown)
    return table


def _table(title: str, *headings: str) -> Table:
    """A table for 80 columns: the controller's name, then numbers."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("controller", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", min_width=max(5, *map(len, heading.split())))
    return table


def decisions_figure(record: History, table: PointTable, period_s: float, title: str) -> Figure:
    """Three panels over time: bandwidth, partition (colour: channel ratio), and latency (colour: who answered)."""
    time_s = np.arange(len(record.points)) * period_s
    figure, (link, choice, latency) = plt.subplots(3, 1, figsize=(11, 7), sharex=True, layout="constrained")
    link.plot(time_s, record.goodput_bps / 1e6, lw=0.7, color="#3060a0")
    link.set_yscale("symlog", linthresh=0.1)
    link.set_ylabel("uplink, Mbit/s")
    link.set_title(title)
    chosen = record.points
    dots = choice.scatter(
        time_s,
        table.hops[0].partition[chosen],
        c=table.hops[0].channel_ratio[chosen],
        cmap=PARTITION_COLOURS,
        vmin=0.0,
        vmax=1.0,
        s=6,
    )
    choice.set_ylabel("partition")
    choice.set_yticks(np.unique(table.hops[0].partition))
    figure.colorbar(dots, ax=choice, label="channel ratio")
    for who, label in ((SERVER, "server"), (DEVICE, "device"), (MISS, "miss")):
        rows = record.answered_by == who
        latency.scatter(time_s[rows], record.latency_s[rows] * 1e3, s=4, color=ANSWER_COLOURS[who], label=label)
    latency.set_ylabel("latency, ms")
    latency.set_xlabel("time, s")
    latency.legend(loc="lower right", ncols=3, markerscale=3)
    return figure


def rows_figure(rows: Sequence[Row], bounds: Mapping[str, float]) -> Figure:
    """Utility and misses: one group of bars for each trace, one bar for each controller. Dashes: the clairvoyant bound.

    More than 12 traces would need too many bars. They get a box for each controller instead.
    """
    names = list(dict.fromkeys(row.controller for row in rows))
    traces = list(dict.fromkeys(row.trace for row in rows))
    if len(traces) > 12:
        return _many_traces_figure(rows, bounds, names)
    figure, (top, below) = plt.subplots(2, 1, figsize=(11, 7), sharex=True, layout="constrained")
    width = 0.8 / len(names)
    colours = mpl.colormaps[CONTROLLER_COLOURS](np.linspace(0.0, 1.0, len(names)))
    for place, (name, colour) in enumerate(zip(names, colours, strict=True)):
        of = {row.trace: row for row in rows if row.controller == name}
        at = np.arange(len(traces)) + (place - len(names) / 2 + 0.5) * width
        top.bar(at, [of[t].utility for t in traces], width, label=name, color=colour)
        below.bar(at, [100 * of[t].miss_rate for t in traces], width, color=colour)
    for group, trace in enumerate(traces):
        top.hlines(bounds[trace], group - 0.42, group + 0.42, color="black", ls="--", lw=1)
    lowest = min(row.utility for row in rows)
    top.set_ylim(max(0.0, lowest - 0.1), 1.0)
    top.set_ylabel("utility")
    below.set_ylabel("deadline misses, %")
    below.set_xticks(np.arange(len(traces)), traces, rotation=15)
    top.legend(ncols=3, fontsize=8)
    return figure


def _many_traces_figure(rows: Sequence[Row], bounds: Mapping[str, float], names: Sequence[str]) -> Figure:
    """Regret to the clairvoyant over all traces, one box for each controller."""
    figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
    losses = [[bounds[r.trace] - r.utility for r in rows if r.controller == name] for name in names]
    axes.boxplot(losses, tick_labels=list(names), showmeans=True)
    axes.set_ylabel("utility lost to the clairvoyant bound")
    axes.tick_params(axis="x", rotation=20)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG and close it."""
    figure.savefig(path, dpi=110)
    plt.close(figure)
