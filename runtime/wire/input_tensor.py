"""The payload in a request's single input. It comes as raw bytes or as typed contents, as any client may send them."""

from __future__ import annotations

from typing import Any

from tidesplit.runtime.wire.refusals import expect, short

INPUT = "payload"
SHARED_MEMORY = "shared_memory_region"
LENGTH_BYTES = 4  # in front of each element of a raw BYTES tensor, little endian


def read_payload(message: Any, limit: int) -> bytes:
    """The bytes of the single input, copied only after all counts and sizes are checked.

    A tensor of UINT8 has the shape `[bytes]` or `[1, bytes]`; one of BYTES has one element, `[1]` or `[1, 1]`.
    """
    return _usual(message, limit) or _any_form(message, limit)


def _usual(message: Any, limit: int) -> bytes:
    """The bytes in a device's form, raw of the shape `[bytes]`. Empty where the form is another one, or none."""
    if len(message.inputs) != 1 or len(message.raw_input_contents) != 1:
        return b""
    tensor, raw = message.inputs[0], message.raw_input_contents[0]
    usual = tensor.name == INPUT and tensor.datatype == "UINT8" and tensor.shape == [len(raw)]
    plain = not (tensor.parameters or tensor.HasField("contents"))
    return raw if usual and plain and len(raw) <= limit else b""


def _any_form(message: Any, limit: int) -> bytes:
    expect(len(message.inputs) == 1, f"{len(message.inputs)} inputs, expected one, {INPUT!r}")
    tensor = message.inputs[0]
    expect(tensor.name == INPUT, f"input {short(tensor.name)}, expected {INPUT!r}")
    refuse_shared_memory(tensor.parameters, "input")
    known = tensor.datatype in ("UINT8", "BYTES")
    expect(known, f"input of datatype {short(tensor.datatype)}, expected 'UINT8' or 'BYTES'")
    raw, contents = len(message.raw_input_contents), [kind.name for kind, _ in tensor.contents.ListFields()]
    expect(not (raw and contents), "raw_input_contents and contents received, expected one of them")
    expect(raw + len(contents) == 1, f"{raw} raw_input_contents and {len(contents)} contents, expected one of either")
    data = message.raw_input_contents[0] if raw else _listed(tensor, contents[0])
    if tensor.datatype == "BYTES":
        _check_shape(tensor, 1, "element")
        data = _element(data) if raw else data
    else:
        _check_shape(tensor, len(data), "bytes")
    expect(1 <= len(data) <= limit, f"payload of {len(data)} bytes, expected 1 to {limit}")
    return _bytes(data)


def refuse_shared_memory(parameters: Any, owner: str) -> None:
    """RefusedError where a tensor's parameters name shared memory. Ignored, it would leave old bytes for an answer."""
    expect(SHARED_MEMORY not in parameters, f"{owner} with {SHARED_MEMORY!r}: shared memory is not supported")


def _listed(tensor: Any, kind: str) -> Any:
    """Typed contents: numbers of a UINT8 tensor, or one element of bytes."""
    found = getattr(tensor.contents, kind)
    numbers = kind == "uint_contents" and tensor.datatype == "UINT8"
    expect(
        numbers or kind == "bytes_contents",
        f"{kind} of a {tensor.datatype} tensor, expected raw_input_contents, uint_contents (UINT8) or bytes_contents",
    )
    expect(numbers or len(found) == 1, f"{len(found)} elements in {kind}, expected one: one frame a request")
    return found if numbers else found[0]


def _check_shape(tensor: Any, size: int, unit: str) -> None:
    shape = list(tensor.shape[:4])
    batch = len(shape) == 2 and shape[0] > 1
    expect(not batch, f"batch of {shape[0] if batch else 1} received, one frame a request expected")
    expect(shape in ([size], [1, size]), f"shape {shape} with {size} {unit}, expected [{size}] or [1, {size}]")


def _element(raw: bytes) -> bytes:
    """The only element of a raw BYTES tensor."""
    size = int.from_bytes(raw[:LENGTH_BYTES], "little")
    expect(
        len(raw) == LENGTH_BYTES + size,
        f"{len(raw)} raw bytes of one element that says {size}, expected 4 more than it",
    )
    return raw[LENGTH_BYTES:]


def _bytes(data: Any) -> bytes:
    try:
        return bytes(data)
    except ValueError:
        expect(False, "a number above 255 in uint_contents of a UINT8 tensor")
        raise
