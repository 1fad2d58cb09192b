"""Requests, built and read by the same functions on both sides.

A request carries one payload: the codec's bytes, or a JPEG or WebP picture at partition 0. It names a model,
`CNN-pPARTITION`, and a version, see `Cnn.version`. A probe carries bytes without meaning. Counts and sizes are checked
before anything is allocated. `runtime.wire.answers` has the answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from tidesplit.compression.codec.knobs import PASSED_ON, Knobs, read_knobs
from tidesplit.runtime.wire.input_tensor import INPUT, read_payload, refuse_shared_memory
from tidesplit.runtime.wire.output_tensors import OUTPUT, AnswerForm
from tidesplit.runtime.wire.protocol import MAX_MESSAGE_BYTES, MESSAGES
from tidesplit.runtime.wire.refusals import RefusedError, expect, malformed, short
from tidesplit.runtime.wire.stream_place import StreamPlace, put_place, read_place

__all__ = [
    "INPUT", "MAX_FEATURE_BYTES", "MAX_PARAMETERS", "MAX_PROBE_BYTES", "MAX_TEXT_CHARACTERS", "OUTPUT", "PROBE",
    "RefusedError", "Request", "build_probe", "build_request", "check_version", "model_name", "model_partition",
    "read_point", "read_probe", "read_request", "short",
]  # fmt: skip

PROBE = "probe"
CLASSIFICATION = "classification"  # Triton's parameter of an output
MAX_FEATURE_BYTES = 1 << 16  # the codec's own limit
MAX_PROBE_BYTES = 1 << 16
MAX_ID_CHARACTERS = 64  # frame numbers have fewer than 20; other clients send UUIDs of 36
MAX_PARAMETERS = 32
MAX_TEXT_CHARACTERS = 128  # names, ids of points, reasons
MODEL = re.compile(r"(?P<cnn>[A-Za-z0-9_.-]{1,100})-p(?P<partition>[0-9]|1[0-5])")

Code = grpc.StatusCode


@dataclass(frozen=True)
class Request:
    """One frame's payload, with orders for the middle server. `point` is its operating point, for logs.

    `next_point` is the cut that the middle server makes, or `PASSED_ON` if it passes the payload on unchanged.
    `probe_next` is True where it shall probe the second hop, unless a message is under way there. With a `class_count`
    above 0 the answer has that many best classes as text in place of logits. `outputs` are the names of the tensors
    asked for, empty for all. `place` is that in a stream, None outside of all streams.
    """

    cnn: str
    partition: int
    version: str
    frame: str
    payload: bytes
    point: str = ""
    next_point: str = ""
    probe_next: bool = False
    class_count: int = 0
    outputs: tuple[str, ...] = ()
    place: StreamPlace | None = None


def model_name(cnn: str, partition: int) -> str:
    """Name of the model that continues from a partition."""
    return f"{cnn}-p{partition}"


def model_partition(name: str, cnn: str) -> int:
    """The partition in a model's name. RefusedError (NOT_FOUND) where it is no model of this CNN."""
    found = MODEL.fullmatch(name)
    if found is None or found["cnn"] != cnn:
        raise RefusedError(Code.NOT_FOUND, f"no model {short(name)} here, expected {cnn}-pPARTITION or {PROBE!r}")
    return int(found["partition"])


def check_version(received: str, expected: str) -> None:
    """RefusedError (FAILED_PRECONDITION) where the weights differ. An empty version accepts any."""
    if received not in ("", expected):
        raise RefusedError(
            Code.FAILED_PRECONDITION,
            f"weights {short(received)} received, this server has {expected}: start tidesplit server with --cnn FOLDER "
            "of the device's weights",
        )


def read_point(text: str) -> Knobs:
    """The settings of a second cut, read from its identifier. RefusedError (INVALID_ARGUMENT) where it is none."""
    try:
        return read_knobs(text)
    except ValueError as error:
        raise RefusedError(Code.INVALID_ARGUMENT, f"next_point has to be {PASSED_ON} or a cut: {error}") from error


def build_request(request: Request) -> Any:
    """ModelInferRequest of one frame."""
    name = model_name(request.cnn, request.partition)
    message = _infer_request(name, request.version, request.frame, request.payload)
    for key, value in (("point", request.point), ("next_point", request.next_point)):
        if value:
            message.parameters[key].string_param = value
    if request.place is not None:
        put_place(message, request.place)
    _ask_for_probe(message, request.probe_next)
    return message


def build_probe(number: str, payload: bytes, probe_next: bool = False, version: str = "") -> Any:
    """ModelInferRequest that measures the link. The server answers at once. `probe_next` is that of `Request`.

    A server refuses it where `version` is that of other weights, as it would refuse every frame.
    """
    message = _infer_request(PROBE, version, number, payload)
    _ask_for_probe(message, probe_next)
    return message


def _ask_for_probe(message: Any, probe_next: bool) -> None:
    if probe_next:
        message.parameters["probe_next"].bool_param = True


def _infer_request(name: str, version: str, number: str, payload: bytes) -> Any:
    message = MESSAGES["ModelInferRequest"](
        model_name=name, model_version=version, id=number, raw_input_contents=(payload,)
    )
    message.inputs.add(name=INPUT, datatype="UINT8", shape=(len(payload),))  # a dict would take twice as long
    return message


def read_request(message: Any, cnn: str, version: str, form: AnswerForm) -> Request:
    """The frame in a ModelInferRequest for this CNN. RefusedError where anything is wrong with it."""
    partition = model_partition(message.model_name, cnn)
    check_version(message.model_version, version)
    _check_id(message)
    payload = read_payload(message, MAX_MESSAGE_BYTES if partition == 0 else MAX_FEATURE_BYTES)
    classes, outputs = _wanted(message, form) if message.outputs else (0, ())
    found = _parameters(message)
    next_point, place = _text(found, "next_point"), read_place(_text(found, "stream"), found, partition)
    if place and next_point:
        raise malformed("stream and next_point received: a stream crosses one hop only")
    return Request(
        cnn, partition, version, message.id, payload, _text(found, "point"), next_point, _flag(found), classes, outputs,
        place,
    )  # fmt: skip


def read_probe(message: Any) -> tuple[str, bool]:
    """The number of a probe, and its `probe_next`. RefusedError where it is malformed."""
    _check_id(message)
    read_payload(message, MAX_PROBE_BYTES)
    return str(message.id), _flag(_parameters(message))


def _check_id(message: Any) -> None:
    if len(message.id) > MAX_ID_CHARACTERS:
        raise malformed(f"id of {len(message.id)} characters, at most {MAX_ID_CHARACTERS}")


def _wanted(message: Any, form: AnswerForm) -> tuple[int, tuple[str, ...]]:
    """The number of best classes asked for in place of logits, or 0, and the names of the outputs asked for."""
    count, known = len(message.outputs), list(form.shapes)
    fine = count <= len(known) and all(output.name in known for output in message.outputs)
    expect(fine, f"{count} outputs asked for, expected none or {'some' if len(known) > 1 else 'one'} of {known}")
    for output in message.outputs:
        refuse_shared_memory(output.parameters, "output")
    first = message.outputs[0].parameters
    if CLASSIFICATION not in first:
        return 0, () if form.classes else tuple(output.name for output in message.outputs)
    expect(bool(form.classes), f"parameter {CLASSIFICATION!r} received, and this net's answer has no classes")
    value = first[CLASSIFICATION]
    given = value.WhichOneof("parameter_choice") == "int64_param" and value.int64_param >= 0
    expect(given, f"parameter {CLASSIFICATION!r} of the output is no number of classes")
    return int(value.int64_param), ()


def _parameters(message: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = message.parameters
    if len(found) > MAX_PARAMETERS:
        raise malformed(f"{len(found)} parameters, at most {MAX_PARAMETERS} expected")
    return found


def _text(parameters: Mapping[str, Any], key: str) -> str:
    if key not in parameters:
        return ""
    value = parameters[key]
    text: str = value.string_param  # empty where the parameter is of another kind
    if len(text) > MAX_TEXT_CHARACTERS or not (text or value.HasField("string_param")):
        raise malformed(f"parameter {key!r} is no text of at most {MAX_TEXT_CHARACTERS} characters")
    return text


def _flag(parameters: Mapping[str, Any], key: str = "probe_next") -> bool:
    if key not in parameters:
        return False
    expect(parameters[key].WhichOneof("parameter_choice") == "bool_param", f"parameter {key!r} is no truth value")
    return bool(parameters[key].bool_param)
