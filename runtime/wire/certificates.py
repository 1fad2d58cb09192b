"""Certificates in PEM: their dates and kinds are checked before a program starts, not at every handshake."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
NAMES = {use: f"{holder}Auth" for holder, use in PURPOSES.items()}
Kind = TypeVar("Kind", x509.ExtendedKeyUsage, x509.KeyUsage)


def check_holder(pem: bytes, what: str, holder: str, now: datetime | None = None) -> None:
    """Check a chain, the holder's own certificate first. `holder` is "server" or "client".

    Raises:
        ValueError: a certificate is not valid at `now`, by default the present, or the first is not for this use.
    """
    check_dates(pem, what, now)
    uses = _extension(pem, what, x509.ExtendedKeyUsage)
    if uses is not None and PURPOSES[holder] not in uses:
        names = ", ".join(NAMES.get(use, use.dotted_string) for use in uses)
        raise ValueError(f"{what}: a certificate for {names} received, one for {holder}Auth expected")
    key = _extension(pem, what, x509.KeyUsage)
    if key is not None and not key.digital_signature:
        raise ValueError(f"{what}: the certificate's key usage lacks digitalSignature, which TLS needs")


def is_for(pem: bytes, what: str, holder: str) -> bool:
    """True where a certificate may be used by a "server" or "client". Public authorities sign for servers only."""
    uses = _extension(pem, what, x509.ExtendedKeyUsage)
    return uses is None or PURPOSES[holder] in uses


def check_dates(pem: bytes, what: str, now: datetime | None = None) -> None:
    """Check that each certificate of a chain is valid at `now`, by default the present.

    Raises:
        ValueError: one is not valid then, or cannot be read.
    """
    for place, certificate in enumerate(_read(pem, what)):
        if fault := _fault(certificate, now or datetime.now(UTC)):
            owner = "" if place == 0 else f" of {certificate.subject.rfc4514_string()} in the chain"
            raise ValueError(f"{what}: the certificate{owner} {fault}")


def check_authorities(pem: bytes, what: str, now: datetime | None = None) -> None:
    """Check that at least one of several authorities is valid at `now`. A system's bundle holds outdated ones too.

    Raises:
        ValueError: none is valid then, or one cannot be read.
    """
    faults = [_fault(certificate, now or datetime.now(UTC)) for certificate in _read(pem, what)]
    if all(faults):
        raise ValueError(f"{what}: the authority's certificate {faults[0]}")


def _extension(pem: bytes, what: str, kind: type[Kind]) -> Kind | None:
    """An extension of the holder's own certificate, None where it has none of that kind."""
    try:
        return _read(pem, what)[0].extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except ValueError as error:
        raise ValueError(f"{what}: the certificate's extensions cannot be read ({error})") from error


def _read(pem: bytes, what: str) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ValueError(f"{what}: not a readable certificate in PEM ({error})") from error


def _fault(certificate: x509.Certificate, now: datetime) -> str:
    """The reason why a certificate is not valid at `now`, empty where it is."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends:
        return f"expired on {ends:%Y-%m-%d %H:%M} UTC"
    return f"is valid from {begins:%Y-%m-%d %H:%M} UTC on: is the clock right?" if now < begins else ""
