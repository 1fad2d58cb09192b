"""Whatever makes the first contact fail is in the log of each frame, in the same words, and once in the terminal."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.runtime.deployed import points
from tests.runtime.device.test_loop import CUT, Run
from tests.runtime.servers import LIMIT_S, ServerThread
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.log.record import Record
from tidesplit.runtime.log.writer import Live
from tidesplit.runtime.server.serving import ServerOptions
from tidesplit.runtime.wire.reasons import LASTS
from tidesplit.runtime.wire.security import Credentials, client_credentials

TOKEN = "f00dfacef00dfacef00d"


@pytest.fixture(scope="module")
def engine(cnn: Cnn) -> Engine:
    return Engine(cnn, points(cnn.partitions)[0].points)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a handshake takes longer than the greeting waits, which then is the first reason."""
    monkeypatch.setattr("tidesplit.runtime.device.loop.PROBE_LIMIT_S", LIMIT_S)


def check(engine: Engine, address: str, expected: str, lasts: bool, safety: Credentials | None = None) -> None:
    """Run a device for a few frames and compare what it says."""
    out = io.StringIO()
    live, records = Live("", out), []

    def sink(record: Record) -> None:
        live(record)
        records.append(record)

    with Run(engine, address, CUT, 8, safety=safety, sink=sink):
        pass
    (error,) = {record.as_json()["error"] for record in records}
    assert error.startswith(expected)
    assert error.endswith(f"({LASTS})") is lasts
    assert {record.answered_by for record in records} <= {"device", "miss"}
    assert out.getvalue().count("server: ") == 1
    assert f"server: {error}\n" in out.getvalue()


@pytest.mark.parametrize(
    ("address", "expected"),
    [("localhost:1", "UNAVAILABLE: Connection refused"), ("[::1]:1", "UNAVAILABLE: "),
     ("no.such.host.invalid:50051", "UNAVAILABLE: the server's name cannot be resolved")],
)  # fmt: skip
def test_nobody_there(engine: Engine, address: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidesplit.runtime.device.client.check_plaintext", lambda *_: None)
    check(engine, address, expected, lasts=False)


@pytest.mark.parametrize("token", ["", "another-token-of-its-own"])
def test_a_missing_or_wrong_token(engine: Engine, cnn: Cnn, token: str) -> None:
    with ServerThread(cnn, ServerOptions(token=TOKEN)) as server:
        check(engine, server.address, "UNAUTHENTICATED: the bearer token", True, Credentials(token=token))


def test_other_weights(engine: Engine, cnn: Cnn) -> None:
    with ServerThread(replace(cnn, weights_sha256="abcd" * 16), ServerOptions()) as server:
        check(engine, server.address, "FAILED_PRECONDITION: weights ", True)


@pytest.mark.parametrize(
    ("name", "authority", "expected", "lasts"),
    [
        ("server", "stranger", "the server's certificate is not accepted: unable to get local issuer", True),
        ("elsewhere", "ca", "the server's certificate is not accepted: it names another host", True),
        ("", "ca", "the server at this address does not speak TLS", True),
        ("server", "", "the connection was closed at once", False),
    ],
)
def test_tls_that_does_not_come_about(
    engine: Engine, cnn: Cnn, keys: Path, name: str, authority: str, expected: str, lasts: bool
) -> None:
    files = {"tls_cert": keys / f"{name}.pem", "tls_key": keys / f"{name}.key"} if name else {}
    safety = client_credentials(keys / f"{authority}.pem" if authority else None)
    with ServerThread(cnn, ServerOptions(**files)) as server:
        check(engine, server.address, f"UNAVAILABLE: {expected}", lasts, safety)


@contextlib.contextmanager
def bare_server(secret: Any = None) -> Iterator[str]:
    """The address of a plain gRPC server without any method."""
    server = grpc.server(ThreadPoolExecutor(1))
    bind = server.add_insecure_port if secret is None else partial(server.add_secure_port, server_credentials=secret)
    port = bind("localhost:0")
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(0).wait()


def test_a_server_whose_certificate_expired_while_it_ran(engine: Engine, keys: Path) -> None:
    """It refuses to start with one. This one has no such check."""
    key, chain = ((keys / f"expired.{kind}").read_bytes() for kind in ("key", "pem"))
    expected = "UNAVAILABLE: the server's certificate is not accepted: certificate has expired"
    with bare_server(grpc.ssl_server_credentials([(key, chain)])) as address:
        check(engine, address, expected, True, client_credentials(keys / "ca.pem"))


def test_a_server_that_is_none_of_ours(engine: Engine) -> None:
    with bare_server() as address:
        check(engine, address, "UNIMPLEMENTED: Method not found", True)
