"""The evidence behind the estimated tables: errors of every estimator on published measurements, and the constants."""

from __future__ import annotations

from pathlib import Path

from tidesplit.compression.codec.knobs import PRECISIONS
from tidesplit.profiling.devices import mlperf
from tidesplit.profiling.devices.scission import (
    ESTIMATORS,
    MACHINES,
    VM_TICK_S,
    common_ratio,
    leave_one_net_out,
    read_blocks,
    whole_net_ratios,
)


def derivation(folder: Path) -> str:
    """The evidence in `folder`: MLPerf's part, then Scission's."""
    return "\n".join([*_mlperf_lines(folder), "", *_scission_lines(folder)])


def _mlperf_lines(folder: Path) -> list[str]:
    """Errors of every estimator for both engines and precisions, then the constants."""
    rows = mlperf.read_rows(folder)
    lines = ["| engine | precision | rows | estimator | median | p90 |", "|---|---|---:|---|---:|---:|"]
    for engine in mlperf.ENGINES:
        for precision in PRECISIONS:
            chosen = mlperf.select(rows, engine, precision)
            for name, estimator in mlperf.ESTIMATORS.items():
                errors = mlperf.leave_one_family_out(chosen, estimator)
                lines.append(
                    f"| {engine} | {precision} | {errors.n} | {name} | {errors.median:.1%} | {errors.p90:.1%} |"
                )
    for precision in PRECISIONS:
        rates = mlperf.fit_rates(mlperf.select(rows, "tflite", precision))
        lines.append(
            f"\ntflite {precision}: {rates.per_mac:.4g} s a multiply-accumulate, {rates.per_value:.4g} s a value, "
            f"jitter {mlperf.jitter(rows, precision):.3f}"
        )
    return [*lines, f"busy: {mlperf.busy_watts(rows):.2f} W, TFLite {mlperf.busy_watts(rows, 'tflite'):.2f} W"]


def _scission_lines(folder: Path) -> list[str]:
    """Errors of every estimator for every x86 machine, then RATIO."""
    lines = [
        "| x86 machine | estimator | whole net: median | p90 | heads: median | p90 |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for machine in MACHINES:
        blocks = read_blocks(folder, machine)
        for name, estimator in ESTIMATORS.items():
            errors = leave_one_net_out(blocks, estimator)
            lines.append(f"| {machine} | {name} | " + " | ".join(f"{value:.1%}" for value in errors) + " |")
    blocks = read_blocks(folder, MACHINES[0])
    ratios = whole_net_ratios(blocks)
    low, high = min(ratios.values()), max(ratios.values())
    short = float((blocks.x86_s < 1.5 * VM_TICK_S).mean())
    return [
        *lines,
        f"\n{MACHINES[0]}: RATIO {common_ratio(blocks):.3f}, from {low:.3f} to {high:.3f}",
        f"its clock ticks every {VM_TICK_S * 1e3:.4g} ms: {short:.0%} of the blocks read one tick or none",
        *(f"  {net:20s} {ratio:.2f}" for net, ratio in ratios.items()),
    ]
