"""TLS, mutual TLS and tokens with certificates made by openssl: who is let in, and what the others are told."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.runtime.servers import Client, cut_frame
from tidesplit.compression.codec.knobs import Knobs
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.server.serving import ServerOptions, ServerThread
from tidesplit.runtime.wire.messages import build_request
from tidesplit.runtime.wire.security import check_plaintext, client_credentials, is_loopback, read_token

TOKEN = "f00dfacef00dfacef00d"
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


def openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


def signed(folder: Path, name: str, *validity: str) -> None:
    """A key and a certificate of the authority `ca`."""
    openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key",
        "-out", f"{name}.csr", "-subj", f"/CN={name}", folder=folder,
    )  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl(
        "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-out", f"{name}.pem", "-extfile", "names", *validity, folder=folder,
    )  # fmt: skip


def authority(folder: Path, name: str) -> None:
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
        "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", folder=folder,
    )  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    authority(folder, "ca")
    authority(folder, "stranger")
    for name in ("server", "client"):
        signed(folder, name, "-days", "30")
    signed(folder, "expired", "-days", "-1")
    return folder


@pytest.fixture(scope="module")
def mutual(cnn: Cnn, keys: Path) -> Iterator[ServerThread]:
    options = ServerOptions(tls_cert=keys / "server.pem", tls_key=keys / "server.key", client_ca=keys / "ca.pem")
    with ServerThread(cnn, options) as running:
        yield running


def outcome(cnn: Cnn, address: str, credentials: object = None, token: str = "") -> tuple[str, str]:
    message = build_request(cut_frame(cnn, Knobs(1, 0.5, 1.0, 8)).request)
    with Client(address, credentials, token) as client:
        try:
            client.call("ModelInfer", message)
        except grpc.RpcError as error:
            return error.code().name, error.details()  # type: ignore[attr-defined]
    return "OK", ""


def test_mutual_tls(cnn: Cnn, keys: Path, mutual: ServerThread) -> None:
    known = client_credentials(keys / "ca.pem", keys / "client.pem", keys / "client.key")
    assert outcome(cnn, mutual.address, known) == ("OK", "")
    assert outcome(cnn, mutual.address, client_credentials(keys / "ca.pem"))[0] == "UNAVAILABLE"
    assert outcome(cnn, mutual.address)[0] == "UNAVAILABLE"
    late = client_credentials(keys / "ca.pem", keys / "expired.pem", keys / "expired.key")
    assert outcome(cnn, mutual.address, late)[0] == "UNAVAILABLE"


def test_server_of_another_authority_is_not_believed(cnn: Cnn, keys: Path, mutual: ServerThread) -> None:
    code, sentence = outcome(cnn, mutual.address, client_credentials(keys / "stranger.pem"))
    assert code == "UNAVAILABLE"
    assert "CERTIFICATE_VERIFY_FAILED" in sentence


def test_expired_server_is_refused_and_said_why(cnn: Cnn, keys: Path) -> None:
    options = ServerOptions(tls_cert=keys / "expired.pem", tls_key=keys / "expired.key")
    with ServerThread(cnn, options) as running:
        code, sentence = outcome(cnn, running.address, client_credentials(keys / "ca.pem"))
    assert code == "UNAVAILABLE"
    assert "certificate has expired" in sentence


def test_token(cnn: Cnn) -> None:
    with ServerThread(cnn, ServerOptions(token=TOKEN)) as running:
        assert outcome(cnn, running.address, token=TOKEN) == ("OK", "")
        for wrong in ("", TOKEN[:-1], TOKEN + "x"):
            code, sentence = outcome(cnn, running.address, token=wrong)
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
    path.write_text(f"{TOKEN}\n")
    assert read_token(path) == TOKEN


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_where_plaintext_may_go(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    check_plaintext(host, tls=True, insecure=False)
    check_plaintext(host, tls=False, insecure=True)
    if not loopback:
        with pytest.raises(ValueError, match="without TLS"):
            check_plaintext(host, tls=False, insecure=False)
