"""Network addresses as users write them: HOST:PORT, with an IPv6 host in brackets."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

HIGHEST_PORT = 65_535
LABEL = "[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
PATTERN = re.compile(rf"(?:\[(?P<six>[^\[\]]*)\]|(?P<name>{LABEL}(?:\.{LABEL})*\.?)):(?P<port>[0-9]{{1,5}})")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:///?|(?:dns|ipv4|ipv6):(?=.*:)")  # of a URL, or of gRPC's own addresses
NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")  # some programs read such names as IPv4 addresses
ANY_HOST = {"0.0.0.0", "::"}


class Address(NamedTuple):
    """A host, without brackets, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_address(option: str, text: str, least_port: int = 1) -> Address:
    """The address that a user gave for an option. Capitals and surrounding spaces make no difference.

    A `least_port` of 0 is that of an address to listen on, where port 0 is any free port.

    Raises:
        ValueError: one sentence with the option, the text received and the form expected.
    """
    given = text.strip().lower()
    found = PATTERN.fullmatch(given)
    if scheme := SCHEME.match(given):
        expected = f"HOST:PORT without {scheme[0]} expected"
    elif _is_ipv6(given) or _is_ipv6(given.rpartition(":")[0]):
        expected = "an IPv6 address in brackets expected, such as [::1]:50051"
    elif found is None or not (found["name"] or _is_ipv6(found["six"])) or not _in_range(found["port"], least_port):
        ports = f"{least_port} to {HIGHEST_PORT}"
        expected = f"HOST:PORT expected, with a port from {ports}, such as 127.0.0.1:50051"
    elif found["name"] and not _is_sound(found["name"]):
        expected = "an IPv4 address of four numbers from 0 to 255 expected, such as 127.0.0.1:50051"
    elif least_port and (found["name"] or found["six"]) in ANY_HOST:
        expected = "the address of one machine expected: this one is only for listening"
    else:
        return Address(found["name"] or found["six"], int(found["port"]))
    raise ValueError(f"{option} {text}: {expected}")


def read_host(option: str, text: str) -> str:
    """The host to listen on that a user gave for an option. An IPv6 address may be in brackets or not.

    Raises:
        ValueError: one sentence with the option, the text received and the form expected.
    """
    given = text.strip().lower()
    bare = given[1:-1] if given.startswith("[") and given.endswith("]") else given
    if _is_ipv6(bare):
        return bare
    try:
        return read_address(option, f"{given}:1", least_port=0).host
    except ValueError:
        expected = "a host without port and scheme expected, such as 127.0.0.1"
        raise ValueError(f"{option} {text}: {expected}") from None


def is_loopback(host: str) -> bool:
    """True where only this machine can reach the host."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
    return bool((getattr(address, "ipv4_mapped", None) or address).is_loopback)


def _in_range(port: str, least: int) -> bool:
    return least <= int(port) <= HIGHEST_PORT


def _is_sound(name: str) -> bool:
    """False for a name that ends in a number but is no IPv4 address of four."""
    return NUMERIC.fullmatch(name) is None or _is_ipv4(name)


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
