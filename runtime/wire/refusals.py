"""A server's refusal of a request: a gRPC status, and a sentence for the sender."""

from __future__ import annotations

import grpc

REFERENCE_UNKNOWN = "reference unknown"  # how the details of such a refusal begin


class RefusedError(ValueError):
    """A request that the server refuses: a gRPC status, and a sentence for the sender."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def expect(holds: bool, sentence: str) -> None:
    """RefusedError (INVALID_ARGUMENT) unless `holds`."""
    if not holds:
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, sentence)


def short(text: str) -> str:
    """A stranger's text, quoted and cut to 40 characters."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def reference_unknown(sentence: str) -> RefusedError:
    """The refusal (ABORTED) of a payload whose reference this server lacks. A key would be taken."""
    return RefusedError(grpc.StatusCode.ABORTED, f"{REFERENCE_UNKNOWN}: {sentence}")


def lacks_reference(code: str, details: str | None) -> bool:
    """True where a status is the refusal of `reference_unknown`."""
    return code == grpc.StatusCode.ABORTED.name and (details or "").startswith(REFERENCE_UNKNOWN)
