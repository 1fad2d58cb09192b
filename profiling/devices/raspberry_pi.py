"""Timings of Raspberry Pi boards for a profile, estimated from published measurements and an x86 machine's table.

    tidesplit estimate-pi --profile NAME --from x86-2core      # adds all tables of `boards.BOARDS` to NAME.json
    tidesplit estimate-pi --profile NAME --table raspberry-pi-4
    tidesplit estimate-pi --data DIR                           # recomputes the constants and their errors

    whole CNN          its multiply-accumulates and values at the rates of `boards.RATES`, times the board's factor
    head, finish       share that this part has of the same whole CNN (width, precision) on the x86 machine
    encode, decode     x86 seconds * RATIO * the board's factor for one thread: integers on one thread

So the level comes from MLPerf's results on a real Pi 4, and the shape between cuts from our own CNN's times. RATIO
comes from Scission's measurements (`scission`): Keras networks on a Pi 4 over the same on a 2-core VM. Only `tidesplit
profile latency` on a real Pi replaces the estimate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from tidesplit.compression.codec.knobs import FLOAT32, Precision
from tidesplit.compression.net.cnn_work import CnnWork, work_of
from tidesplit.data.files import profile_files
from tidesplit.models.registry import build
from tidesplit.models.slim import set_of_ratio
from tidesplit.profiling.devices.boards import BOARDS, ERRORS, JITTER, MLPERF, RATES, PiBoard
from tidesplit.profiling.devices.derivation import derivation
from tidesplit.profiling.devices.scission import DataError, Errors
from tidesplit.profiling.points.profile import (
    DeviceTable,
    OperatingPoint,
    Profile,
    ProfileError,
    Provenance,
    Timing,
    load,
    save,
)

SCISSION = "Scission, Lockhart et al., UCC 2020"
# The output of `--data` for edge-vm2Core. A test compares them with the data, where that is at hand.
RATIO = 5.686
RATIO_RANGE = (4.508, 8.975)  # mobilenetv2 to vgg19
RATIO_ERRORS = Errors(whole_median=0.109, whole_p90=0.295, heads_median=0.148, heads_p90=0.363)
X86_LOOP_S = 0.7e-3
"""What the device's loop took a frame on x86, for a table in which that was not measured."""

Values = Mapping[float, float]  # values that the whole CNN's convolutions read and write, by channel ratio


def values_of(profile: Profile) -> Values:
    """Values of the profile's CNN at every channel ratio: those of a prepared one's profile, or counted.

    Raises:
        ValueError: a profile whose name is no CNN of this package.
    """
    if "values_moved" in profile.cnn:
        return {float(ratio): float(values) for ratio, values in profile.cnn["values_moved"].items()}
    try:
        with torch.device("meta"):
            net = build(profile.name, int(profile.cnn.get("classes", 1000))).eval()
    except KeyError as error:
        raise ValueError(f"profile {profile.name}: {error.args[0]}") from error
    picture, ratios = torch.zeros(1, *net.shape(0), device="meta"), {point.channel_ratio for point in profile.points}
    return {r: float(work_of(net, picture, set_of_ratio(r)).values) for r in sorted(ratios)}


class _Scale:
    """Pi seconds over x86 seconds of whole CNNs, by channel ratio and precision."""

    def __init__(self, profile: Profile, label: str, board: PiBoard, values: Values) -> None:
        self.where, self.ratios = f"profile {profile.name}, device {label!r}", {}
        for p in profile.points:
            x86_s = profile.devices[label].timings[p.id].head_s
            if p.codec == "none" and p.head_macs > 0 and x86_s > 0:
                pi_s = RATES[p.precision].seconds(CnnWork(p.head_macs, values[p.channel_ratio]))
                self.ratios[p.channel_ratio, p.precision] = pi_s * board.slower[p.precision] / x86_s

    def of(self, ratio: float, precision: Precision) -> float:
        if (ratio, precision) not in self.ratios:
            raise ValueError(f"{self.where}: no whole CNN of ratio {ratio} in {precision} with macs and head_s")
        return self.ratios[ratio, precision]

    def timing(self, point: OperatingPoint, fallback: OperatingPoint, x86: Timing, thread: float) -> Timing:
        finish = self.of(fallback.channel_ratio, fallback.precision)
        return Timing(
            head_s=x86.head_s * (self.of(point.channel_ratio, point.precision) if x86.head_s else 1.0),
            encode_s=x86.encode_s * thread,
            decode_s=x86.decode_s * thread,
            tail_s=x86.tail_s * self.of(1.0, FLOAT32),  # the server's half is never slimmed
            finish_s=x86.finish_s * finish,
        )


def estimate(profile: Profile, label: str, board: PiBoard, values: Values) -> DeviceTable:
    """The board's table from the one that was measured with ONNX Runtime on the x86 machine `label`.

    Raises:
        ValueError: no such table, it is itself an estimate, or it lacks a whole CNN of a width and precision in use.
    """
    if label not in profile.devices:
        raise ValueError(f"profile {profile.name}: no device {label!r}, expected one of {sorted(profile.devices)}")
    measured = profile.devices[label]
    if measured.provenance.kind != "measured":
        raise ValueError(f"'{measured.provenance.kind}' table received, a measured one expected to estimate from")
    scale, thread = _Scale(profile, label, board, values), RATIO * board.thread
    timings = {
        p.id: scale.timing(p, profile.point(p.fallback) if p.fallback else p, measured.timings[p.id], thread)
        for p in profile.points
    }
    return DeviceTable(
        provenance=_provenance(label, board, thread), timings=timings, engine=board.engine, threads=board.threads,
        loop_s=(measured.loop_s or X86_LOOP_S) * thread, jitter=dict(JITTER), power=board.power,
    )  # fmt: skip


def _provenance(label: str, board: PiBoard, thread: float) -> Provenance:
    rates = "; ".join(
        f"{p} {r.per_mac:.3g} s a multiply-accumulate and {r.per_value:.3g} s a value, times {board.slower[p]:.3g}"
        for p, r in RATES.items()
    )
    source = (
        f"whole CNNs: TensorFlow Lite on a Pi 4 ({MLPERF}), {rates} ({board.source}); parts of them as on the device "
        f"{label!r}; encode and decode {thread:.3g} times that device's ({SCISSION}): profiling/devices/boards.py"
    )
    errors = {precision: found._asdict() for precision, found in ERRORS.items()}
    return Provenance(
        kind="estimated", source=source, machine=board.machine, n=0, spread={"leave_one_family_out": errors}
    )


def with_boards(profile: Profile, label: str, tables: Sequence[str], values: Values) -> Profile:
    """The profile with the estimated tables added."""
    for table in tables:
        profile = profile.with_device(table, estimate(profile, label, BOARDS[table], values))
    return profile


def parser() -> argparse.ArgumentParser:
    """Command line of this module."""
    result = argparse.ArgumentParser(prog="tidesplit estimate-pi", description="Estimate Raspberry Pi boards' timings.")
    what = result.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, metavar="DIR", help="folder of published tables; prints the derivation")
    what.add_argument("--profile", metavar="NAME", help="profile file, or the CNN of NAME.json; the tables are added")
    result.add_argument(
        "--from", dest="label", default="x86-2core", help="measured device to start from (default: %(default)s)"
    )
    result.add_argument("--table", choices=list(BOARDS), help="the one table to add (default: all)")
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
        profile, tables = load(begun), [args.table] if args.table else list(BOARDS)
        profile = with_boards(profile, args.label, tables, values_of(profile))
        save(profile, path)
        for table in tables:
            print(f"{path}: {table} (estimated): {profile.devices[table].provenance.source}")
    except (DataError, ProfileError, ValueError, OSError) as error:
        print(f"tidesplit estimate-pi: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
