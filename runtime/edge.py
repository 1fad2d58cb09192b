"""Classify a camera's frames with a trained policy: tidesplit edge --bundle OUT --server HOST:PORT --images DIR

Per frame the policy chooses an operating point from what the device knows of link, queue and server; the head runs, its
payload is sent, the answer is taken, or the device finishes the frame by itself. Every frame has exactly one answer:
the server's, the device's own, or a miss. --images takes a folder, or - for MJPEG on the standard input:

    rpicam-vid -t 0 --codec mjpeg --width 640 --height 480 --framerate 30 -o - | tidesplit edge --images - ...

Needs NumPy, ONNX Runtime, grpcio, zstandard and Pillow; no torch, where the bundle holds its exported CNN.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tidesplit.agents import bundle as bundles
from tidesplit.agents.bundle import Bundle
from tidesplit.compression.codec.knobs import split
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.profiling.points.table import PointTable, table_for
from tidesplit.profiling.points.tiers import three_tiers
from tidesplit.runtime.cnn import CnnError
from tidesplit.runtime.device import source
from tidesplit.runtime.device.client import GrpcClient, credentials
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.device.log import Board, Live, Log, Sink, json_lines
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.device.notify import Notifier
from tidesplit.runtime.device.record import Record
from tidesplit.runtime.export import for_bundle, say

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="tidesplit edge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--bundle", type=Path, required=True, help="folder that train.py wrote")
    made.add_argument("--server", required=True, metavar="HOST:PORT", help="where runtime.server listens")
    made.add_argument("--images", default="", help="folder of pictures, or - for MJPEG on stdin (default: drawn ones)")
    made.add_argument("--frames", type=int, help="end after so many frames (default: go on until stopped)")
    made.add_argument("--json", type=Path, metavar="LOG.jsonl", help="write one JSON line a frame")
    made.add_argument("--tensorboard", type=Path, metavar="DIR", help="write the same figures for TensorBoard")
    made.add_argument("--fps", type=float, help="frames a second (default: the bundle's)")
    made.add_argument("--deadline-ms", type=float, help="a frame answered later is lost (default: the bundle's)")
    made.add_argument("--min-accuracy", type=float, help="accuracy floor (default: the bundle's)")
    made.add_argument("--next-point", default="", metavar="ID", help="where a middle tier cuts again, or cloud")
    made.add_argument("--threads", type=int, default=1, help="ONNX Runtime threads of heads and finishes (default: 1)")
    made.add_argument(
        "--pace",
        metavar="DEVICE",
        help="take as long as this device of the profile would (emulated), e.g. raspberry-pi-4",
    )
    safety = made.add_argument_group("security")
    safety.add_argument("--insecure", action="store_true", help="allow plaintext to a server that is not on loopback")
    safety.add_argument("--tls-ca", type=Path, help="PEM certificates to trust; turns TLS on")
    safety.add_argument("--tls-cert", type=Path, help="PEM certificate of this device, for mutual TLS")
    safety.add_argument("--tls-key", type=Path, help="its PEM key")
    safety.add_argument("--token-file", type=Path, help="file with the bearer token that the server asks for")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 when done, 2 for a user's mistake, 130 when stopped by Ctrl-C."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)  # as Ctrl-C: frames under way are settled first
    try:
        run(options)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:  # CnnError, BundleError, SourceError, DemandError and ProfileError are such
        print(f"tidesplit edge: error: {error}", file=sys.stderr)
        return 2
    return 0


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def run(options: argparse.Namespace) -> None:
    """Put the device together and let it run."""
    if options.frames is not None and options.frames < 1:
        raise ValueError(f"--frames {options.frames} received, 1 or more expected")
    bundle = bundles.load(options.bundle)
    if bundle.table.tiers == 3 and options.next_point:
        raise ValueError(f"--next-point received, but the policy of {options.bundle} decides that: it has three tiers")
    demand = demanded(bundle.demand, options)
    table = paced(bundle, options.pace)
    cnn = for_bundle(options.bundle, say)
    if (expected := bundle.profile.cnn.get("weights_sha256")) not in (None, cnn.weights_sha256):
        raise CnnError(
            f"{cnn.folder} holds weights {cnn.version}, the policy was trained for {str(expected)[:16]}: "
            "delete the folder, and it is exported anew"
        )
    own = dict.fromkeys(split(point)[0] for point in table.ids)  # what goes on begins as what does not
    engine = Engine(cnn, tuple(bundle.profile.point(point) for point in own), options.threads)
    tally = Tally()
    with contextlib.ExitStack() as stack:
        pictures = source.ahead(frames_of(options.images, cnn.input_px))
        sinks: list[Sink] = [tally, Heartbeat(), Live("emulated  " if options.pace else "")]
        if options.json:
            sinks.append(json_lines(stack.enter_context(options.json.open("w", encoding="utf-8"))))
        if options.tensorboard:
            board = Board(options.tensorboard)
            stack.callback(board.close)
            sinks.append(board)
        safety = credentials(options)
        client = stack.enter_context(GrpcClient(options.server, cnn, safety, options.insecure, options.next_point))
        log = stack.enter_context(Log(sinks))
        device = Device(bundle.policy, table, demand, engine, client, log, paced=options.pace is not None)
        device.run(pictures, options.frames)
    print(f"\n{tally.text()}", file=sys.stderr)


def demanded(demand: Demand, options: argparse.Namespace) -> Demand:
    """The bundle's demand, with what the command line changes."""
    changes = {
        "fps": options.fps,
        "deadline_s": None if options.deadline_ms is None else options.deadline_ms / 1e3,
        "min_accuracy": options.min_accuracy,
    }
    return replace(demand, **{name: value for name, value in changes.items() if value is not None})


def paced(bundle: Bundle, label: str | None) -> PointTable:
    """The bundle's points, as the device that sets the pace runs them."""
    if label is None or label == bundle.manifest["device"]:
        return bundle.table
    if bundle.table.tiers == 3:
        machines = (label, bundle.manifest["server"], bundle.manifest["cloud"])
        return three_tiers(bundle.profile, *machines, bundle.table.ids)
    whole = table_for(bundle.profile, label, bundle.manifest["server"])
    return whole.take([whole.row(point) for point in bundle.table.ids])


def frames_of(images: str, px: int) -> Iterator[source.Picture]:
    """Frames from what --images names."""
    if images == "-":
        return source.stream(sys.stdin.buffer, px)
    return source.folder(Path(images), px) if images else source.drawn(px)


class Heartbeat:
    """Tells systemd with the first settled frame that the service is up, and every second that it is alive."""

    def __init__(self) -> None:
        self._notify, self._last_s = Notifier(), -math.inf

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        now_s = time.perf_counter()
        if now_s - self._last_s >= 1.0:
            first, self._last_s = math.isinf(self._last_s), now_s
            self._notify("READY=1" if first else f"WATCHDOG=1\nSTATUS=frame {record.frame}")


class Tally:
    """Counts what the last line says."""

    def __init__(self) -> None:
        self.frames = self.labelled = self.right = 0
        self.answers = {"server": 0, "device": 0, "miss": 0}
        self.latency_s = 0.0

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        self.frames += 1
        self.answers[record.answered_by] += 1
        self.latency_s += min(record.latency_s, record.demand.deadline_s)
        if record.label is not None:
            self.labelled += 1
            self.right += record.answer == record.label

    def text(self) -> str:
        """The last line: a miss counts as the deadline, and as a wrong answer."""
        if not self.frames:
            return "no frames"
        by = ", ".join(f"{name} {100 * n / self.frames:.1f} %" for name, n in self.answers.items())
        right = f", right {100 * self.right / self.labelled:.1f} %" if self.labelled else ""
        return f"{self.frames} frames: {by}, mean latency {1e3 * self.latency_s / self.frames:.1f} ms{right}"


if __name__ == "__main__":
    sys.exit(main())
