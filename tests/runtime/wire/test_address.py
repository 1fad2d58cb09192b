"""Addresses as users write them: accepted and refused, as tables."""

from __future__ import annotations

import pytest

from tidesplit.runtime.wire.address import Address, is_loopback, read_address

GOOD = [
    ("localhost:50051", Address("localhost", 50051), "localhost:50051"),
    ("127.0.0.1:1", Address("127.0.0.1", 1), "127.0.0.1:1"),
    ("Server-2.Example.ORG:65535", Address("server-2.example.org", 65535), "server-2.example.org:65535"),
    ("  LOCALHOST:9000\n", Address("localhost", 9000), "localhost:9000"),
    ("[::1]:50051", Address("::1", 50051), "[::1]:50051"),
    ("[FE80::1%eth0]:80", Address("fe80::1%eth0", 80), "[fe80::1%eth0]:80"),
]

EXPECTED = "HOST:PORT expected, with a port from 1 to 65535, such as 127.0.0.1:50051"
BRACKETS = "an IPv6 address in brackets expected, such as [::1]:50051"
BAD = [
    ("", EXPECTED),
    ("localhost", EXPECTED),
    ("localhost:", EXPECTED),
    (":50051", EXPECTED),
    ("localhost:0", EXPECTED),
    ("localhost:65536", EXPECTED),
    ("localhost:999999999", EXPECTED),
    ("localhost:-1", EXPECTED),
    ("localhost:٣", EXPECTED),
    ("local host:1", EXPECTED),
    ("host/path:1", EXPECTED),
    ("host:1/path", EXPECTED),
    ("a:b:1", EXPECTED),
    ("[localhost]:1", EXPECTED),
    ("[]:1", EXPECTED),
    ("[::1]", EXPECTED),
    ("::1:50051", BRACKETS),
    ("2001:db8::7", BRACKETS),
    ("http://localhost:50051", "HOST:PORT without http:// expected"),
    ("HTTPS://example.org", "HOST:PORT without https:// expected"),
]


@pytest.mark.parametrize(("text", "address", "written"), GOOD)
def test_addresses_are_read(text: str, address: Address, written: str) -> None:
    assert read_address("--server", text) == address
    assert str(address) == written


@pytest.mark.parametrize(("text", "expected"), BAD)
def test_a_wrong_address_is_one_sentence(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        read_address("--server", text)
    assert str(caught.value) == f"--server {text}: {expected}"


def test_port_0_where_any_free_port_will_do() -> None:
    assert read_address("--listen", "127.0.0.1:0", least_port=0) == Address("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True), ("LocalHost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_hosts_that_only_this_machine_can_reach(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
