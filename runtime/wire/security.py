"""TLS, mutual TLS and bearer tokens, for both sides; plaintext only where no other machine can read it.

`wire.certificates` is imported where there is a certificate: without it a device needs 8 MiB less.
"""

from __future__ import annotations

import codecs
import hashlib
import hmac
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from tidesplit.runtime.wire.address import is_loopback
from tidesplit.runtime.wire.protocol import CLIENT_OPTIONS

MIN_TOKEN, MAX_TOKEN = 16, 4096  # characters: 16 hexadecimal ones are 64 bits; headers have 16 KiB in all
Value = TypeVar("Value")
HEALTH = "/grpc.health."  # load balancers ask for it and hold no token


@dataclass(frozen=True)
class Credentials:
    """A client's proof of who it is. `tls` holds gRPC's channel credentials, None for plaintext.

    `renewed` returns newer credentials after their files have changed, else None. `fault` returns the reason why the
    client's own certificate is not valid now, empty where it is.
    """

    tls: Any = None
    token: str = ""
    renewed: Callable[[], Credentials | None] = field(default=lambda: None, compare=False)
    fault: Callable[[], str] = field(default=lambda: "", compare=False)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata that every call carries."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def channel(self, library: Any, address: str) -> Any:
        """A channel to HOST:PORT. `library` is `grpc` or `grpc.aio`."""
        options = list(CLIENT_OPTIONS)
        if self.tls is None:
            return library.insecure_channel(address, options)
        return library.secure_channel(address, self.tls, options)


def client_credentials(
    ca: Path | None, cert: Path | None = None, key: Path | None = None, token: str = "", ca_option: str = "--tls-ca"
) -> Credentials:
    """Credentials from files: TLS where `ca`, the server's authority, is given, and plaintext elsewhere.

    Raises:
        ValueError: a file cannot be used, or a certificate is not valid now or not for clients. gRPC would report
            such a certificate only as a server that is not available.
    """
    if ca is None:
        return Credentials(None, token)
    roots = _authority(ca, ca_option)
    if cert is None or key is None:
        return Credentials(grpc.ssl_channel_credentials(roots), token)
    from tidesplit.runtime.wire.certificates import check_dates

    chain, secret = _pair(cert, key, "client")

    def fault() -> str:
        try:
            check_dates(chain, f"--tls-cert {cert}")
        except ValueError as error:
            return str(error)
        return ""

    return Credentials(grpc.ssl_channel_credentials(roots, secret, chain), token, fault=fault)


def presentable(cert: Path | None) -> bool:
    """True where a server's own certificate may also prove to the next server who this one is."""
    from tidesplit.runtime.wire.certificates import is_for

    return cert is not None and is_for(_read(cert, "--tls-cert"), f"--tls-cert {cert}", "client")


def server_credentials(cert: Path, key: Path, client_ca: Path | None) -> Any:
    """The server's side of TLS. With `client_ca`, clients need a certificate of that authority.

    Files that change while the server runs are taken from the next connection on.

    Raises:
        ValueError: a file cannot be used, or a certificate is not valid now or not for this use.
    """

    def read() -> Any:
        chain, secret = _pair(cert, key, "server")
        roots = None if client_ca is None else _authority(client_ca, "--client-ca")
        return grpc.ssl_server_certificate_configuration([(secret, chain)], roots)

    files = Renewed((cert, key, client_ca), read)
    return grpc.dynamic_ssl_server_credentials(read(), files.changed, client_ca is not None)


class Renewed(Generic[Value]):
    """Files that are read again after a change, by `read`, which raises ValueError where they cannot be used."""

    def __init__(self, files: Sequence[Path | None], read: Callable[[], Value]) -> None:
        self._files, self._read = files, read
        self._seen = self._times()

    def changed(self) -> Value | None:
        """What was read anew; None where nothing changed or the new files cannot be used."""
        now = self._times()
        if now == self._seen:
            return None
        self._seen = now
        try:
            return self._read()
        except ValueError as error:
            logging.getLogger(__name__).warning("the security files in use stay: %s", error)
            return None

    def _times(self) -> list[int]:
        """When each file was last changed, 0 for one that is missing."""
        return [file.stat().st_mtime_ns if file is not None and file.exists() else 0 for file in self._files]


def check_plaintext(option: str, host: str, tls: bool, insecure: bool, remedy: str) -> None:
    """Refuse plaintext that others could read, unless the user asked for it.

    Raises:
        ValueError: there is no TLS, and the host is another machine or reachable from one.
    """
    if not (tls or insecure or is_loopback(host)):
        raise ValueError(
            f"{option} {host} without TLS would send pictures and tokens in the clear: give {remedy}, or --insecure"
        )


def read_token(path: Path) -> str:
    """The bearer token in a file: one word on one line.

    Raises:
        ValueError: the file cannot be read, or holds no such word.
    """
    try:
        token = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--token-file {path}: not a readable ASCII file ({error})") from error
    if not MIN_TOKEN <= len(token) <= MAX_TOKEN or any(not "!" <= c <= "~" for c in token):
        raise ValueError(
            f"--token-file {path}: one word of {MIN_TOKEN} to {MAX_TOKEN} characters expected; "
            "openssl rand -hex 32 makes one"
        )
    return token


class TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Refuses calls without `authorization: Bearer TOKEN`, except health checks. Calls `refused` for each."""

    def __init__(self, token: str, refused: Callable[[], None] = lambda: None) -> None:
        self._digest = _digest(f"Bearer {token}")
        self._refused = refused
        self._refusal = grpc.unary_unary_rpc_method_handler(self._refuse)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The handler asked for, or one that refuses."""
        if details.method.startswith(HEALTH):
            return await continuation(details)
        given = [value for key, value in details.invocation_metadata or () if key == "authorization"]
        # Digests of equal length are compared, in constant time: neither content nor length of the token leaks.
        right = len(given) == 1 and hmac.compare_digest(_digest(str(given[0])), self._digest)
        return await continuation(details) if right else self._refusal

    async def _refuse(self, _request: Any, context: Any) -> None:
        self._refused()
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED, "the bearer token is missing or wrong: give the server's --token-file"
        )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _pair(cert: Path, key: Path, holder: str) -> tuple[bytes, bytes]:
    """A certificate chain of a "server" or "client" and its private key, both PEM."""
    from tidesplit.runtime.wire.certificates import check_holder

    chain, secret = _read(cert, "--tls-cert"), _read(key, "--tls-key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: b"")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ValueError(f"--tls-cert {cert} and --tls-key {key} are no PEM pair ({error})") from error
    check_holder(chain, f"--tls-cert {cert}", holder)
    return chain, secret


def _authority(path: Path, option: str) -> bytes:
    from tidesplit.runtime.wire.certificates import check_authorities

    data = _read(path, option)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{option} {path}: no certificates in PEM ({error})") from error
    check_authorities(data, f"{option} {path}")
    return data


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{option} {path}: not a readable file ({error.strerror})") from error
