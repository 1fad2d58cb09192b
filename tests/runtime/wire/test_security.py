"""TLS, mutual TLS and tokens, with certificates made by openssl: who is let in, and the errors of the others."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.servers import Client, ServerThread, cut_frame
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.device.client import credentials
from tidesplit.runtime.edge import parser
from tidesplit.runtime.server.serving import ServerOptions
from tidesplit.runtime.wire.certificates import check_authorities, check_dates, check_holder
from tidesplit.runtime.wire.messages import build_request
from tidesplit.runtime.wire.security import (
    Credentials,
    check_plaintext,
    client_credentials,
    presentable,
    read_token,
)

TOKEN = "f00dfacef00dfacef00d"


@pytest.fixture(scope="module")
def mutual(cnn: Cnn, keys: Path) -> Iterator[ServerThread]:
    options = ServerOptions(tls_cert=keys / "server.pem", tls_key=keys / "server.key", client_ca=keys / "ca.pem")
    with ServerThread(cnn, options) as running:
        yield running


def outcome(cnn: Cnn, address: str, credentials: Credentials) -> tuple[str, str]:
    message = build_request(cut_frame(cnn, Knobs(1, 0.5, 1.0, 8)).request)
    with Client(address, credentials) as client:
        try:
            client.call("ModelInfer", message)
        except grpc.RpcError as error:
            return error.code().name, error.details()  # type: ignore[attr-defined]
    return "OK", ""


def test_mutual_tls(cnn: Cnn, keys: Path, mutual: ServerThread) -> None:
    known = client_credentials(keys / "ca.pem", keys / "client.pem", keys / "client.key")
    assert outcome(cnn, mutual.address, known) == ("OK", "")
    ca, key, expired = ((keys / name).read_bytes() for name in ("ca.pem", "expired.key", "expired.pem"))
    late = Credentials(grpc.ssl_channel_credentials(ca, key, expired))
    for stranger in (Credentials(), client_credentials(keys / "ca.pem"), late):
        assert outcome(cnn, mutual.address, stranger)[0] == "UNAVAILABLE"


def test_server_of_another_authority_is_not_believed(cnn: Cnn, keys: Path, mutual: ServerThread) -> None:
    code, sentence = outcome(cnn, mutual.address, client_credentials(keys / "stranger.pem"))
    assert code == "UNAVAILABLE"
    assert "CERTIFICATE_VERIFY_FAILED" in sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("expired", "the certificate expired on"), ("for-clients", "a certificate for clientAuth received, one for"),
     ("for-any", "one for serverAuth expected"), ("for-signing", "key usage lacks digitalSignature")],
)  # fmt: skip
def test_a_server_refuses_to_start_with_a_certificate_that_devices_refuse(
    cnn: Cnn, keys: Path, name: str, sentence: str
) -> None:
    options = ServerOptions(tls_cert=keys / f"{name}.pem", tls_key=keys / f"{name}.key")
    with pytest.raises(ValueError, match=rf"--tls-cert .*{name}\.pem: .*{sentence}"), ServerThread(cnn, options):
        pass


def test_new_certificates_are_taken_without_a_restart(
    cnn: Cnn, keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def put(name: str, change_s: int) -> None:
        for kind in ("pem", "key"):
            file = tmp_path / f"own.{kind}"
            file.write_bytes((keys / f"{name}.{kind}").read_bytes())
            os.utime(file, (change_s, change_s))

    put("server", 1)
    known = client_credentials(keys / "ca.pem")
    with ServerThread(cnn, ServerOptions(tls_cert=tmp_path / "own.pem", tls_key=tmp_path / "own.key")) as running:
        assert outcome(cnn, running.address, known) == ("OK", "")
        put("elsewhere", 2)
        assert "Hostname Verification" in outcome(cnn, running.address, known)[1]
        put("long", 3)
        assert outcome(cnn, running.address, known) == ("OK", "")
        put("expired", 4)
        assert [outcome(cnn, running.address, known) for _ in range(2)] == [("OK", "")] * 2
    (warning,) = caplog.records
    assert re.search(r"the security files in use stay: --tls-cert .*own\.pem: .* expired on", warning.getMessage())


def test_a_certificate_for_servers_is_not_shown_to_the_next_server(keys: Path) -> None:
    assert [presentable(keys / f"{name}.pem") for name in ("server", "for-servers", "for-any")] == [True, False, False]
    assert not presentable(None)
    with pytest.raises(ValueError, match="one for clientAuth expected"):
        client_credentials(keys / "ca.pem", keys / "for-servers.pem", keys / "for-servers.key")


def test_each_certificate_of_a_chain_is_checked_and_one_authority_of_a_bundle_has_to_be_valid(keys: Path) -> None:
    sound, expired = ((keys / f"{name}.pem").read_bytes() for name in ("server", "expired"))
    with pytest.raises(ValueError, match="x: the certificate of CN=expired in the chain expired on"):
        check_holder(sound + expired, "x", "server")
    check_authorities(expired + sound, "x")
    with pytest.raises(ValueError, match="x: the authority's certificate expired on"):
        check_authorities(expired, "x")


def test_token(cnn: Cnn) -> None:
    with ServerThread(cnn, ServerOptions(token=TOKEN)) as running:
        assert outcome(cnn, running.address, Credentials(token=TOKEN)) == ("OK", "")
        for wrong in ("", TOKEN[:-1], TOKEN + "x"):
            code, sentence = outcome(cnn, running.address, Credentials(token=wrong))
            assert code == "UNAUTHENTICATED"
            assert "bearer token is missing or wrong" in sentence


@pytest.mark.parametrize(
    ("text", "sentence"), [("short", "one word of 16"), ("two words, but long enough", "one word"), ("é" * 20, "ASCII")]
)
def test_token_files(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=sentence):
        read_token(path)
    for written in (TOKEN, f"{TOKEN}\n", f"\ufeff{TOKEN}\r\n"):  # a byte order mark, as editors of Windows write it
        path.write_text(written, encoding="utf-8")
        assert read_token(path) == TOKEN


@pytest.mark.parametrize(("name", "days"), [("client", 30), ("long", 12_000), ("expired", -1)])
def test_dates_of_a_certificate(keys: Path, name: str, days: int) -> None:
    pem, now, day = (keys / f"{name}.pem").read_bytes(), datetime.now(UTC), timedelta(days=1)
    if days > 0:
        check_dates(pem, "x")
        check_dates(pem, "x", now + (days - 1) * day)
    with pytest.raises(
        ValueError, match=r"--tls-cert a\.pem: the certificate expired on \d{4}-\d\d-\d\d \d\d:\d\d UTC"
    ):
        check_dates(pem, "--tls-cert a.pem", now + (days + 1) * day)
    with pytest.raises(ValueError, match="is the clock right"):
        check_dates(pem, "x", now - 2 * day)


def test_device_and_middle_server_refuse_to_start_with_an_expired_certificate(keys: Path) -> None:
    files = {"--tls-ca": "ca.pem", "--tls-cert": "expired.pem", "--tls-key": "expired.key"}
    words = [word for option, name in files.items() for word in (option, str(keys / name))]
    with pytest.raises(ValueError, match="expired on"):
        credentials(parser().parse_args(["--bundle", "b", "--server", "h:1", *words]))
    with pytest.raises(ValueError, match="expired on"):
        client_credentials(keys / "ca.pem", keys / "expired.pem", keys / "expired.key", ca_option="--next-ca")


@given(st.binary(max_size=64))
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data) + b"\n-----END CERTIFICATE-----\n"
    for text in (data, pem):
        with pytest.raises(ValueError, match="x: not a readable certificate in PEM"):
            check_dates(text, "x")


def test_files_that_are_no_pem(keys: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("no PEM")
    with pytest.raises(ValueError, match=r"--next-ca .*other: no certificates in PEM"):
        client_credentials(other, ca_option="--next-ca")
    with pytest.raises(ValueError, match=r"--tls-ca .*gone: not a readable file"):
        client_credentials(tmp_path / "gone")
    with pytest.raises(ValueError, match="are no PEM pair"):
        client_credentials(keys / "ca.pem", keys / "client.pem", keys / "server.key")


@pytest.mark.parametrize(("host", "safe"), [("127.0.0.1", True), ("[::1]", True), ("0.0.0.0", False), ("h", False)])
def test_where_plaintext_may_go(host: str, safe: bool) -> None:
    check_plaintext("--host", host, tls=True, insecure=False, remedy="--tls-cert")
    check_plaintext("--host", host, tls=False, insecure=True, remedy="--tls-cert")
    refused = contextlib.nullcontext() if safe else pytest.raises(ValueError, match=f"--host {host} without TLS")
    with refused:
        check_plaintext("--host", host, tls=False, insecure=False, remedy="--tls-cert")
