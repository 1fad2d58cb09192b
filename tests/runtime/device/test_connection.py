"""Credentials that change, reasons that last, and a server without video: real servers, a real client."""

from __future__ import annotations

import logging
import os
import threading
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.deployed import ROWS, VIDEO_STREAM, points_of_streams
from tests.runtime.device.test_breaks import Watched
from tests.runtime.servers import LIMIT_S, ServerThread
from tidesplit.compression.codec.video import VideoDecoder
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.core.sending import Failure, Reply
from tidesplit.runtime.device import connection
from tidesplit.runtime.device.client import GrpcClient, credentials
from tidesplit.runtime.device.engine import Engine
from tidesplit.runtime.server import tails
from tidesplit.runtime.server.serving import ServerOptions
from tidesplit.runtime.wire.reasons import LASTS

TOKENS = ("f00dfacef00dfacef00d", "beefcafebeefcafebeef")


@pytest.fixture
def own(keys: Path, tmp_path: Path) -> Path:
    """A folder with the files of a device, in which `put` can exchange them."""
    put(keys, tmp_path, "client", 1)
    return tmp_path


def put(keys: Path, folder: Path, name: str, change_s: int) -> None:
    for kind in ("pem", "key"):
        (folder / f"own.{kind}").write_bytes((keys / f"{name}.{kind}").read_bytes())
        os.utime(folder / f"own.{kind}", (change_s, change_s))


def options(keys: Path, folder: Path) -> Namespace:
    return Namespace(tls_ca=keys / "ca.pem", tls_cert=folder / "own.pem", tls_key=folder / "own.key", token_file=None)


def probe(client: GrpcClient, limit_s: float = LIMIT_S) -> Reply | Failure:
    got: list[Reply | Failure] = []
    came = threading.Event()

    def done(answer: Reply | Failure) -> None:
        got.append(answer)
        came.set()

    client.probe(8, limit_s, done)
    assert came.wait(2 * LIMIT_S)
    return got[0]


def mutual(cnn: Cnn, keys: Path) -> ServerThread:
    return ServerThread(
        cnn, ServerOptions(tls_cert=keys / "server.pem", tls_key=keys / "server.key", client_ca=keys / "ca.pem")
    )


def test_a_device_takes_new_certificates_without_a_restart(cnn: Cnn, keys: Path, own: Path) -> None:
    with mutual(cnn, keys) as server, GrpcClient(server.address, cnn, credentials(options(keys, own))) as client:
        assert isinstance(probe(client), Reply)
        before = client._connection._channel
        assert isinstance(probe(client), Reply)
        assert client._connection._channel is before, "nothing changed"
        put(keys, own, "long", 2)
        assert isinstance(probe(client), Reply)
        assert client._connection._channel is not before


def test_files_that_cannot_be_used_leave_the_old_ones(
    cnn: Cnn, keys: Path, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mutual(cnn, keys) as server, GrpcClient(server.address, cnn, credentials(options(keys, own))) as client:
        assert isinstance(probe(client), Reply)
        put(keys, own, "expired", 2)
        with caplog.at_level(logging.WARNING):
            assert [isinstance(probe(client), Reply) for _ in range(3)] == [True] * 3
    (warning,) = caplog.records
    assert "the security files in use stay" in warning.getMessage()


def test_a_device_whose_certificate_expires_while_it_runs_says_so(
    cnn: Cnn, keys: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expired one is taken as if it were valid. Then the device's files are renewed, and it is let in."""
    with monkeypatch.context() as patched:
        patched.setattr("tidesplit.runtime.wire.certificates.check_holder", lambda *_: None)
        put(keys, own, "expired", 2)
        safety = credentials(options(keys, own))
    with mutual(cnn, keys) as server, GrpcClient(server.address, cnn, safety) as client:
        failure = probe(client, 2.0)
        assert isinstance(failure, Failure)
        assert "own.pem: the certificate expired on" in failure.reason
        assert failure.lasts
        put(keys, own, "client", 3)
        assert isinstance(probe(client), Reply)


def test_a_new_token_is_read_too_and_meanwhile_the_connection_is_closed(cnn: Cnn, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKENS[0])
    os.utime(file, (1, 1))
    safety = credentials(Namespace(tls_ca=None, tls_cert=None, tls_key=None, token_file=file))
    with ServerThread(cnn, ServerOptions(token=TOKENS[1])) as server, GrpcClient(server.address, cnn, safety) as client:
        failure = probe(client)
        assert isinstance(failure, Failure)
        assert failure.lasts
        assert failure.reason.endswith(f"({LASTS})")
        end_s = time.monotonic() + LIMIT_S
        while client._connection._channel is not None and time.monotonic() < end_s:
            time.sleep(0.01)
        assert client._connection._channel is None
        file.write_text(TOKENS[1])
        assert isinstance(probe(client), Reply)


def test_a_call_that_was_interrupted_while_it_was_made_does_not_hold_up_the_end(
    cnn: Cnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen with Ctrl-C on a busy machine: gRPC knew the call, but nobody waited for its end."""
    monkeypatch.setattr(connection, "CLOSE_S", 0.2)
    over = threading.Event()
    with ServerThread(cnn, ServerOptions()) as server, GrpcClient(server.address, cnn) as client:
        assert isinstance(probe(client), Reply)
        channel = client._connection._channel
        close = channel.close
        monkeypatch.setattr(channel, "close", over.wait)
        begun_s = time.monotonic()
        client._connection.close()
        assert time.monotonic() - begun_s < LIMIT_S
        over.set()
        close()


def test_a_device_learns_that_its_server_has_no_video(cnn: Cnn, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> VideoDecoder:
        raise ModuleNotFoundError("video offload needs PyAV")

    engine = Engine(cnn, [p for p in points_of_streams(cnn.partitions)[0].points if not p.id.endswith("-s")])
    monkeypatch.setattr(tails, "VideoDecoder", missing)
    picture = next(iter(ROWS))
    with ServerThread(cnn, ServerOptions()) as server, Watched(engine, server.address, (VIDEO_STREAM,), 60) as run:
        pass
    sent = [r for r in run.records if r.decision == VIDEO_STREAM]
    assert 1 <= len(sent) <= 15, "those that had left before the refusal was known"
    assert sent[0].frame == 0
    assert {r.error for r in sent if r.error} == {f"UNIMPLEMENTED: no video here: video offload needs PyAV ({LASTS})"}
    rest = run.records[20:]
    assert not any(r.error or r.breaker != "closed" for r in rest), "the link works"
    row = run.device.table.row
    assert all(not r.mask[row(VIDEO_STREAM)] and r.mask[row(picture)] for r in rest)
    assert Counter(r.decision for r in rest) == {tuple(ROWS)[-1]: len(rest)}, "this controller's other choice"
