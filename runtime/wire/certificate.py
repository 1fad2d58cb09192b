"""How long a certificate is valid: read from its bytes, so that who holds it is told before the other side hangs up.

gRPC tells a client whose certificate was refused only that the server is not available.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

__all__ = ["check_dates", "validity"]

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
VERSION = 0xA0
FORMATS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}  # RFC 5280, 4.1.2.5


def check_dates(pem: bytes, what: str, now: datetime | None = None) -> None:
    """ValueError where the first certificate (the holder's own) is not valid now, or not readable."""
    begins, ends = validity(pem, what)
    now = now or datetime.now(UTC)
    if now > ends:
        raise ValueError(f"{what}: the certificate expired on {ends:%Y-%m-%d %H:%M} UTC")
    if now < begins:
        raise ValueError(f"{what}: the certificate is valid from {begins:%Y-%m-%d %H:%M} UTC on: is the clock right?")


def validity(pem: bytes, what: str) -> tuple[datetime, datetime]:
    """From when to when the first certificate is valid (RFC 5280, 4.1)."""
    found = PEM.search(pem.decode("ascii", errors="replace"))
    if found is None:
        raise ValueError(f"{what}: no certificate in PEM")
    try:
        _, certificate, _ = _read(ssl.PEM_cert_to_DER_cert(found[0]))
        _, rest, _ = _read(certificate)
        if rest[0] == VERSION:
            _, _, rest = _read(rest)
        for _ in ("serial number", "signature's algorithm", "issuer"):
            _, _, rest = _read(rest)
        _, both, _ = _read(rest)
        first, begins, both = _read(both)
        second, ends, _ = _read(both)
        return _moment(first, begins), _moment(second, ends)
    except (ValueError, LookupError) as error:
        raise ValueError(f"{what}: not a readable certificate ({error})") from error


def _read(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and contents of the first value in DER, and what follows it."""
    tag, size, at = data[0], data[1], 2
    if size >= 0x80:  # so many bytes of length follow
        at += size - 0x80
        size = int.from_bytes(data[2:at], "big")
    if len(data) < at + size:
        raise ValueError(f"{size} bytes announced, {len(data) - at} are there")
    return tag, data[at : at + size], data[at + size :]


def _moment(tag: int, text: bytes) -> datetime:
    return datetime.strptime(text.decode("ascii"), FORMATS[tag]).replace(tzinfo=UTC)
