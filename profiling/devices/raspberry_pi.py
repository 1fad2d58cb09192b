"""Timings of a Raspberry Pi 4 for a profile, estimated from those of an x86 machine.

    tidesplit estimate-pi --profile NAME --from x86-2core   # adds the device raspberry-pi-4 to NAME.json
    tidesplit estimate-pi --data DIR                        # recomputes RATIO and its errors from Scission

    Pi seconds = x86 seconds * RATIO * machine factor          (encode and decode: without the machine factor)

RATIO comes from Scission's measurements (`scission`): Keras networks on a Pi 4 over the same on a 2-core VM. Leaving
one net out shows that one ratio predicts about as well as anything richer. It would hold for ONNX Runtime if both
machines gained alike from the change of engine, and for another x86 machine if that were as fast as Scission's.

Neither condition holds: a recent x86 core with AVX-512 is several times faster. The machine factor corrects the level
of all times, but not their shape. With it, the whole full-width CNN runs on the Pi at the rate published for its kind
of net (`PI_MACS_PER_S`). Only `tidesplit profile latency` on a real Pi replaces the estimate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tidesplit.data.files import profile_files
from tidesplit.profiling.devices.scission import (
    ESTIMATORS,
    MACHINES,
    VM_TICK_S,
    DataError,
    Errors,
    common_ratio,
    leave_one_net_out,
    read_blocks,
    whole_net_ratios,
)
from tidesplit.profiling.points.profile import (
    DeviceTable,
    Profile,
    ProfileError,
    Provenance,
    Timing,
    load,
    save,
)

LABEL = "raspberry-pi-4"
SOURCE = "Scission, Lockhart et al., UCC 2020: block times of 18 Keras nets, device-raspi4 over edge-vm2Core"

# The output of `--data` for edge-vm2Core. A test compares them with the data, where that is at hand.
RATIO = 5.686
RATIO_RANGE = (4.508, 8.975)  # mobilenetv2 to vgg19
ERRORS = Errors(whole_median=0.109, whole_p90=0.295, heads_median=0.148, heads_p90=0.363)

# Multiply-accumulates a second of ONNX Runtime on a Pi 4 (1.5 GHz, 4 threads, float32), from two sources each.
# ncnn on that Pi (github.com/Tencent/ncnn/issues/3485). Depthwise: MobileNetV2 300 M in 72.6 ms, MNASNet 314 M in
# 61.8 ms, EfficientNet-B0 390 M in 94.4 ms, 4.4e9 in the geometric mean. Dense: ResNet-18 1.81 G in 176 ms, 10.3e9.
# Time of ONNX Runtime over that of ncnn on Cortex-A. Small depthwise nets 1.36, the median of PicoDet S, M, L and
# YOLOX-Nano on a Pi 5 (visionanalysis.org/articles/ncnn-fp32-vs-onnx-fp32-rpi5) and MobileNetV1 on a Cortex-A73 (gist
# zihaomu/1cf23633). Dense nets 1.9 (ResNet-50 on that A73) to 2.9 (YOLOX on that Pi 5), of which 2.2 is taken.
PI_MACS_PER_S = {"depthwise": 4.4e9 / 1.36, "dense": 10.3e9 / 2.2}


def estimate(measured: DeviceTable, machine_factor: float = 1.0) -> DeviceTable:
    """The Pi's table from one that was measured with ONNX Runtime on x86.

    Encode and decode run on one thread with integers. They gain nothing from wide vectors, so only RATIO scales them.

    Args:
        machine_factor: how many times faster than Scission's VM that machine ran the network.

    Raises:
        ValueError: `measured` is itself an estimate, or the factor is not positive.
    """
    if measured.provenance.kind != "measured":
        raise ValueError(f"'{measured.provenance.kind}' table received, a measured one expected to estimate from")
    if not machine_factor > 0:
        raise ValueError(f"machine factor {machine_factor} received, a positive number expected")
    compute = RATIO * machine_factor
    provenance = Provenance(
        kind="estimated",
        source=f"{compute:.3g} times the measured x86 times (encode, decode: {RATIO:.3g} times). {SOURCE}: {RATIO}; "
        f"machine factor {machine_factor:.3g}: profiling/devices/raspberry_pi.py",
        machine="Raspberry Pi 4 Model B, 1.5 GHz, 4 threads (not at hand)",
        n=0,
        spread={"leave_one_net_out": ERRORS._asdict(), "whole_net_ratios": list(RATIO_RANGE)},
    )
    timings = {point: _scaled(timing, compute) for point, timing in measured.timings.items()}
    return DeviceTable(provenance=provenance, timings=timings)


def _scaled(timing: Timing, compute: float) -> Timing:
    return Timing(
        head_s=timing.head_s * compute,
        encode_s=timing.encode_s * RATIO,
        decode_s=timing.decode_s * RATIO,
        tail_s=timing.tail_s * compute,
        finish_s=timing.finish_s * compute,
    )


def machine_factor(profile: Profile, label: str, kind: str = "depthwise") -> float:
    """How many times faster than Scission's VM the machine `label` ran this CNN.

    The value with which the Pi reaches `PI_MACS_PER_S[kind]` on the widest device-only point.

    Raises:
        ValueError: no device-only point with multiply-accumulates and a time in that table.
    """
    table = profile.devices[label]
    whole = [p for p in profile.points if p.codec == "none" and p.head_macs > 0 and table.timings[p.id].head_s > 0]
    if not whole:
        raise ValueError(f"profile {profile.name}: no device-only point with head_macs and head_s, expected one")
    point = max(whole, key=lambda p: p.head_macs)
    pi_s = point.head_macs / PI_MACS_PER_S[kind]
    return pi_s / (table.timings[point.id].head_s * RATIO)


def with_raspberry_pi(profile: Profile, label: str, kind: str = "depthwise", factor: float | None = None) -> Profile:
    """The profile with the estimated device added. `factor`: None for that of `machine_factor`."""
    if label not in profile.devices:
        raise ValueError(f"profile {profile.name}: no device {label!r}, expected one of {sorted(profile.devices)}")
    used = machine_factor(profile, label, kind) if factor is None else factor
    table = estimate(profile.devices[label], used)
    source = f"{table.provenance.source}, from the device {label!r}"
    return profile.with_device(LABEL, replace(table, provenance=replace(table.provenance, source=source)))


def derivation(folder: Path) -> str:
    """The evidence in `folder`: errors of every estimator for every x86 machine, then the constants used here."""
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
    lines += [
        f"\n{MACHINES[0]}: RATIO {common_ratio(blocks):.3f}, from {low:.3f} to {high:.3f}",
        f"its clock ticks every {VM_TICK_S * 1e3:.4g} ms: {short:.0%} of the blocks read one tick or none",
    ]
    return "\n".join([*lines, *(f"  {net:20s} {ratio:.2f}" for net, ratio in ratios.items())])


def parser() -> argparse.ArgumentParser:
    """Command line of this module."""
    result = argparse.ArgumentParser(prog="tidesplit estimate-pi", description="Estimate a Raspberry Pi 4's timings.")
    what = result.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, metavar="DIR", help="folder of Scission's tables; prints the derivation")
    what.add_argument("--profile", metavar="NAME", help="profile file, or the CNN of NAME.json; the estimate is added")
    result.add_argument(
        "--from", dest="label", default="x86-2core", help="measured device to start from (default: %(default)s)"
    )
    result.add_argument(
        "--kind", choices=sorted(PI_MACS_PER_S), default="depthwise", help="kind of CNN (default: %(default)s)"
    )
    result.add_argument("--machine-factor", type=float, help="how many times faster than Scission's VM that device is")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for a user's mistake."""
    args = parser().parse_args(argv)
    try:
        if args.data:
            print(derivation(args.data))
            return 0
        given = Path(args.profile)
        begun, path = profile_files(given.stem, given if given.exists() else None)
        profile = with_raspberry_pi(load(begun), args.label, args.kind, args.machine_factor)
        save(profile, path)
        print(f"{path}: {LABEL} (estimated): {profile.devices[LABEL].provenance.source}")
    except (DataError, ProfileError, ValueError, OSError) as error:
        print(f"tidesplit estimate-pi: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
