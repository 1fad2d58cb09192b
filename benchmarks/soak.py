"""An hour of faults at random: python benchmarks/soak.py --bundle OUT [--minutes 60] [--json FILE]

Device processes (`tidesplit edge`, paced as the bundle's device) share one emulated link of 5 Mbit/s and 60 ms to one
server process. At random moments the link goes dark, or all its connections are reset or half closed, or the server
freezes. In the first third it is also killed and started again; its last life is then long enough to show growth. Each
minute the memory of every process is printed. At the end:

    once      True where every device settled each of its frames exactly once, and ended without an error
    reasons   how often each reason for a failure stands in the log, without its numbers
    slope     growth of each process's memory in MiB an hour with its 95 % interval, after a warm-up of each life
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tidesplit.agents import bundle as bundles
from tidesplit.benchmarks.memory_watch import Watch, slope
from tidesplit.benchmarks.processes import DeviceProcess, LinkProcess, ServerProcess, linked, serving
from tidesplit.benchmarks.results import write_json
from tidesplit.envs.traces.trace import Trace
from tidesplit.profiling.measuring.clock import machine_facts

SAMPLE_S = 10.0  # between two looks at the memory
PATIENCE_S = 60.0  # that devices may take longer than their frames, for their start
RTT_S = 0.060
STEADY = Trace("steady", np.zeros(1), 60.0, np.full(1, 5e6))
FAULTS = {"dark": 0.3, "reset": 0.25, "half-close": 0.25, "freeze": 0.2}  # shares among the faults but restarts
RESTARTS = 1 / 3  # part of the time in which there are restarts
LASTS_S = (0.5, 4.0)  # of a dark link and of a freeze
Fault = tuple[float, str]  # its moment and kind


@dataclass
class Ends:
    """What a device's log says of its frames, whose number is known beforehand or not."""

    frames: int | None = None
    times: bytearray = field(default_factory=bytearray)  # by frame: how often it was settled
    answered_by: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def take(self, line: dict[str, Any]) -> None:
        """Take a line of the log."""
        frame = int(line["frame"])
        self.times.extend(bytes(max(0, frame + 1 - len(self.times))))
        self.times[frame] = min(255, self.times[frame] + 1)
        self.answered_by[line["answered_by"]] += 1
        if line["error"]:
            self.reasons[re.sub(r"\d+(\.\d+)?", "N", line["error"])] += 1

    @property
    def once(self) -> bool:
        """True where each frame was settled exactly once."""
        return self.times == b"\x01" * (self.frames or len(self.times))


def drawn_faults(length_s: float, fault_s: float, restart_s: float, rng: np.random.Generator) -> list[Fault]:
    """Faults in their order. They come at random, with these mean times between them; restarts in the first third."""
    kinds, shares = list(FAULTS), list(FAULTS.values())
    others = ((at_s, str(rng.choice(kinds, p=shares))) for at_s in _moments(fault_s, length_s, rng))
    restarts = ((at_s, "restart") for at_s in _moments(restart_s, RESTARTS * length_s, rng))
    return sorted([*others, *restarts])


def _moments(apart_s: float, length_s: float, rng: np.random.Generator) -> Iterator[float]:
    at_s = float(rng.exponential(apart_s))
    while at_s < length_s:
        yield at_s
        at_s += float(rng.exponential(apart_s))


def strike(kind: str, link: LinkProcess, server: ServerProcess, rng: np.random.Generator) -> None:
    """Let a fault happen, and wait for its end."""
    lasts_s = float(rng.uniform(*LASTS_S))
    match kind:
        case "dark":
            link.call("blackhole", True)
            time.sleep(lasts_s)
            link.call("blackhole", False)
        case "reset":
            link.call("reset")
        case "half-close":
            link.call("half_close")
        case "freeze":
            os.kill(server.pid, signal.SIGSTOP)
            time.sleep(lasts_s)
            os.kill(server.pid, signal.SIGCONT)
        case "restart":
            server.kill()
            server.start()


def soak(faults: Sequence[Fault], watch: Watch, link: LinkProcess, server: ServerProcess,
         devices: Sequence[DeviceProcess], limit_s: float, rng: np.random.Generator) -> Counter[str]:  # fmt: skip
    """Watch until all devices have ended, with faults meanwhile. Returns how many of each kind there were."""
    waiting, happened, minute = list(faults), Counter[str](), 0
    while any(device.running for device in devices) and watch.now_s() < limit_s:
        watch.look()
        if watch.now_s() // 60 > minute:
            minute += 1
            print(f"minute {minute}, MiB: {watch.newest()}; faults {dict(happened)}", flush=True)
        next_look_s = watch.now_s() + SAMPLE_S
        while waiting and waiting[0][0] < next_look_s:
            at_s, kind = waiting.pop(0)
            time.sleep(max(0.0, at_s - watch.now_s()))
            strike(kind, link, server, rng)
            happened[kind] += 1
            if kind == "restart":
                watch.restarted("server", server.pid)
        time.sleep(max(0.0, next_look_s - watch.now_s()))
    return happened


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder that tidesplit train wrote")
    parser.add_argument("--images", type=Path, help="folder of pictures (default: drawn ones)")
    parser.add_argument("--minutes", type=float, default=60.0, help="length (default 60)")
    parser.add_argument("--devices", type=int, default=2, help="device processes (default 2)")
    parser.add_argument("--fps", type=float, default=10.0, help="frames a second of each (default 10)")
    parser.add_argument("--deadline-ms", type=float, default=300.0, help="of each frame (default 300)")
    parser.add_argument("--fault-s", type=float, default=20.0, help="mean time between faults (default 20)")
    parser.add_argument("--restart-s", type=float, default=120.0, help="mean time between restarts (default 120)")
    parser.add_argument("--warm-up-s", type=float, default=600.0, help="not counted in slopes (default 600)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the soak. Returns its figures."""
    loaded, rng = bundles.load(options.bundle), np.random.default_rng(options.seed)
    length_s = 60 * options.minutes
    ends = [Ends(max(1, round(length_s * options.fps))) for _ in range(options.devices)]
    given = ["--bundle", str(options.bundle), "--fps", str(options.fps), "--pace", str(loaded.manifest["device"])]
    given += ["--deadline-ms", str(options.deadline_ms)]
    given += ["--source", str(options.images)] if options.images else []
    with ExitStack() as stack:
        server = stack.enter_context(serving("--profile", loaded.profile.name))
        link = stack.enter_context(linked(STEADY, server.address, RTT_S))
        devices = [
            DeviceProcess(*given, "--server", link.address, "--frames", str(one.frames), take=one.take) for one in ends
        ]
        stack.callback(lambda: [device.end(0.0) for device in devices])
        pids = {"server": server.pid, "link": link.pid, "soak": os.getpid()}
        watch = Watch(pids | {f"device {number}": device.pid for number, device in enumerate(devices)})
        faults = drawn_faults(length_s, options.fault_s, options.restart_s, rng)
        happened = soak(faults, watch, link, server, devices, length_s + PATIENCE_S, rng)
        codes = [device.end(PATIENCE_S) for device in devices]
    found = {
        "frames": sum(sum(one.times) for one in ends),
        "once": all(one.once for one in ends) and not any(codes),
        "codes": codes, "told": [device.told[-1].strip() for device in devices if device.told],
        "answered_by": dict(sum((one.answered_by for one in ends), Counter[str]())),
        "reasons": dict(sum((one.reasons for one in ends), Counter[str]()).most_common()),
        "faults": dict(happened), "minutes": round(watch.now_s() / 60, 1), "cores": round(watch.cores(), 2),
        "slope": {name: slope(rows, options.warm_up_s)._asdict() for name, rows in watch.samples.items()},
    }  # fmt: skip
    return {**found, "mib_by_minute": watch.minutes(), "devices": options.devices, "fps": options.fps}


def main(argv: Sequence[str] | None = None) -> None:
    """Soak and print."""
    options = arguments().parse_args(argv)
    found = run(options)
    for name, value in found.items():
        rows = value.items() if name in ("slope", "reasons") else [("", value)]
        for key, row in rows:
            print(f"{name} {key}: {row}".replace(" :", ":"))
    write_json(options.json, {**found, "machine": machine_facts(1)})


if __name__ == "__main__":
    main()
