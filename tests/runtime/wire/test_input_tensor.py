"""Payloads as any client of the Open Inference Protocol may send them: raw or listed, numbers or bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidesplit.runtime.wire.input_tensor import read_payload
from tidesplit.runtime.wire.messages import RefusedError
from tidesplit.runtime.wire.protocol import MESSAGES


def request(datatype: str, shape: list[int], raw: list[bytes] | None = None, **contents: Any) -> Any:
    message = MESSAGES["ModelInferRequest"](raw_input_contents=raw or [])
    message.inputs.add(name="payload", datatype=datatype, shape=shape, contents=contents)
    return message


def element(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


@given(st.binary(min_size=1, max_size=300))
def test_every_form_holds_the_same_bytes(data: bytes) -> None:
    size = len(data)
    for message in (
        request("UINT8", [size], [data]),
        request("UINT8", [1, size], [data]),
        request("UINT8", [size], uint_contents=data),
        request("UINT8", [1, size], uint_contents=data),
        request("UINT8", [size], bytes_contents=[data]),
        request("BYTES", [1], [element(data)]),
        request("BYTES", [1, 1], [element(data)]),
        request("BYTES", [1], bytes_contents=[data]),
    ):
        assert read_payload(message, 300) == data


WRONG = [
    (request("UINT8", [2], [b"ab"], uint_contents=b"ab"), "raw_input_contents and contents received, expected one of"),
    (request("UINT8", [2], [b"ab"], bytes_contents=[]), None),  # an empty list is none
    (request("UINT8", [2]), "0 raw_input_contents and 0 contents, expected one of either"),
    (request("UINT8", [2], uint_contents=b"ab", bytes_contents=[b"ab"]), "0 raw_input_contents and 2 contents"),
    (request("UINT8", [2], int_contents=[1, 2]), "int_contents of a UINT8 tensor, expected raw_input_contents, uint"),
    (request("BYTES", [1], uint_contents=[1]), "uint_contents of a BYTES tensor, expected"),
    (request("UINT8", [2], uint_contents=[1, 256]), "a number above 255 in uint_contents"),
    (request("UINT8", [3], uint_contents=[1, 2]), r"shape \[3\] with 2 bytes, expected \[2\] or \[1, 2\]"),
    (request("UINT8", [2, 1], [b"ab"]), "batch of 2 received, one frame a request expected"),
    (request("UINT8", [2, 5], [b"0123456789"]), "batch of 2 received, one frame a request expected"),
    (request("BYTES", [2], bytes_contents=[b"a", b"b"]), "2 elements in bytes_contents, expected one: one frame a req"),
    (request("BYTES", [2], [element(b"a") + element(b"b")]), r"shape \[2\] with 1 element, expected \[1\]"),
    (
        request("BYTES", [1], [element(b"a") + element(b"b")]),
        "10 raw bytes of one element that says 1, expected 4 more",
    ),
    (request("BYTES", [1], [b"abc"]), "3 raw bytes of one element that says"),
    (request("BYTES", [1], bytes_contents=[b""]), "payload of 0 bytes, expected 1 to 300"),
    (request("UINT8", [301], uint_contents=bytes(301)), "payload of 301 bytes, expected 1 to 300"),
]


@pytest.mark.parametrize(("message", "sentence"), WRONG)
def test_wrong_contents_are_refused_in_one_sentence(message: Any, sentence: str | None) -> None:
    if sentence is None:
        assert read_payload(message, 300) == b"ab"
        return
    with pytest.raises(RefusedError, match=sentence) as caught:
        read_payload(message, 300)
    assert caught.value.code.name == "INVALID_ARGUMENT"


def test_shared_memory_is_refused_by_name() -> None:
    message = request("UINT8", [2], [b"ab"])
    message.inputs[0].parameters["shared_memory_region"].string_param = "frames"
    with pytest.raises(RefusedError, match="input with 'shared_memory_region': shared memory is not supported"):
        read_payload(message, 300)
