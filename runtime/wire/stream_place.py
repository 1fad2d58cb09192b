"""A payload's place in a stream, in a request's parameters:

stream      text "DEVICE/NAME": an id that the device drew when it started, and the stream's name
sequence    number of this payload in its stream, from 0
reference   number of the payload that this one is relative to; absent in a key
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidesplit.compression.codec.knobs import stream_of
from tidesplit.runtime.wire.refusals import expect, short

__all__ = ["DEVICE_METADATA", "StreamPlace", "put_place", "read_place"]

DEVICE_METADATA = "tidesplit-device"  # by it a balancer can keep a device's calls at one server
NAMED = re.compile(r"(?P<device>[A-Za-z0-9_.-]{1,64})/(?P<name>[a-z0-9-]{1,40})")
KEYS = ("sequence", "reference")


@dataclass(frozen=True)
class StreamPlace:
    """The place of one payload. `reference` is None in a key. A device leaves its own id to its client."""

    name: str
    sequence: int
    reference: int | None = None
    device: str = ""

    @property
    def key(self) -> bool:
        """True where the payload is complete by itself."""
        return self.reference is None


def put_place(message: Any, place: StreamPlace) -> None:
    """Write the place into the parameters of a request."""
    message.parameters["stream"].string_param = f"{place.device}/{place.name}"
    message.parameters["sequence"].int64_param = place.sequence
    if place.reference is not None:
        message.parameters["reference"].int64_param = place.reference


def read_place(stream: str, parameters: Mapping[str, Any], partition: int) -> StreamPlace | None:
    """The place in a request of this partition; None where `stream` is empty.

    Raises:
        RefusedError: INVALID_ARGUMENT, where it is incomplete, or no such payload can be.
    """
    if not stream:
        expect(not any(key in parameters for key in KEYS), "parameter 'sequence' or 'reference' without 'stream'")
        return None
    found = NAMED.fullmatch(stream)
    expect(found is not None, f"stream {short(stream)}, expected DEVICE/NAME")
    assert found is not None
    name, sequence = found["name"], _number(parameters, "sequence")
    expect(_sends(name, partition), f"stream {short(name)} at partition {partition}: there is none of this name")
    if "reference" not in parameters:
        return StreamPlace(name, sequence, None, found["device"])
    reference = _number(parameters, "reference")
    expect(reference < sequence, f"reference {reference} of payload {sequence}, an earlier one expected")
    return StreamPlace(name, sequence, reference, found["device"])


def _sends(name: str, partition: int) -> bool:
    """True where payloads of this partition may be in a stream of this name."""
    return stream_of(name) == name if partition == 0 else name == f"p{partition}"


def _number(parameters: Mapping[str, Any], key: str) -> int:
    given = key in parameters and parameters[key].WhichOneof("parameter_choice") == "int64_param"
    value = int(parameters[key].int64_param) if given else -1
    expect(value >= 0, f"parameter {key!r} is no whole number from 0")
    return value
