"""Who may ask, and over what: TLS, mutual TLS, bearer token; plaintext only where nobody can listen in."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

__all__ = ["TokenCheck", "check_plaintext", "client_credentials", "is_loopback", "read_token", "server_credentials"]

MIN_TOKEN, MAX_TOKEN = 16, 4096  # characters: 16 hexadecimal ones are 64 bits; headers have 16 KiB in all
HEALTH = "/grpc.health."  # load balancers ask for it and hold no token


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_plaintext(host: str, tls: bool, insecure: bool) -> None:
    """ValueError for plaintext that others could read, unless it was asked for."""
    if not (tls or insecure or is_loopback(host)):
        raise ValueError(
            f"--host {host} without TLS would send pictures and tokens in the clear: "
            "give --tls-cert and --tls-key, or say --insecure"
        )


def read_token(path: Path) -> str:
    """The bearer token in a file: one line."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--token-file {path}: not a readable ASCII file ({error})") from error
    if not MIN_TOKEN <= len(token) <= MAX_TOKEN or any(not "!" <= c <= "~" for c in token):
        raise ValueError(
            f"--token-file {path}: one word of {MIN_TOKEN} to {MAX_TOKEN} characters expected; "
            "openssl rand -hex 32 makes one"
        )
    return token


def server_credentials(cert: Path, key: Path, client_ca: Path | None) -> Any:
    """The server's side of TLS; with `client_ca` clients need its certificates. ValueError says why not."""
    chain, secret = _read(cert, "--tls-cert"), _read(key, "--tls-key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: b"")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ValueError(f"--tls-cert {cert} and --tls-key {key} are no PEM pair ({error})") from error
    roots = None if client_ca is None else _authority(client_ca, "--client-ca")
    return grpc.ssl_server_credentials([(secret, chain)], roots, require_client_auth=roots is not None)


def client_credentials(ca: Path, cert: Path | None = None, key: Path | None = None) -> Any:
    """The client's side of TLS: the authority it trusts, and its own certificate where the server wants one."""
    return grpc.ssl_channel_credentials(
        _authority(ca, "the server's authority"),
        None if key is None else _read(key, "the client's key"),
        None if cert is None else _read(cert, "the client's certificate"),
    )


def _authority(path: Path, what: str) -> bytes:
    data = _read(path, what)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{what} {path}: no certificates in PEM ({error})") from error
    return data


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{what} {path}: not a readable file ({error.strerror})") from error


class TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Refuses calls without `authorization: Bearer TOKEN`. Health checks pass."""

    def __init__(self, token: str, refused: Callable[[], None] = lambda: None) -> None:
        self._digest = _digest(f"Bearer {token}")
        self._told = refused
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
        self._told()
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED, "the bearer token is missing or wrong: give the server's --token-file"
        )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
