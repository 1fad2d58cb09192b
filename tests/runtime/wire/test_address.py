"""Addresses as users write them: accepted and refused, as tables."""

from __future__ import annotations

import re

import pytest

from tidesplit.runtime.wire.address import Address, is_loopback, read_address, read_host

GOOD = [
    ("localhost:50051", Address("localhost", 50051), "localhost:50051"),
    ("127.0.0.1:1", Address("127.0.0.1", 1), "127.0.0.1:1"),
    ("Server-2.Example.ORG:65535", Address("server-2.example.org", 65535), "server-2.example.org:65535"),
    ("  LOCALHOST:9000\n", Address("localhost", 9000), "localhost:9000"),
    ("[::1]:50051", Address("::1", 50051), "[::1]:50051"),
    ("localhost.:50051", Address("localhost.", 50051), "localhost.:50051"),
    ("pi_4.local:50051", Address("pi_4.local", 50051), "pi_4.local:50051"),
    ("dns:50051", Address("dns", 50051), "dns:50051"),
    ("[FE80::1%eth0]:80", Address("fe80::1%eth0", 80), "[fe80::1%eth0]:80"),
]

EXPECTED = "HOST:PORT expected, with a port from 1 to 65535, such as 127.0.0.1:50051"
FOUR = "an IPv4 address of four numbers from 0 to 255 expected, such as 127.0.0.1:50051"
LISTEN = "the address of one machine expected: this one is only for listening"
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
    (" grpc+tls://h:1", "HOST:PORT without grpc+tls:// expected"),
    ("dns:///localhost:50051", "HOST:PORT without dns:/// expected"),
    ("dns:localhost:50051", "HOST:PORT without dns: expected"),
    ("ipv4:127.0.0.1:50051", "HOST:PORT without ipv4: expected"),
    ("ipv6:[::1]:50051", "HOST:PORT without ipv6: expected"),
    ("unix:/run/socket", EXPECTED),
    ("localhost:50051/", EXPECTED),
    ("http:/localhost:50051", EXPECTED),
    ("localhost:50051,localhost:50052", EXPECTED),
    ("pi@host:22", EXPECTED),
    ("-h:1", EXPECTED),
    ("a..b:1", EXPECTED),
    ("bücher.example:1", EXPECTED),
    ("１２７.0.0.1:1", EXPECTED),
    ("127.1:50051", FOUR),
    ("127.0.0.1.:50051", FOUR),
    ("127.0.0.01:50051", FOUR),
    ("256.0.0.1:50051", FOUR),
    ("2130706433:50051", FOUR),
    ("0x7f.1:50051", FOUR),
    ("0.0.0.0:50051", LISTEN),
    ("[::]:50051", LISTEN),
    ("fe80::1%eth0:50051", BRACKETS),
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


@pytest.mark.parametrize("text", [text for text, _ in BAD])
def test_no_wrong_address_comes_so_far_that_plaintext_is_advised(text: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        read_address("--server", text)
    assert "insecure" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "host"),
    [("localhost", "localhost"), (" 0.0.0.0 ", "0.0.0.0"), ("::", "::"), ("[::1]", "::1"), ("Pi.Local", "pi.local")],
)
def test_hosts_to_listen_on(text: str, host: str) -> None:
    assert read_host("--host", text) == host


@pytest.mark.parametrize("text", ["", "http://localhost", "localhost:50051", "127.1", "a b", "[localhost]", "h/"])
def test_a_wrong_host_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=f"--host {re.escape(text)}: a host without port and scheme expected"):
        read_host("--host", text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True), ("LocalHost", True),
     ("localhost.", True), ("::ffff:127.0.0.1", True), ("::ffff:10.0.0.1", False), ("127.1", False),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_hosts_that_only_this_machine_can_reach(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
