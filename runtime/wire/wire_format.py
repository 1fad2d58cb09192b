"""Bytes to messages. Fields are counted first, because protobuf makes 50 MB of objects of 1 MB of empty fields."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError

from tidesplit.runtime.wire.messages import MAX_PARAMETERS, RefusedError

MAX_FIELDS = MAX_PARAMETERS + 16  # top-level fields of a request: name, version, id, one input, its bytes, parameters
FIXED = {1: 8, 5: 4}  # wire type: bytes of its values
VARINT, BYTES = 0, 2


def parse(kind: Any, data: bytes) -> Any:
    """A message of class `kind`. RefusedError (INVALID_ARGUMENT) where the bytes are none, or have too many fields."""
    try:
        _check_fields(data)
        return kind.FromString(data)
    except (DecodeError, IndexError) as error:
        raise RefusedError(
            grpc.StatusCode.INVALID_ARGUMENT, f"{len(data)} bytes that are no {kind.DESCRIPTOR.name}"
        ) from error


def _check_fields(data: bytes) -> None:
    """Count top-level fields; protobuf checks their contents later. IndexError where a number is cut off."""
    at, fields, end = 0, 0, len(data)
    while at < end:
        tag, at = (data[at], at + 1) if data[at] < 0x80 else _varint(data, at)  # one byte is usual
        wire_type = tag & 7
        if wire_type == BYTES:
            size, at = (data[at], at + 1) if data[at] < 0x80 else _varint(data, at)
            at += size
        elif wire_type == VARINT:
            _, at = _varint(data, at)
        elif wire_type in FIXED:
            at += FIXED[wire_type]
        else:
            raise DecodeError(f"wire type {wire_type}")
        fields += 1
        if fields > MAX_FIELDS:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, f"more than {MAX_FIELDS} fields in one message")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DecodeError("a number of more than ten bytes")
