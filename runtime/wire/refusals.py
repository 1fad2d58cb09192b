"""A server's refusal of a request: a gRPC status, and a sentence for the sender."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

PUSHBACK = "grpc-retry-pushback-ms"  # gRPC's own name, in the metadata behind a refusal
MOST_PUSHBACK_S, MOST_DIGITS = 60.0, 9  # no server shall silence a device for longer
REFERENCE_UNKNOWN, NO_VIDEO = "reference unknown", "no video here"  # how the details of such refusals begin


class RefusedError(ValueError):
    """A request that the server refuses: a gRPC status, and a sentence for the sender.

    `pushback_s` is the time for which the sender shall not ask again. `limit` names the limit that was reached, if any.
    """

    def __init__(self, code: grpc.StatusCode, sentence: str, limit: str = "", pushback_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.code, self.limit, self.pushback_s = code, limit, pushback_s

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata that follows the refusal."""
        return ((PUSHBACK, f"{1e3 * self.pushback_s:.0f}"),) if self.pushback_s else ()


def malformed(sentence: str) -> RefusedError:
    """The refusal (INVALID_ARGUMENT) of a request that has a mistake in it."""
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, sentence)


def expect(holds: bool, sentence: str) -> None:
    """RefusedError (INVALID_ARGUMENT) unless `holds`. Its sentence is made each time: most requests never need it."""
    if not holds:
        raise malformed(sentence)


def short(text: str) -> str:
    """A stranger's text, quoted and cut to 40 characters."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def read_pushback_s(metadata: Iterable[tuple[str, Any]] | None) -> float:
    """The pause that a refusal's metadata asks for, 0 where it asks for none that could be meant."""
    text = next((str(value) for key, value in metadata or () if key == PUSHBACK), "")
    known = text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
    return min(1e-3 * int(text), MOST_PUSHBACK_S) if known else 0.0


def reference_unknown(sentence: str) -> RefusedError:
    """The refusal (ABORTED) of a payload whose reference this server lacks. A key would be taken."""
    return RefusedError(grpc.StatusCode.ABORTED, f"{REFERENCE_UNKNOWN}: {sentence}")


def no_video(sentence: str) -> RefusedError:
    """The refusal (UNIMPLEMENTED) of video by a server that has no decoder for it. It takes everything else."""
    return RefusedError(grpc.StatusCode.UNIMPLEMENTED, f"{NO_VIDEO}: {sentence}")


def lacks_video(code: str, details: str | None) -> bool:
    """True where a status is the refusal of `no_video`."""
    return code == grpc.StatusCode.UNIMPLEMENTED.name and (details or "").startswith(NO_VIDEO)


def lacks_reference(code: str, details: str | None) -> bool:
    """True where a status is the refusal of `reference_unknown`."""
    return code == grpc.StatusCode.ABORTED.name and (details or "").startswith(REFERENCE_UNKNOWN)
