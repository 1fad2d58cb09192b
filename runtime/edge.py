"""Classify a camera's frames with a trained policy, on the device:

    tidesplit edge --bundle OUT --server HOST:PORT --source DIR

For each frame the policy chooses an operating point from the state of link, queue and server. The device runs the head
and sends its payload. If no answer comes in time, the device finishes the frame itself. Every frame ends in exactly one
way: the server's answer, the device's own, or a miss. A camera program may write MJPEG or H.264 to the standard input:

    rpicam-vid -t 0 --codec mjpeg --width 640 --height 480 --framerate 30 --flush -o - | tidesplit edge --source - ...

Torch is needed only where the bundle does not hold its exported CNN yet.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from tidesplit.agents import bundle as bundles
from tidesplit.agents.bundle import Bundle
from tidesplit.compression.codec.pixels import Pixels
from tidesplit.compression.heap import packed_heap, trimmed_heap
from tidesplit.envs.budget.account import Spending
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, gb_per_month
from tidesplit.profiling.points.table import PointTable
from tidesplit.profiling.points.tiers import table_of
from tidesplit.runtime.camera import source
from tidesplit.runtime.camera.picture import Skipped
from tidesplit.runtime.choosing.fixed_point import fixed_point
from tidesplit.runtime.cnn import ENGINES
from tidesplit.runtime.device.client import GrpcClient, credentials
from tidesplit.runtime.device.engine import Engine, points_of
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.export import for_bundle
from tidesplit.runtime.export import say as report
from tidesplit.runtime.log.mqtt import Mqtt
from tidesplit.runtime.log.notify import Notifier
from tidesplit.runtime.log.outputs import Board, JsonLines, TensorFiles
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.log.uplink_trace import UplinkTrace
from tidesplit.runtime.log.writer import Live, Log, Sink, say
from tidesplit.runtime.shipped import own_copy
from tidesplit.runtime.trained_for import compare_budgets, compare_engines, threads_for

# A thread that computes in Python makes the others wait for so long: pictures and answers, whose moments count. The
# interpreter's own 5 ms are as much as a camera's moments may be wrong.
SWITCH_S = 0.001
FILES = (
    "json", "tensors", "tensorboard", "record_trace", "tls_ca", "tls_cert", "tls_key", "token_file", "mqtt_ca",
    "mqtt_login",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="tidesplit edge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--bundle",
        type=Path,
        help="folder that tidesplit train wrote (default: the policy that ships, see docs/use.md)",
    )
    made.add_argument("--server", required=True, metavar="HOST:PORT", help="address of tidesplit server")
    made.add_argument(
        "--source", "--images", default="",
        help="a folder of pictures, a video file, /dev/video0, an address such as rtsp://camera/stream, or - for MJPEG "
        "or H.264 on the standard input (default: drawn pictures)",
    )  # fmt: skip
    made.add_argument("--frames", type=int, metavar="N", help="stop after N frames (default: run until stopped)")
    made.add_argument(
        "--json", type=Path, metavar="LOG.jsonl",
        help="append one JSON line for each frame; - for the standard output; SIGHUP reopens the file",
    )  # fmt: skip
    made.add_argument(
        "--tensors", type=Path, metavar="DIR",
        help="write each answer to DIR/FRAME.npz, where the CNN answers with tensors instead of a class",
    )  # fmt: skip
    made.add_argument("--tensorboard", type=Path, metavar="DIR", help="write the same figures for TensorBoard")
    made.add_argument(
        "--record-trace", type=Path, metavar="FILE.csv",
        help="write the uplink as the messages find it, a trace for tidesplit train --trace FILE.csv",
    )  # fmt: skip
    mqtt = made.add_argument_group("MQTT", "Answers for home automation. Needs tidesplit[mqtt].")
    mqtt.add_argument(
        "--mqtt", metavar="HOST[:PORT]/TOPIC",
        help="publish TOPIC/state (JSON) and TOPIC/available at this broker (port 1883, with TLS 8883)",
    )  # fmt: skip
    mqtt.add_argument(
        "--mqtt-every", type=float, default=1.0, metavar="S", help="seconds between messages; 0: each frame (default 1)"
    )
    mqtt.add_argument("--mqtt-ca", type=Path, metavar="FILE", help="authorities of the broker (PEM); turns TLS on")
    mqtt.add_argument("--mqtt-login", type=Path, metavar="FILE", help="file of two lines: user and password")
    mqtt.add_argument("--mqtt-discovery", action="store_true", help="let Home Assistant find the sensors by itself")
    made.add_argument("--fps", type=float, help="frames a second (default: the bundle's)")
    made.add_argument(
        "--deadline-ms", type=float, metavar="MS", help="later answers are misses (default: the bundle's)"
    )
    made.add_argument("--min-accuracy", type=float, metavar="A", help="accuracy floor (default: the bundle's)")
    made.add_argument(
        "--max-watts",
        type=float,
        metavar="W",
        help="budget of energy, watts in the mean; inf: none (default: the bundle's)",
    )
    made.add_argument(
        "--max-gb-month",
        type=float,
        metavar="GB",
        help="budget of data, GB in 30 days; inf: none (default: the bundle's)",
    )
    made.add_argument("--privacy", action="store_true", help="let no picture leave the device, only features of cuts")
    made.add_argument(
        "--point", default="", metavar="ID",
        help="always use this operating point in place of the policy; tidesplit train names the best one",
    )  # fmt: skip
    made.add_argument(
        "--next-point", default="", metavar="ID",
        help="point at which the middle server cuts again, or cloud if it passes payloads on unchanged",
    )  # fmt: skip
    made.add_argument(
        "--engine", choices=ENGINES, default=ENGINES[0],
        help="what runs the CNN; ncnn needs tidesplit[ncnn] (default: onnxruntime)",
    )  # fmt: skip
    made.add_argument(
        "--threads", type=int, metavar="N", help="threads of a run (default: as the policy was trained for)"
    )
    made.add_argument(
        "--pace", metavar="DEVICE", help="run as slowly as this device of the profile, e.g. raspberry-pi-4 (emulated)"
    )
    safety = made.add_argument_group("security", "Certificates and keys are PEM files.")
    safety.add_argument("--insecure", action="store_true", help="allow plaintext over a network")
    safety.add_argument(
        "--tls-ca", type=Path, metavar="FILE", help="authority of the server's certificate; turns TLS on"
    )
    safety.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate of this device, for mutual TLS")
    safety.add_argument("--tls-key", type=Path, metavar="FILE", help="the key of that certificate")
    safety.add_argument("--token-file", type=Path, metavar="FILE", help="bearer token that the server requires")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 0 when done, 2 after a mistake or without a picture, 130 after Ctrl-C or SIGTERM."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)  # like Ctrl-C, it lets frames under way end first
    sys.setswitchinterval(SWITCH_S)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `load_square` has a lower limit
    try:
        run(options, [Heartbeat(), Live("emulated  " if options.pace else "")])
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        say(f"error: {error}")
        return 2
    finally:
        _let_go_of_stderr()
    return 0


def _let_go_of_stderr() -> None:
    """Where nobody reads the standard error output any more, forget it: the exit code would become 120."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def watch(
    bundle: str | Path, server: str, take: Callable[[Record], None],
    pictures: Iterable[Pixels] | None = None, **options: object,
) -> Tally:  # fmt: skip
    """Classify pictures from Python. `take` is called with the record of each frame, in the order of their ends.

    It is called on a thread of its own, so that it delays no frame. An exception of it is said once, and frames go on.

    Args:
        bundle: folder that `tidesplit train` wrote.
        server: HOST:PORT.
        take: the caller's function, see `Record`.
        pictures: arrays uint8 `[height, width, 3]` (RGB), each asked for when its turn comes. The end of the iterable
            ends the run. None: pictures of the option `source`.
        options: options of `tidesplit edge` by name, such as `source="pictures/"`, `frames=100` or `tls_ca="ca.pem"`.

    Returns:
        Counts of all frames.

    Raises:
        ValueError: a mistake of the caller, in one sentence.
    """
    known = vars(parser().parse_args(["--bundle", str(bundle), "--server", server]))
    if unknown := set(options) - set(known):
        raise ValueError(f"watch has no option {', '.join(sorted(unknown))}: those of tidesplit edge expected")
    paths = {name: Path(str(value)) for name, value in options.items() if name in FILES and value is not None}
    return run(argparse.Namespace(**{**known, **options, **paths}), [take], pictures)


def run(
    options: argparse.Namespace, outputs: Sequence[Sink] = (), arrays: Iterable[Pixels] | None = None
) -> Tally:  # fmt: skip
    """Build the device and run it, with `outputs` for its frames. `arrays` take the place of the option `source`."""
    if options.frames is not None and options.frames < 1:
        raise ValueError(f"--frames {options.frames} received, 1 or more expected")
    if options.threads is not None and options.threads < 1:
        raise ValueError(f"--threads {options.threads} received, 1 or more expected")
    folder = options.bundle or own_copy()
    bundle = bundles.load(folder)
    if len(bundle.table.hops) > 1 and options.next_point:
        raise ValueError(f"--next-point: the policy of {folder} has three tiers and chooses that itself")
    demand = bundle.demand.changed(
        options.fps, options.deadline_ms, options.min_accuracy, options.max_watts, options.max_gb_month
    )
    table = paced(bundle, options.pace)
    if options.privacy:
        table = table.without_pictures()
    world = world_under(demand, bundle.world, table)
    controller = fixed_point(table, options.point) if options.point else bundle.policy
    tally, skipped = Tally(), Skipped(say)
    sinks: list[Sink] = [tally, *outputs, *sinks_of(options)]
    cnn = for_bundle(folder, report, options.engine)
    tally.classes = bool(cnn.classes)
    if options.tensors:
        if cnn.classes:
            raise ValueError(f"--tensors {options.tensors}: the answers of {cnn.name} are classes, which --json has")
        sinks.append(TensorFiles(options.tensors))
    if arrays is None:
        made = source.source(options.source, cnn.input_px, demand.fps, skipped, say, cnn.crop)
        pictures = source.ahead(made)  # from now on
    else:
        pictures = source.of_arrays(arrays, cnn.input_px, cnn.crop)
    trained_for = bundle.profile.devices[bundle.manifest["device"]]
    compare_engines(trained_for, options.engine, say)
    if not options.point:
        compare_budgets(demand, bundle.manifest, say)
    threads = options.threads or threads_for(trained_for, os.cpu_count() or 1, say)
    with packed_heap():
        engine = Engine(cnn, points_of(bundle.profile, table.ids), threads)
    # The device has no utility of a user's own, by which it could judge what the radio brings.
    rests = not (options.point or bundle.manifest["config"].get("utility"))
    safety = credentials(options)
    try:
        channel = GrpcClient(options.server, cnn, safety, options.insecure, options.next_point)
        with trimmed_heap(), channel as client, Log(sinks) as log:
            device = Device(
                controller, table, demand, engine, client, log, world, options.pace is not None,
                first_prices=bundle.first_prices, rests=rests,
            )  # fmt: skip
            device.run(pictures, options.frames)
    finally:
        if tally.frames or not isinstance(sys.exception(), Exception):  # Ctrl-C is none
            say(tally.text() + (f", {skipped.count} pictures could not be decoded" if skipped.count else ""))
    return tally


def sinks_of(options: argparse.Namespace) -> Iterator[Sink]:
    """Outputs that the options ask for."""
    if options.json:
        lines = JsonLines(options.json)
        if sys.stderr is None or not sys.stderr.isatty():  # from a terminal, SIGHUP means that it was closed
            signal.signal(signal.SIGHUP, lambda *_: lines.reopen())
        yield lines
    if options.tensorboard:
        yield Board(options.tensorboard)
    if options.record_trace:
        yield UplinkTrace(options.record_trace)
    if options.mqtt:
        yield Mqtt(
            options.mqtt, options.mqtt_ca, options.mqtt_login, options.mqtt_every, options.mqtt_discovery,
            options.insecure,
        )  # fmt: skip


def paced(bundle: Bundle, label: str | None) -> PointTable:
    """The bundle's points with the timings of the device `label`."""
    if label is None or label == bundle.manifest["device"]:
        return bundle.table
    _, *servers = bundles.machines_of(bundle.manifest)
    return table_of(bundle.profile, (label, *servers), bundle.table.ids)


def world_under(demand: Demand, world: World, table: PointTable) -> World:
    """The world whose probes keep to the demand's budgets.

    Raises:
        ValueError: a budget of energy for a device whose watts are not known.
    """
    if demand.max_watts is not None and not table.machine.busy_w:
        raise ValueError(
            f"--max-watts {demand.max_watts:g}: the profile has no watts of this device, so its energy is not known"
        )
    return world.under(demand)


class Heartbeat:
    """Reports to systemd: ready with the first settled frame, then alive every second."""

    title = "the report to systemd"

    def __init__(self) -> None:
        self._notify, self._last_s = Notifier(), -math.inf

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        now_s = time.perf_counter()
        if now_s - self._last_s >= 1.0:
            first, self._last_s = math.isinf(self._last_s), now_s
            self._notify("READY=1" if first else f"WATCHDOG=1\nSTATUS=frame {record.frame}")


class Tally:
    """Counts for the last line."""

    def __init__(self) -> None:
        self.frames = self.labelled = self.right = self.skipped = 0
        self.answers = {"server": 0, "device": 0, "miss": 0}
        self.latency_s = self.joules = self.sent_bytes = 0.0
        self.measured = 0  # frames with joules
        self.classes = True  # False where the CNN's answers are none, so that no label says what is right
        self.demand = Demand()
        self.spending: Spending | None = None  # under budgets

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        self.frames += 1
        self.skipped += record.pictures_skipped
        self.answers[record.answered_by] += 1
        self.latency_s += min(record.latency_s, record.demand.deadline_s)
        self.sent_bytes += record.sent_bytes
        self.demand, self.spending = record.demand, record.spending
        if record.joules is not None:
            self.measured += 1
            self.joules += record.joules
        if record.label is not None and self.classes:
            self.labelled += 1
            self.right += record.answer == record.label

    def text(self) -> str:
        """The last line. A miss counts as the deadline, and as a wrong answer."""
        if not self.frames:
            return "no frames"
        by = ", ".join(f"{name} {100 * n / self.frames:.1f} %" for name, n in self.answers.items())
        right = f", right {100 * self.right / self.labelled:.1f} %" if self.labelled else ""
        skipped = f", {self.skipped} pictures skipped for newer ones" if self.skipped else ""
        latency = f"mean latency {1e3 * self.latency_s / self.frames:.1f} ms"
        return f"{self.frames} frames: {by}, {latency}{right}{skipped}{self._costs()}"

    def _costs(self) -> str:
        """Energy and data if the camera never stops, beside their budgets."""
        spent, period_s = self.spending, self.demand.period_s
        data = "" if spent is None else spent.data(self.demand)
        energy = "" if spent is None else spent.energy(self.demand)
        data = data or f"{gb_per_month(self.sent_bytes / self.frames, period_s):.1f} GB a month"
        if not self.measured:
            return f", {data}"
        joules = self.joules / self.measured
        return f", {data}, estimated {joules:.3f} J a frame ({energy or f'{joules / period_s:.2f} W'})"


if __name__ == "__main__":
    sys.exit(main())
