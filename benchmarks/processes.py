"""A server and an emulated link, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np

from tidesplit.envs.traces.trace import Trace
from tidesplit.runtime.emulator.proxy import Link

Address = tuple[str, int]


@contextmanager
def served(*options: str, cores: Collection[int] = ()) -> Iterator[Address]:
    """Address of a server process with these options. ``cores``: processor cores that it may use; none named: all."""
    command = [sys.executable, "-m", "tidesplit.runtime.server", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if cores:
            os.sched_setaffinity(process.pid, cores)
        try:
            assert process.stdout is not None
            told = next((line for line in process.stdout if "listening on" in line), None)
            if told is None:
                raise RuntimeError("the server ended before it listened")
            host, port = told.split("listening on ")[1].split(",")[0].strip().rsplit(":", 1)
            yield host, int(port)
        finally:
            process.terminate()


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
