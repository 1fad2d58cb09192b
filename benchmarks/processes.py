"""Devices, servers, a balancer and an emulated link, each in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tidesplit.envs.traces.trace import Trace
from tidesplit.runtime.emulator.proxy import Link

Address = tuple[str, int]
START_S = 10.0  # for HAProxy, which takes milliseconds
# A request that a server leaves without any answer goes to another one, if it fits a buffer: frames are idempotent.
HAPROXY = """
global
    tune.bufsize 131072
defaults
    mode http
    retries 2
    option redispatch 1
    retry-on conn-failure empty-response
    timeout connect 1s
    timeout client 60s
    timeout server 60s
frontend devices
    bind {host}:{port} proto h2
    default_backend servers
backend servers
    balance {balance}
"""
BY_DEVICE = "hdr(tidesplit-device)\n    hash-type consistent"


class ServerProcess:
    """A server process with these options. `cores`: processor cores that it may use; none named: all.

    `program` has Python's arguments before these options, for the next start.
    """

    def __init__(
        self, *options: str, cores: Collection[int] = (), program: tuple[str, ...] = ("-m", "tidesplit.runtime.server")
    ) -> None:
        self._options, self._cores, self.program = options, cores, program
        self.address: Address = ("127.0.0.1", 0)
        self.start()

    def start(self) -> None:
        """Start the process, after a `kill` at the same address. Returns when it listens."""
        port = str(self.address[1])
        command = [sys.executable, *self.program, "--port", port, *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if self._cores:
            os.sched_setaffinity(self._process.pid, self._cores)
        assert self._process.stdout is not None
        told = next((line for line in self._process.stdout if "listening on" in line), None)
        if told is None:
            self.stop()
            raise RuntimeError("the server ended before it listened")
        host, port = told.split("listening on ")[1].split(",")[0].strip().rsplit(":", 1)
        self.address = host, int(port)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        """Ask the process to end, and wait for it."""
        self._process.terminate()
        self._process.communicate()


@contextmanager
def served(*options: str, cores: Collection[int] = ()) -> Iterator[Address]:
    """Address of a server process. The arguments are those of `ServerProcess`."""
    with serving(*options, cores=cores) as server:
        yield server.address


@contextmanager
def serving(*options: str, cores: Collection[int] = ()) -> Iterator[ServerProcess]:
    """The same, as the process."""
    server = ServerProcess(*options, cores=cores)
    try:
        yield server
    finally:
        server.stop()


class Restarts:
    """Kills a server at some moments, in seconds after `begin`, and starts it again at once.

    `down_s` has the seconds until it listened again, for each time.
    """

    def __init__(self, server: ServerProcess, at_s: Sequence[float]) -> None:
        self._server, self._at_s = server, at_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="restarts")
        self.begin = self._thread.start
        self.down_s: list[float] = []

    def end(self) -> None:
        """Wait for a start that is under way. Later ones are left out."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        begun_s = time.perf_counter()
        for at_s in self._at_s:
            if self._ended.wait(begun_s + at_s - time.perf_counter()):
                return
            self._server.kill()
            killed_s = time.perf_counter()
            self._server.start()
            self.down_s.append(time.perf_counter() - killed_s)


@contextmanager
def balanced(servers: Sequence[Address], by_device: bool) -> Iterator[Address]:
    """Address of an HAProxy that sends each request to the next server, or `by_device` each device's to one server.

    Raises:
        RuntimeError: HAProxy is not installed, or does not start.
    """
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise RuntimeError("a balancer needs HAProxy, which is not installed: apt-get install haproxy")
    address = "127.0.0.1", _free_port()
    text = HAPROXY.format(host=address[0], port=address[1], balance=BY_DEVICE if by_device else "roundrobin")
    text += "".join(
        f"    server s{i} {host}:{port} proto h2 check inter 500ms fall 1 rise 1\n"
        for i, (host, port) in enumerate(servers)
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "haproxy.cfg")
        file.write_text(text, encoding="utf-8")
        with subprocess.Popen([program, "-db", "-f", str(file)]) as process:
            try:
                _wait_for(address, process)
                yield address
            finally:
                process.terminate()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _wait_for(address: Address, process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end_s:
        try:
            socket.create_connection(address, 1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"HAProxy does not listen on {address[0]}:{address[1]}")


class LinkProcess:
    """An emulated link in a process of its own. `address` is where it listens, HOST:PORT."""

    def __init__(self, trace: Trace, to: Address, rtt_s: float) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_link, args=(trace, to, rtt_s, theirs), daemon=True)
        self._process.start()
        theirs.close()  # so that an end of the process ends the waiting for it
        self.address: str = "{}:{}".format(*self._pipe.recv())
        self.pid = self._process.pid or 0

    def call(self, method: str, *arguments: object) -> Any:
        """The result of a method of the `Link`."""
        self._pipe.send((method, arguments))
        return self._pipe.recv()

    def stop(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join(5)
        self._process.kill()


@contextmanager
def linked(trace: Trace, to: Address, rtt_s: float) -> Iterator[LinkProcess]:
    """An emulated link. The arguments are those of `LinkProcess`."""
    link = LinkProcess(trace, to, rtt_s)
    try:
        yield link
    finally:
        link.stop()


def _link(trace: Trace, to: Address, rtt_s: float, pipe: Connection) -> None:
    with Link(trace, to=to, rtt_s=rtt_s, rng=np.random.default_rng(0)) as link:
        pipe.send(link.address)
        while (asked := pipe.recv()) is not None:
            method, arguments = asked
            pipe.send(getattr(link, method)(*arguments))


class DeviceProcess:
    """`tidesplit edge` with these options. `take` gets each line of its log, on a thread of this object.

    `told` has its newest lines on the standard error output.
    """

    def __init__(self, *options: str, take: Callable[[dict[str, Any]], None], cores: Collection[int] = ()) -> None:
        command = [sys.executable, "-m", "tidesplit.runtime.edge", *options, "--json", "-"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        if cores:
            os.sched_setaffinity(self.pid, cores)
        self.told: deque[str] = deque(maxlen=20)
        readers = (
            (self._process.stdout, lambda line: take(json.loads(line))),
            (self._process.stderr, self.told.append),
        )
        self._threads = [threading.Thread(target=_read, args=reader) for reader in readers]
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    def end(self, limit_s: float) -> int:
        """Wait for the process to end by itself, for ``limit_s`` at most, and return its exit code."""
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self._process.terminate()
        code = self._process.wait()
        for thread in self._threads:
            thread.join()
        return code


def _read(lines: Iterable[str], take: Callable[[str], object]) -> None:
    for line in lines:
        take(line)


def memory_mib(process: int | str, name: str = "VmRSS") -> float:
    """Memory of a process that is in RAM now; with "VmHWM" the most that ever was. `process`: number, or "self"."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def cpu_s(process: int) -> float:
    """Processor time that a process has taken so far."""
    numbers = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")
