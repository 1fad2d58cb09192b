"""Restarts of a server, and the balancer's configuration."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from tidesplit.benchmarks.processes import Address, Restarts, balanced
from tidesplit.runtime.wire.stream_place import DEVICE_METADATA

HAS_HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")


class Noted:
    """Stands in for a server process."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def kill(self) -> None:
        self.calls.append("kill")

    def start(self) -> None:
        self.calls.append("start")


def test_a_server_is_killed_and_started_again() -> None:
    server: Any = Noted()
    restarts = Restarts(server, [0.0, 0.01])
    restarts.begin()
    while len(restarts.down_s) < 2:
        time.sleep(0.001)
    restarts.end()
    assert server.calls == ["kill", "start"] * 2


def test_restarts_that_are_not_due_are_left_out() -> None:
    server: Any = Noted()
    restarts = Restarts(server, [60.0])
    restarts.begin()
    restarts.end()
    Restarts(server, [0.0]).end()
    assert server.calls == []


@contextmanager
def answering(name: bytes) -> Iterator[Address]:
    """A server that answers every request with its name."""
    handler = grpc.method_handlers_generic_handler("S", {"M": grpc.unary_unary_rpc_method_handler(lambda *_: name)})
    server = grpc.server(ThreadPoolExecutor(1), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield "127.0.0.1", port
    finally:
        server.stop(0).wait()


@pytest.mark.skipif(not HAS_HAPROXY, reason="needs HAProxy")
@pytest.mark.parametrize("by_device", [False, True])
def test_requests_of_a_device_go_to_all_servers_or_to_one(by_device: bool) -> None:
    with (
        answering(b"a") as first,
        answering(b"b") as second,
        balanced([first, second], by_device) as (host, port),
        grpc.insecure_channel(f"{host}:{port}") as channel,
    ):
        call = channel.unary_unary("/S/M")
        answers = Counter(call(b"", timeout=5.0, metadata=((DEVICE_METADATA, "d"),)) for _ in range(4))
    assert sorted(answers.values()) == ([4] if by_device else [2, 2])


def test_without_haproxy_the_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="apt-get install haproxy"), balanced([], by_device=False):
        pass
