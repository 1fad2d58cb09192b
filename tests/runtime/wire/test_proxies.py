"""Proxies that the environment names: no call goes through them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.runtime.servers import Client, ServerThread, cut_frame
from tidesplit.compression.codec.knobs import PASSED_ON, Knobs
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.server.serving import ServerOptions
from tidesplit.runtime.wire.messages import Request, build_request

NAMES = ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "GRPC_PROXY_EXP")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A listener that every variable names. It answers no one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        for name in NAMES:
            monkeypatch.setenv(name, f"http://{where}")
        monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY", where)
        monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "0.0.0.0/0,::/0")
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        listener.setblocking(False)
        yield listener


def test_neither_the_device_nor_the_middle_server_uses_a_proxy(cnn: Cnn, proxy: socket.socket) -> None:
    request = cut_frame(cnn, Knobs(1, 0.5, 1.0, 8), next_point=PASSED_ON).request
    with (
        ServerThread(cnn, ServerOptions()) as last,
        ServerThread(cnn, ServerOptions(next_address=last.address.replace("127.0.0.1", "localhost"))) as middle,
    ):
        for address in (middle.address, middle.address.replace("127.0.0.1", "localhost")):
            assert passed_on(address, request), address
    with pytest.raises(BlockingIOError):
        proxy.accept()


def passed_on(address: str, request: Request) -> bool:
    with Client(address) as client:
        answer = client.call("ModelInfer", build_request(request))
    return "next_total_s" in answer.parameters and "fell_back" not in answer.parameters
