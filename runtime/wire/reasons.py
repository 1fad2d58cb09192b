"""Why a call failed, as one sentence. One fault gives the same text at every attempt, so that it is reported once."""

from __future__ import annotations

import re

MOST_CHARACTERS = 240
LASTS = "waiting does not mend this"
# A refusal of the server that lasts until somebody changes the device or the server.
REFUSALS = {"FAILED_PRECONDITION", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"}
# gRPC's sentence for a connection that failed, without the address, which changes from attempt to attempt.
CONNECTING = re.compile(r"failed to connect to all addresses; last error: [A-Z_]+: (?:\S+:\d+: )?(?P<cause>.*)")
CERTIFICATE = re.compile(r"CERTIFICATE_VERIFY_FAILED: (?P<fault>[^:]+)")
RESOLVING = re.compile(r"(?:errors resolving|DNS resolution failed).*: (?P<fault>[^:\]]+)\]?")
CLOSED = re.compile(r"Socket closed|(?:recvmsg|sendmsg):.*")


def reason(code: str, details: str | None) -> str:
    """A status by name and its details as one sentence, which says where waiting does not help."""
    text = " ".join((details or "").split())
    found = CONNECTING.fullmatch(text)
    text, lasts = _of_connecting(found["cause"]) if found else (text, code in REFUSALS)
    if resolved := RESOLVING.fullmatch(text):
        text = f"the server's name cannot be resolved: {resolved['fault']}"
    elif code == "DEADLINE_EXCEEDED" and text.lower() == "deadline exceeded":
        text = "no answer within the time limit"
    sentence = f"{code}: {text[:MOST_CHARACTERS] or 'no details'}"
    return f"{sentence} ({LASTS})" if lasts else sentence


def lasting(sentence: str) -> bool:
    """True where a sentence of `reason` says that waiting does not help."""
    return sentence.endswith(f"({LASTS})")


def _of_connecting(cause: str) -> tuple[str, bool]:
    """The cause of a failed connection in plain words, and True where waiting does not help."""
    if found := CERTIFICATE.search(cause):
        fault = found["fault"].strip()
        clock = ": is this machine's clock right?" if "expired" in fault or "not yet valid" in fault else ""
        return f"the server's certificate is not accepted: {fault}{clock}", True
    if "Hostname Verification" in cause:
        return "the server's certificate is not accepted: it names another host than the address", True
    if "WRONG_VERSION_NUMBER" in cause:
        return "the server at this address does not speak TLS", True
    if "http1.x server" in cause:
        return "the server at this address does not speak gRPC", True
    if CLOSED.fullmatch(cause):
        return "the connection was closed at once: the server may expect TLS or a client certificate", False
    return cause.removeprefix("Failed to connect to remote host: ").removeprefix("getsockopt(SO_ERROR): "), False
