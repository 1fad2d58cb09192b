"""A device and its server in trouble, one case after the other: python benchmarks/faults.py --bundle OUT

Each case runs `tidesplit edge` and `tidesplit server` as processes of their own, and breaks something: the link, the
server, names, certificates, clocks, disk, terminal, other clients. Then it reads the device's log. A case holds where
each frame has exactly one line, the reason stands in `error`, and the server answers again after the trouble.
The jump of the device's clock needs a C compiler, `cc`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tidesplit.benchmarks.processes import ServerProcess, serving
from tidesplit.benchmarks.results import write_json
from tidesplit.envs.traces.trace import Trace
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.runtime.emulator.proxy import Link

FPS, DEADLINE_MS = 10, 500
SOME = 20  # frames before and after a change
LIMIT_S = 120.0  # for the start of a process, and for its end
VALID_S = 10.0  # of a certificate that expires while it is used
IDLE = 10_000
HALF_A_REQUEST = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)  # the preface and empty settings of HTTP/2
DAY_S = 86_400
# A server whose clock is a day ahead, as on a machine that was started a day earlier.
ANOTHER_CLOCK = (
    "import sys, time; clock = time.perf_counter; time.perf_counter = lambda: clock() + 86400.0;"
    "from tidesplit.runtime.server.__main__ import main; sys.exit(main(sys.argv[1:]))"
)


# The time of day as all libraries of a process see it, with seconds added from a file.
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static volatile long long *offset;
static long long added(void) {
    if (!offset) {
        int file = open(getenv("CLOCK_OFFSET"), O_RDONLY);
        void *found = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
        if (found == MAP_FAILED) abort();
        offset = found;
    }
    return *offset;
}
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, at);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) at->tv_sec += added();
    return code;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void) zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""
# `tidesplit edge` whose policy always sends: what is judged is the runtime.
ALWAYS = """
import sys
from dataclasses import replace
from tidesplit.agents import bundle
from tidesplit.agents.rules.controllers import Static
from tidesplit.runtime import edge

load, point = bundle.load, sys.argv[1]

def fixed(folder):
    loaded = load(folder)
    return replace(loaded, policy=Static("static", loaded.table.row(point)))

bundle.load = fixed
sys.exit(edge.main(sys.argv[2:]))
"""


class DeviceProcess:
    """A device with a log, which always sends. It runs until `end`."""

    def __init__(
        self, bundle: Path, point: str, server: str, log: Path, *options: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.log = log
        command = [
            sys.executable, "-c", ALWAYS, point, "--bundle", str(bundle), "--server", server, "--json", str(log),
            "--fps", str(FPS), "--deadline-ms", str(DEADLINE_MS), *options,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})})

    def lines(self) -> list[dict[str, Any]]:
        """Whole lines of the log so far."""
        with contextlib.suppress(OSError):
            return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line[-1] == "\n"]
        return []

    def wait_for(self, number: int) -> None:
        """Wait until so many frames have ended."""
        self.until(lambda lines: len(lines) >= number, f"{number} frames")

    def until(self, holds: Callable[[list[dict[str, Any]]], bool], what: str) -> None:
        """Wait until the log shows something.

        Raises:
            RuntimeError: it does not within `LIMIT_S`.
        """
        end_s = time.monotonic() + LIMIT_S
        while not holds(self.lines()):
            if self.process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"the device showed no {what}: {self.end()[1][-300:]}")
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        """Stop it as Ctrl-C does. Returns exit code and the terminal's text."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        _, text = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, (text or b"").decode()


def answered_since(lines: Sequence[Mapping[str, Any]], since_s: float) -> list[float]:
    """Seconds from that time of day to the arrival of each later frame that the server answered."""
    arrivals = (line["time"] - 1e-3 * line["actual_ms"]["total"] for line in lines if line["answered_by"] == "server")
    return [arrival - since_s for arrival in arrivals if arrival >= since_s]


def judge(device: DeviceProcess, reason: str = "", since_s: float | None = None) -> dict[str, Any]:
    """What the log says, after the device's end. `since_s` is the time of day at which the trouble ended.

    The device ends ten frames after the server answers again.
    """
    failed = ""
    if since_s is not None:
        try:
            device.until(lambda lines: len(answered_since(lines, since_s)) >= 10, "answers of the server")
        except RuntimeError as error:
            failed = str(error)
    code, text = device.end()
    lines = device.lines()
    errors = Counter(line["error"] for line in lines if line["error"])
    found: dict[str, Any] = {
        "frames": len(lines),
        "one_line_each": sorted(line["frame"] for line in lines) == list(range(len(lines))),
        "answered_by": dict(Counter(line["answered_by"] for line in lines)),
        "errors": dict(errors),
        "said": sum(text.count(f"server: {error}\n") for error in errors),
    }
    found["holds"] = found["one_line_each"] and code == 130 and (not reason or any(reason in error for error in errors))
    if since_s is not None:
        after = answered_since(lines, since_s)
        found["back_s"] = round(min(after), 3) if after else None
        found["holds"] = found["holds"] and not failed
    return found


class Trouble:
    """The cases. Each is a method without arguments that returns its row."""

    def __init__(self, bundle: Path, point: str, folder: Path) -> None:
        self._bundle, self._point, self._folder = bundle, point, folder
        self._number = 0

    def _device(self, server: str, *options: str, **more: Any) -> DeviceProcess:
        self._number += 1
        log = more.pop("log", self._folder / f"{self._number}.jsonl")
        return DeviceProcess(self._bundle, self._point, server, log, *options, **more)

    @contextlib.contextmanager
    def _linked(self, *options: str) -> Iterator[tuple[ServerProcess, Link, str]]:
        trace = Trace("steady", np.array([0.0]), 60.0, np.array([10e6]))
        with serving(*options) as server, Link(trace, to=server.address, rtt_s=0.03) as link:
            yield server, link, f"localhost:{link.address[1]}"

    def _broken_link(self, begin: Callable[[Link, ServerProcess], None], end: Callable[[Link, ServerProcess], None],
                     seconds: float, reason: str) -> dict[str, Any]:  # fmt: skip
        with self._linked() as (server, link, address):
            device = self._device(address)
            device.until(lambda lines: bool(answered_since(lines, 0.0)), "answer of the server")
            begin(link, server)
            time.sleep(seconds)
            end(link, server)
            return judge(device, reason, time.time())

    def outage(self) -> dict[str, Any]:
        """Nothing passes for three seconds."""
        return self._broken_link(
            lambda link, _: link.blackhole(True), lambda link, _: link.blackhole(False), 3.0, "DEADLINE_EXCEEDED"
        )

    def reset(self) -> dict[str, Any]:
        """The connection is reset."""
        return self._broken_link(lambda link, _: link.reset(), lambda *_: None, 0.0, "")

    def half_close(self) -> dict[str, Any]:
        """The device reads the end of the connection."""
        return self._broken_link(lambda link, _: link.half_close(), lambda *_: None, 0.0, "")

    def freeze(self) -> dict[str, Any]:
        """The server stops for three seconds, as a machine that swaps."""

        def send(number: int) -> Callable[[Link, ServerProcess], None]:
            return lambda _, server: os.kill(server.pid, number)

        return self._broken_link(send(signal.SIGSTOP), send(signal.SIGCONT), 3.0, "DEADLINE_EXCEEDED")

    def kill(self) -> dict[str, Any]:
        """The server is killed, and started once more."""
        return self._broken_link(lambda _, server: server.kill(), lambda _, server: server.start(), 1.0, "UNAVAILABLE")

    def another_clock(self) -> dict[str, Any]:
        """A server whose clock is a day ahead takes the place of the first."""

        def replace(_: Link, server: ServerProcess) -> None:
            server.program = ("-c", ANOTHER_CLOCK)
            server.start()

        return self._broken_link(lambda _, server: server.kill(), replace, 0.5, "UNAVAILABLE")

    def proxy(self) -> dict[str, Any]:
        """The environment names a proxy. Nobody may connect to it."""
        with serving() as server, socket.create_server(("127.0.0.1", 0)) as trap:
            where = f"127.0.0.1:{trap.getsockname()[1]}"
            names = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
            named = {**dict.fromkeys(names, f"http://{where}"), "GRPC_ADDRESS_HTTP_PROXY": where, "no_proxy": ""}
            device = self._device(f"127.0.0.1:{server.address[1]}", environment=named)
            device.wait_for(30 * FPS)  # a library may report home after a while
            found = judge(device, since_s=time.time())
            trap.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                trap.accept()
                found["holds"] = False
        return found

    def no_such_name(self) -> dict[str, Any]:
        """The server's name is unknown."""
        device = self._device("no.such.host.invalid:50051", "--insecure")
        device.wait_for(SOME)
        return judge(device, "name cannot be resolved")

    def server_certificate(self) -> dict[str, Any]:
        """The server's certificate expires while it runs. Later its files are renewed."""
        return self._expiring("server", "certificate has expired")

    def device_certificate(self) -> dict[str, Any]:
        """The device's certificate expires while it runs. Later its files are renewed."""
        return self._expiring("device", "the certificate expired on")

    def _expiring(self, whose: str, reason: str) -> dict[str, Any]:
        keys = Keys(self._folder)
        for name in ("server", "device"):
            keys.write(name, DAY_S)
        ca, cert, key = (str(keys.folder / name) for name in ("ca.pem", "{}.pem", "{}.key"))
        own = ("--tls-cert", cert.format("server"), "--tls-key", key.format("server"), "--client-ca", ca)
        theirs = ("--tls-ca", ca, "--tls-cert", cert.format("device"), "--tls-key", key.format("device"))
        with self._linked(*own) as (_, link, address):
            ends_s = time.time() + VALID_S
            if whose == "device":  # from the start: a device takes new files with a probe, and none may be due
                keys.write(whose, VALID_S)
            device = self._device(address, *theirs)
            device.until(lambda lines: bool(answered_since(lines, 0.0)), "answer of the server")
            if whose == "server":
                ends_s = time.time() + VALID_S
                keys.write(whose, VALID_S)
                link.reset()  # certificates are shown when a connection begins
                device.until(lambda lines: bool(answered_since(lines, ends_s - VALID_S + 1.0)), "further answer")
            time.sleep(max(0.0, ends_s + 1.0 - time.time()))
            link.reset()
            device.until(lambda lines: any(reason in (line["error"] or "") for line in lines), reason)
            keys.write(whose, DAY_S)
            return judge(device, reason, time.time())

    def full_disk(self) -> dict[str, Any]:
        """Each write of the log fails, as on a full disk. All frames are classified, and it is said once."""
        with serving() as server:
            device = self._device(f"127.0.0.1:{server.address[1]}", "--frames", str(SOME), log=Path("/dev/full"))
            code, text = device.process.wait(LIMIT_S), device.end()[1]
        said = text.count("No space left on device")
        counted = f"{SOME} frames: " in text
        return {"frames": SOME, "exit_code": code, "said": said, "holds": (code, said, counted) == (0, 1, True)}

    def no_terminal(self) -> dict[str, Any]:
        """Nobody reads the terminal's text any more."""
        with serving() as server:
            device = self._device(f"127.0.0.1:{server.address[1]}")
            assert device.process.stderr is not None
            device.wait_for(SOME)
            device.process.stderr.close()
            device.process.stderr = None
            return judge(device, since_s=time.time())

    def clock_jump(self) -> dict[str, Any]:
        """The device's time of day jumps by a day, there and back."""
        if (compiler := shutil.which("cc")) is None:
            return {"skipped": "needs a C compiler"}
        offset, library = self._folder / "offset", self._folder / "clock.so"
        (self._folder / "clock.c").write_text(CLOCK)
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", str(library), str(self._folder / "clock.c"), "-ldl"], check=True
        )
        offset.write_bytes(bytes(8))
        faked = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}
        with serving() as server:
            device = self._device(f"127.0.0.1:{server.address[1]}", environment=faked)
            for number, jump_s in ((SOME, DAY_S), (2 * SOME, -DAY_S), (3 * SOME, 0)):
                device.wait_for(number)
                with offset.open("r+b") as file:
                    file.write(struct.pack("=q", jump_s))
            device.wait_for(4 * SOME)
            found = judge(device)
        stamps = np.array([line["time"] for line in device.lines()])
        found["largest_jump_s"] = float(np.abs(np.diff(stamps)).max())
        found["holds"] &= found["largest_jump_s"] > DAY_S / 2
        found["holds"] &= found["answered_by"].get("server", 0) > SOME
        return found

    def slow_clients(self) -> dict[str, Any]:
        """Two hundred clients begin to speak HTTP/2, and say no more."""
        return self._crowd(200, HALF_A_REQUEST)

    def idle_connections(self) -> dict[str, Any]:
        """Ten thousand clients connect, and say nothing."""
        return self._crowd(IDLE, b"")

    def _crowd(self, number: int, says: bytes) -> dict[str, Any]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * IDLE), hard))  # the server inherits it
        try:
            with serving() as server, contextlib.ExitStack() as stack:
                for _ in range(number):
                    opened = stack.enter_context(socket.create_connection(server.address, 5.0))
                    opened.sendall(says)
                found = judge(self._device(f"127.0.0.1:{server.address[1]}"), since_s=time.time())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        del found["back_s"]  # most of it is the device's start
        found["clients"] = number
        return found


class Keys:
    """An authority, and certificates for this machine that end when asked to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority")])
        self._put("ca", self._key, self._signed("an authority", self._key.public_key(), DAY_S, authority=True))

    def write(self, name: str, valid_s: float) -> None:
        """A new key and certificate, `name.key` and `name.pem`."""
        key = ec.generate_private_key(ec.SECP256R1())
        self._put(name, key, self._signed(name, key.public_key(), valid_s, authority=False))

    def _signed(self, name: str, key: ec.EllipticCurvePublicKey, valid_s: float, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(seconds=valid_s))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _put(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (self.folder / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))


CASES = (
    "outage", "reset", "half_close", "freeze", "kill", "another_clock", "proxy", "no_such_name", "server_certificate",
    "device_certificate", "full_disk", "no_terminal", "clock_jump", "slow_clients", "idle_connections",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases. Returns 1 where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder that tidesplit train wrote")
    parser.add_argument("--point", default="p3-c0.25-r1.00-b2-i8", help="operating point that is always chosen")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="only these")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args(argv)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        trouble = Trouble(options.bundle, options.point, Path(folder))
        for name in options.cases:
            row = json.dumps(getattr(trouble, name)())
            rows[name] = json.loads(row.replace(folder, "FOLDER"))
            print(f"{name}: {json.dumps(rows[name])}", flush=True)
    write_json(options.json, {"cases": rows, "machine": machine_facts(1)})
    return int(not all(row.get("holds", True) for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
