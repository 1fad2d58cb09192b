"""Sentences of failed calls: gRPC's own details in, one plain sentence out."""

from __future__ import annotations

import pytest

from tidesplit.runtime.wire.reasons import LASTS, reason

CONNECT = "failed to connect to all addresses; last error: "
TLS = "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"
REFUSED = "UNAVAILABLE: Connection refused"
CLOSED = "the connection was closed at once"
# Status, details as gRPC 1.85 words them, the sentence's beginning, and True where waiting does not help.
TABLE = [
    ("UNAVAILABLE", f"{CONNECT}UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused",
     REFUSED, False),
    ("UNAVAILABLE", f"{CONNECT}UNKNOWN: ipv6:%5B::1%5D:1: Failed to connect to remote host: Connection refused",
     REFUSED, False),
    ("UNAVAILABLE", "errors resolving no.such.host.invalid:5: [field:hostname lookup error:address lookup failed for "
     "no.such.host.invalid:5: Domain name not found]",
     "UNAVAILABLE: the server's name cannot be resolved: Domain name not found", False),
    ("UNAVAILABLE", "DNS resolution failed for h:5: C-ares status is not ARES_SUCCESS qtype=A name=h: Timeout",
     "UNAVAILABLE: the server's name cannot be resolved: Timeout", False),
    ("UNAVAILABLE", f"{CONNECT}UNKNOWN: ipv4:10.0.0.7:9: {TLS}CERTIFICATE_VERIFY_FAILED: certificate has expired: OK",
     "UNAVAILABLE: the server's certificate is not accepted: certificate has expired: is this machine's clock right?",
     True),
    ("UNAVAILABLE",
     f"{CONNECT}UNKNOWN: ipv4:10.0.0.7:9: {TLS}CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK",
     "UNAVAILABLE: the server's certificate is not accepted: unable to get local issuer certificate", True),
    ("UNAVAILABLE", f"{CONNECT}UNKNOWN: ipv4:10.0.0.7:9: Custom verification check failed with error: "
     "UNAUTHENTICATED: Hostname Verification Check failed.",
     "UNAVAILABLE: the server's certificate is not accepted: it names another host than the address", True),
    ("UNAVAILABLE", f"{CONNECT}UNKNOWN: ipv4:10.0.0.7:9: {TLS}WRONG_VERSION_NUMBER: Invalid certificate: OK",
     "UNAVAILABLE: the server at this address does not speak TLS", True),
    ("UNAVAILABLE", f"{CONNECT}INTERNAL: ipv4:10.0.0.7:9: Failed parsing HTTP/2 (Expected SETTINGS frame as the first "
     "frame, got frame type 80) (Trying to connect an http1.x server (HTTP status 400))",
     "UNAVAILABLE: the server at this address does not speak gRPC", True),
    ("UNAVAILABLE", f"{CONNECT}UNAVAILABLE: ipv4:127.0.0.1:3: Socket closed", f"UNAVAILABLE: {CLOSED}", False),
    ("UNAVAILABLE", f"{CONNECT}UNAVAILABLE: ipv4:127.0.0.1:3: recvmsg:Connection reset by peer (104)",
     f"UNAVAILABLE: {CLOSED}", False),
    ("UNAVAILABLE", f"{CONNECT}UNKNOWN: ipv4:127.0.0.1:1: getsockopt(SO_ERROR): Connection reset by peer",
     "UNAVAILABLE: Connection reset by peer", False),
    ("UNAVAILABLE", "Socket closed", "UNAVAILABLE: Socket closed", False),
    ("UNAUTHENTICATED", "the bearer token is missing or wrong", "UNAUTHENTICATED: the bearer token is missing", True),
    ("FAILED_PRECONDITION", "weights 'a' received, this server has b", "FAILED_PRECONDITION: weights 'a'", True),
    ("UNIMPLEMENTED", "Method not found!", "UNIMPLEMENTED: Method not found!", True),
    ("RESOURCE_EXHAUSTED", "64 requests are under way", "RESOURCE_EXHAUSTED: 64 requests", False),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", "DEADLINE_EXCEEDED: no answer within the time limit", False),
    ("UNKNOWN", None, "UNKNOWN: no details", False),
    ("INTERNAL", "two\n  lines", "INTERNAL: two lines", False),
]  # fmt: skip


@pytest.mark.parametrize(("code", "details", "begins", "lasts"), TABLE)
def test_reasons(code: str, details: str | None, begins: str, lasts: bool) -> None:
    sentence = reason(code, details)
    assert sentence.startswith(begins)
    assert sentence.endswith(f"({LASTS})") is lasts
    assert "\n" not in sentence


def test_a_long_text_of_a_stranger_is_cut() -> None:
    assert len(reason("INTERNAL", "x" * 10_000)) < 300
