"""Servers, a balancer and an emulated link, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tidesplit.envs.traces.trace import Trace
from tidesplit.runtime.emulator.proxy import Link

Address = tuple[str, int]
START_S = 10.0  # for HAProxy, which takes milliseconds
HAPROXY = """
defaults
    mode http
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
    """A server process with these options. `cores`: processor cores that it may use; none named: all."""

    def __init__(self, *options: str, cores: Collection[int] = ()) -> None:
        self._options, self._cores = options, cores
        self.program: tuple[str, ...] = ("-m", "tidesplit.runtime.server")  # of the next start
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
        """The process's number."""
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
    text += "".join(f"    server s{i} {host}:{port} proto h2\n" for i, (host, port) in enumerate(servers))
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


@contextmanager
def linked(trace: Trace, to: Address, rtt_s: float) -> Iterator[tuple[str, Connection]]:
    """Address of an emulated link, and a pipe to its clock: send True, receive the seconds since the link began."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_link, args=(trace, to, rtt_s, theirs))
    process.start()
    try:
        host, port = ours.recv()
        yield f"{host}:{port}", ours
        ours.send(False)
    finally:
        process.join(5)
        process.kill()


def _link(trace: Trace, to: Address, rtt_s: float, pipe: Connection) -> None:
    with Link(trace, to=to, rtt_s=rtt_s, rng=np.random.default_rng(0)) as link:
        pipe.send(link.address)
        while pipe.recv():
            pipe.send(link.now_s())
