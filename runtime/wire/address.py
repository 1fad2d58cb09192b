"""Network addresses as users write them: HOST:PORT, with an IPv6 host in brackets."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

__all__ = ["Address", "is_loopback", "read_address"]

HIGHEST_PORT = 65_535
PATTERN = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<name>[^\s:/\[\]]+)):(?P<port>[0-9]{1,5})")


class Address(NamedTuple):
    """A host, without brackets, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_address(option: str, text: str, least_port: int = 1) -> Address:
    """The address that a user gave for an option. Capitals and surrounding spaces make no difference.

    Raises:
        ValueError: one sentence with the option, the text received and the form expected.
    """
    given = text.strip().lower()
    found = PATTERN.fullmatch(given)
    if found and least_port <= int(found["port"]) <= HIGHEST_PORT and (found["name"] or _is_ipv6(found["six"])):
        return Address(found["name"] or found["six"], int(found["port"]))
    if "://" in given:
        expected = f"HOST:PORT without {given.partition('://')[0]}:// expected"
    elif _is_ipv6(given) or _is_ipv6(given.rpartition(":")[0]):
        expected = "an IPv6 address in brackets expected, such as [::1]:50051"
    else:
        ports = f"{least_port} to {HIGHEST_PORT}"
        expected = f"HOST:PORT expected, with a port from {ports}, such as 127.0.0.1:50051"
    raise ValueError(f"{option} {text}: {expected}")


def is_loopback(host: str) -> bool:
    """True where only this machine can reach the host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
