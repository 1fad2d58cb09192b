"""Live sources: what the log says of a camera, and what is true.

    python benchmarks/cameras.py --bundle OUT [--json FILE]

The camera is a process that stands in for one. It notes when it writes each picture, and each picture shows its number.
The device is the real loop with a real server on loopback. Its log knows nothing of that; this benchmark reads the
numbers off the pictures that the loop took. The age error is the log's age of a picture minus the true one. A last
part starts the command itself with streams that give nothing, and stops it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tidesplit.agents import bundle as bundles
from tidesplit.agents.bundle import Bundle
from tidesplit.agents.rules.controllers import Static
from tidesplit.benchmarks.processes import Address, served
from tidesplit.benchmarks.results import percentiles, write_json
from tidesplit.benchmarks.stand_in_camera import NUMBERS, Moment, camera, h264, jpegs, number_in, with_segment
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.runtime.camera import video_frames
from tidesplit.runtime.camera.opened import Camera
from tidesplit.runtime.camera.picture import Picture, Skipped
from tidesplit.runtime.camera.reading import PictureReader
from tidesplit.runtime.camera.stream import CameraStream
from tidesplit.runtime.device.client import GrpcClient
from tidesplit.runtime.device.engine import Engine, points_of
from tidesplit.runtime.device.loop import Device
from tidesplit.runtime.edge import SWITCH_S
from tidesplit.runtime.export import for_bundle
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.log.writer import Live, Log

NOISE_BYTES, HALF_EVERY = 1000, 10  # garbage between pictures; of so many pictures, one is cut short
STARTED_S = 1.5  # the camera begins so long before the loop


@dataclass(frozen=True)
class Case:
    """A camera and a loop."""

    name: str
    fps: float = 30.0
    demand_fps: float = 30.0
    seconds: float = 7.0
    before_s: float = STARTED_S  # the camera begins so long before the loop; below 0: after it
    pause: tuple[float, float] = (np.inf, 0.0)  # the camera's moment, and how long
    kind: str = "mjpeg"  # or h264, rtsp, thumbnails, garbage
    frames: int | None = None  # then the loop stops; None: with the stream

    @property
    def whole_fps(self) -> float:
        """Whole pictures a second."""
        return self.fps * (1.0 - 1.0 / HALF_EVERY if self.kind == "garbage" else 1.0)


CASES = (
    *(Case(f"{fps:g} fps for 30", fps) for fps in (10, 25, 29.97, 30, 31, 60)),
    Case("22 fps for 20", 22, 20),
    Case("camera 6 s late", before_s=-6.0, seconds=5.0),
    Case("pause of 2.5 s", pause=(4.0, 2.5), seconds=9.0),
    Case("EXIF thumbnails", kind="thumbnails"),
    Case("garbage", kind="garbage"),
    Case("H.264 in a pipe", kind="h264"),
    Case("RTSP, away for 2 s", kind="rtsp", pause=(4.0, 2.0), seconds=12.0, frames=150),
)


class Watched(CameraStream):
    """A camera's stream that notes the numbers of the pictures it gives."""

    def __next__(self) -> Picture:
        """The next picture."""
        picture = super().__next__()
        self.__dict__.setdefault("numbers", []).append(number_in(picture.pixels))
        return picture

    @property
    def given(self) -> list[int]:
        """The numbers."""
        return list(self.__dict__.get("numbers", []))


def plan_of(case: Case, stills: Sequence[bytes], units: Sequence[bytes]) -> list[Moment]:
    """What the camera writes."""
    rng, plan = np.random.default_rng(0), []
    for number in range(int(case.fps * case.seconds)):
        at_s = number / case.fps
        if case.kind in ("h264", "rtsp"):
            plan.append(Moment(at_s, number, units[number]))
            continue
        data = stills[number % NUMBERS]
        if case.kind == "thumbnails":
            data = with_segment(data, b"Exif\0\0" + stills[0] + b"\0\0")
        if case.kind == "garbage":
            whole = number % HALF_EVERY != HALF_EVERY // 2
            data = rng.bytes(NOISE_BYTES) + (data if whole else data[: len(data) // 2])
            number = number if whole else -1
        if not case.pause[0] <= at_s < sum(case.pause):
            plan.append(Moment(at_s, number, data))
    return plan


def run(
    case: Case, loaded: Bundle, engine: Engine, server: Address, point: str, plan: list[Moment], folder: Path
) -> dict[str, Any]:
    """Run the loop on a camera. Returns a row of the table."""
    said: list[str] = []
    records: list[Record] = []
    out = io.StringIO()
    demand, px = loaded.demand.changed(case.demand_fps, None, None), engine.cnn.input_px
    skipped, rtsp = Skipped(said.append), case.kind == "rtsp"
    pipe = folder / case.name.replace(" ", "-")
    if not rtsp:
        os.mkfifo(pipe)
    with camera(plan, "" if rtsp else str(pipe), case.pause) as (address, control):
        go = partial(control.send, True)
        start = threading.Timer(max(0.0, -case.before_s), go)
        shots = (
            Camera(address, demand.fps, skipped, said.append) if rtsp
            else PictureReader(pipe.open("rb"), partial(video_frames.H264Decoder, skipped), skipped)
        )  # fmt: skip
        if case.before_s >= 0.0:
            go()
        pictures = Watched(shots, partial(video_frames.square, px=px), skipped, said.append)
        time.sleep(max(0.0, case.before_s))
        with (
            GrpcClient("{}:{}".format(*server), engine.cnn) as client,
            Log([records.append, Live("", out, every_s=1.0)], said.append) as log,
        ):
            device = Device(
                Static("static", loaded.table.row(point)), loaded.table, demand, engine, client, log,
                loaded.world.under(demand),
                started=start.start if case.before_s < 0.0 else lambda: None,
            )  # fmt: skip
            epoch_s = time.perf_counter() - device.now_s()
            device.run(pictures, case.frames)
        wrote, lost = control.recv()
    records.sort(key=lambda record: record.frame)
    told = [line for line in (*said, *out.getvalue().splitlines()) if not line.startswith("frame ")]
    rates = re.findall(r"camera ([0-9.]+) fps", out.getvalue())
    return {
        "case": case.name, "true_fps": case.whole_fps, "log_fps": float(rates[-1]) if rates else None,
        **judged(records, pictures.given, wrote, epoch_s), "lost_by_camera": len(lost),
        "camera_late_ms": _ms(late_s(plan, wrote)), "said": told,
    }  # fmt: skip


def judged(
    records: Sequence[Record], numbers: Sequence[int], wrote: Sequence[tuple[int, float]], epoch_s: float
) -> dict[str, Any]:
    """What the log says of each frame's picture, and what is true. `epoch_s` is the zero of the device's clock."""
    pictures = [(number, at_s) for number, at_s in wrote if number >= 0]
    at, skipped, errors, arrivals, ages, unknown, unreadable = -1, 0, [], [], [], 0, 0
    for record, shown in zip(records, numbers, strict=False):
        following = range(at + 1, len(pictures))
        found = next((i for i in following if pictures[i][0] % NUMBERS == shown), None)
        if found is None:
            unreadable += 1
            continue
        skipped, at = skipped + found - at - 1, found
        true_s = pictures[found][1] - epoch_s
        age_s = record.arrival_s + record.waited_s - true_s
        ages.append(age_s)
        arrivals.append(record.arrival_s - true_s)
        if record.picture_age_s is None:
            unknown += 1
        else:
            errors.append(abs(record.picture_age_s - age_s))
    return {
        "frames": len(records),
        "missed": sum(record.answered_by == "miss" for record in records),
        "skipped": {"log": sum(record.pictures_skipped for record in records), "true": skipped},
        "without_age": unknown,
        "number_unreadable": unreadable,
        "age_ms": _ms(ages),
        "age_error_ms": _ms(errors),
        "arrival_error_ms": _ms(arrivals[1:]),  # the first picture came before the loop began
    }  # fmt: skip


def late_s(plan: Sequence[Moment], wrote: Sequence[tuple[int, float]]) -> list[float]:
    """How late the camera's process was woken for each picture: the machine's share in an age error is as large."""
    due_s = {moment.number: moment.at_s for moment in plan if moment.number >= 0}
    after_s = [at_s - due_s[number] for number, at_s in wrote if number >= 0]
    return [value - min(after_s) for value in after_s]


def _ms(values_s: Sequence[float]) -> dict[str, float]:
    found = percentiles(values_s, median=50, p99=99, max=100) if values_s else {}
    return {name: round(1e3 * value, 2) for name, value in found.items()}


def endings(bundle: Path, stills: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    """Streams that give no picture, and a stop while a camera runs: the last line, and the exit code."""
    rng = np.random.default_rng(0)
    yield _ended("no stream (/dev/null)", bundle, None, 0.0)
    yield _ended("silence, then the end", bundle, [], 6.0)
    yield _ended("noise", bundle, [rng.bytes(200_000)], 0.0)
    yield _ended("half pictures", bundle, [still[:5000] for still in stills[:30]], 0.0)
    for number in (signal.SIGTERM, signal.SIGINT):
        yield _ended(f"{number.name} with a camera", bundle, stills[:300], 6.0, number)


def _ended(
    name: str, bundle: Path, writes: Sequence[bytes] | None, hold_s: float, stop: signal.Signals | None = None
) -> dict[str, Any]:
    """Run the command. `writes` come at 30 a second, and the stream ends after `hold_s`, or is stopped then."""
    command = [sys.executable, "-m", "tidesplit", "edge", "--bundle", str(bundle), "--server", "localhost:1"]
    stream = subprocess.DEVNULL if writes is None else subprocess.PIPE
    with subprocess.Popen([*command, "--source", "-"], stdin=stream, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        begin_s, left = time.monotonic(), list(writes or ())
        while process.stdin and (left or time.monotonic() < begin_s + hold_s):
            if stop and time.monotonic() > begin_s + hold_s:
                break
            if left:
                process.stdin.write(left.pop(0))
                process.stdin.flush()
            time.sleep(1 / 30)
        if stop:
            process.send_signal(stop)
            code = process.wait(20)
        elif process.stdin:
            process.stdin.close()
        *_, last = process.stderr.read().decode().splitlines()
        code = process.wait(20)
    return {"case": name, "exit_code": code, "last_line": last.removeprefix("tidesplit edge: ")}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the cases, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder that tidesplit train wrote")
    parser.add_argument("--point", default="p0-jpeg-q20", help="operating point that is always chosen")
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose name it matches")
    parser.add_argument("--json", type=Path, help="write the figures here")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and theirs, ignore it
    options = parser.parse_args(argv)
    sys.setswitchinterval(SWITCH_S)  # as the command does
    loaded = bundles.load(options.bundle)
    engine = Engine(for_bundle(options.bundle), points_of(loaded.profile, loaded.table.ids), 1)
    stills, units = jpegs(NUMBERS), h264(360)
    rows: list[dict[str, Any]] = []
    with served() as server, tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if re.search(options.only, case.name):
                plan = plan_of(case, stills, units)
                rows.append(run(case, loaded, engine, server, options.point, plan, Path(folder)))
                print(json.dumps(rows[-1]), flush=True)
    ends = []
    for row in endings(options.bundle, stills) if not options.only else ():
        ends.append(row)
        print(json.dumps(row), flush=True)
    write_json(options.json, {"cases": rows, "endings": ends, "machine": machine_facts(1)})


if __name__ == "__main__":
    main()
