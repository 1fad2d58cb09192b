"""Requests and answers: built and read again, and each way in which one can be wrong."""

from __future__ import annotations

import contextlib
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidesplit.compression.codec import payload
from tidesplit.runtime.wire import messages
from tidesplit.runtime.wire.answers import (
    AnswerError,
    FrameAnswer,
    HopTimes,
    NextTiming,
    ProbeAnswer,
    ServerTiming,
    build_answer,
    build_probe_answer,
    read_answer,
    read_probe_answer,
    read_receipt,
    receipt,
)  # fmt: skip
from tidesplit.runtime.wire.messages import RefusedError, Request, build_probe, build_request, read_probe, read_request
from tidesplit.runtime.wire.output_tensors import MOST_VALUES, AnswerForm
from tidesplit.runtime.wire.protocol import MAX_MESSAGE_BYTES, MESSAGES
from tidesplit.runtime.wire.refusals import lacks_reference, reference_unknown
from tidesplit.runtime.wire.stream_place import StreamPlace
from tidesplit.runtime.wire.wire_format import parse

VERSION = "0123456789abcdef"
REQUEST = Request("lite", 3, VERSION, "17", b"codes", "p3-c0.50-r1.00-b2", "p4-c1.00-r1.00-b2")
ANSWER = FrameAnswer("17", np.array([1.5, -2.0, 0.0], dtype=np.float32), ServerTiming(12.5, 0.25, 0.125))
LOGITS = AnswerForm.of_classes(("cat", "dog", "eel"))
TENSORS = AnswerForm({"heat": (1, 2, 2, 3), "count": (1, 1)})
CROSSING = HopTimes(1350.0, 0.25, 0.0625, 0.5)
KIND = MESSAGES["ModelInferRequest"]
EXAMPLES = int(os.environ.get("TIDESPLIT_EXAMPLES", "300"))


def changed(change: Callable[[Any], Any]) -> Any:
    message = build_request(REQUEST)
    change(message)
    return message


def test_request_there_and_back() -> None:
    message = KIND.FromString(build_request(REQUEST).SerializeToString())
    assert read_request(message, "lite", VERSION, LOGITS) == REQUEST


def test_request_that_asks_for_a_probe_there_and_back() -> None:
    asks = replace(REQUEST, probe_next=True)
    assert read_request(KIND.FromString(build_request(asks).SerializeToString()), "lite", VERSION, LOGITS) == asks


def test_a_payload_of_a_stream_there_and_back() -> None:
    for place in (StreamPlace("p3", 0, None, "d1"), StreamPlace("p3", 2**62, 2**62 - 1, "A-b_c.9")):
        sent = replace(REQUEST, next_point="", place=place)
        assert read_request(KIND.FromString(build_request(sent).SerializeToString()), "lite", VERSION, LOGITS) == sent
    video = replace(REQUEST, partition=0, next_point="", place=StreamPlace("p0-h264-q34-160px", 5, 3, "d1"))
    assert read_request(build_request(video), "lite", VERSION, LOGITS) == video


def test_receipt_there_and_back() -> None:
    timing = ServerTiming(12.5, 0.1 + 0.2, 0.25)
    assert read_receipt((*receipt(timing), ("other", "x"))) == timing


@pytest.mark.parametrize(
    "metadata",
    [
        (), (("received-s", "1"),), receipt(ServerTiming(-1.0, 0.0, 0.0)),
        receipt(ServerTiming(1.0, float("nan"), 0.0)),
        receipt(ServerTiming(1.0, 0.0, 1e300)), (("received-s", "x"), ("wait-s", "0"), ("compute-s", "0")),
    ],
)  # fmt: skip
def test_what_is_no_receipt_is_none(metadata: tuple[tuple[str, str], ...]) -> None:
    assert read_receipt(metadata) is None


def test_an_empty_version_accepts_any() -> None:
    assert read_request(build_request(replace(REQUEST, version="")), "lite", VERSION, LOGITS).version == VERSION


def test_overhead_of_a_request() -> None:
    bare = replace(REQUEST, cnn="efficientnet_lite0", next_point="")
    assert len(build_request(bare).SerializeToString()) - len(bare.payload) < 130


def test_limit_is_that_of_the_codec() -> None:
    assert messages.MAX_FEATURE_BYTES == payload.MAX_BYTES


WRONG: list[tuple[Callable[[Any], Any], str, str]] = [
    (lambda m: setattr(m, "model_name", "vgg-p3"), "NOT_FOUND", "no model 'vgg-p3' here, expected lite-pPARTITION"),
    (lambda m: setattr(m, "model_name", "lite-p16"), "NOT_FOUND", "no model 'lite-p16' here"),
    (lambda m: setattr(m, "model_name", "x" * 999), "NOT_FOUND", "xxx...'"),
    (lambda m: setattr(m, "model_version", "f" * 16), "FAILED_PRECONDITION", "weights 'ffffffffffffffff' received"),
    (lambda m: setattr(m, "id", "9" * 65), "INVALID_ARGUMENT", "id of 65 characters, at most 64"),
    (lambda m: m.ClearField("inputs"), "INVALID_ARGUMENT", "0 inputs, expected one"),
    (lambda m: m.inputs.add(name="payload"), "INVALID_ARGUMENT", "2 inputs, expected one"),
    (lambda m: setattr(m.inputs[0], "name", "x"), "INVALID_ARGUMENT", "input 'x', expected 'payload'"),
    (lambda m: setattr(m.inputs[0], "datatype", "FP32"), "INVALID_ARGUMENT", "datatype 'FP32', expected 'UINT8' or"),
    (lambda m: m.inputs[0].shape.append(1), "INVALID_ARGUMENT", "batch of 5 received, one frame a request expected"),
    (lambda m: m.inputs[0].shape.insert(0, 0), "INVALID_ARGUMENT", r"shape \[0, 5\] with 5 bytes, expected \[5\] or"),
    (lambda m: m.inputs[0].ClearField("shape"), "INVALID_ARGUMENT", r"shape \[\] with 5 bytes"),
    (lambda m: m.ClearField("raw_input_contents"), "INVALID_ARGUMENT", "0 raw_input_contents and 0 contents, exp"),
    (lambda m: m.raw_input_contents.append(b""), "INVALID_ARGUMENT", "2 raw_input_contents and 0 contents, exp"),
    (lambda m: m.raw_input_contents.__setitem__(0, b"abc"), "INVALID_ARGUMENT", r"shape \[5\] with 3 bytes"),
    (lambda m: m.outputs.add(name="features"), "INVALID_ARGUMENT", "1 outputs asked for, expected none or one"),
    (lambda m: setattr(m.parameters["point"], "int64_param", 3), "INVALID_ARGUMENT", "'point' is no text"),
    (
        lambda m: setattr(m.parameters["next_point"], "string_param", "x" * 129),
        "INVALID_ARGUMENT",
        "no text of at most",
    ),
    (lambda m: [m.parameters[str(i)] for i in range(33)], "INVALID_ARGUMENT", "35 parameters, at most 32"),
]


@pytest.mark.parametrize(("change", "code", "sentence"), WRONG)
def test_wrong_request_is_refused(change: Callable[[Any], Any], code: str, sentence: str) -> None:
    with pytest.raises(RefusedError, match=sentence) as caught:
        read_request(changed(change), "lite", VERSION, LOGITS)
    assert caught.value.code is grpc.StatusCode[code]


STREAM = replace(REQUEST, next_point="", place=StreamPlace("p3", 7, 6, "device"))
WRONG_PLACES: list[tuple[dict[str, str | int | None], str]] = [
    ({"stream": None}, "parameter 'sequence' or 'reference' without 'stream'"),
    ({"stream": "p3"}, "stream 'p3', expected DEVICE/NAME"),
    ({"stream": "/p3"}, "stream '/p3', expected DEVICE/NAME"),
    ({"stream": "a/b/p3"}, "expected DEVICE/NAME"),
    ({"stream": "d\n/p3"}, "expected DEVICE/NAME"),
    ({"stream": "x" * 65 + "/p3"}, "expected DEVICE/NAME"),
    ({"stream": "x" * 129}, "'stream' is no text of at most 128"),
    ({"stream": 5}, "'stream' is no text of at most 128"),
    ({"stream": "d/p4"}, "stream 'p4' at partition 3: there is none of this name"),
    ({"stream": "d/p0-h264-q34"}, "stream 'p0-h264-q34' at partition 3"),
    ({"sequence": None}, "parameter 'sequence' is no whole number from 0"),
    ({"sequence": -1}, "parameter 'sequence' is no whole number from 0"),
    ({"sequence": "7"}, "parameter 'sequence' is no whole number from 0"),
    ({"reference": -(2**63)}, "parameter 'reference' is no whole number from 0"),
    ({"reference": "6"}, "parameter 'reference' is no whole number from 0"),
    ({"reference": 7}, "reference 7 of payload 7, an earlier one expected"),
    ({"reference": 2**63 - 1}, "reference 9223372036854775807 of payload 7, an earlier one expected"),
    ({"next_point": "cloud"}, "stream and next_point received: a stream crosses one hop only"),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG_PLACES)
def test_wrong_place_in_a_stream_is_refused(changes: dict[str, str | int | None], sentence: str) -> None:
    message = build_request(STREAM)
    for key, value in changes.items():
        message.parameters[key].Clear()
        if value is None:
            del message.parameters[key]
        else:
            setattr(message.parameters[key], "string_param" if isinstance(value, str) else "int64_param", value)
    with pytest.raises(RefusedError, match=sentence) as caught:
        read_request(message, "lite", VERSION, LOGITS)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["p0", "p0-jpeg-q50", "p0-h264-q1000", "p3"])
def test_a_picture_is_in_no_other_stream_than_one_of_video(name: str) -> None:
    with pytest.raises(RefusedError, match=f"stream '{name}' at partition 0: there is none of this name"):
        read_request(
            build_request(replace(STREAM, partition=0, place=StreamPlace(name, 0, None, "d"))), "lite", VERSION, LOGITS
        )


def test_an_unknown_reference_is_told_from_other_refusals() -> None:
    error = reference_unknown("payload 6 is, and 3 is the last one here")
    assert error.code is grpc.StatusCode.ABORTED
    assert lacks_reference(error.code.name, str(error))
    assert not lacks_reference("UNAVAILABLE", str(error))
    assert not lacks_reference("ABORTED", "a proxy's reason")
    assert not lacks_reference("ABORTED", None)


@pytest.mark.parametrize("size", [0, (1 << 16) + 1])
def test_payload_of_a_wrong_size_is_refused(size: int) -> None:
    with pytest.raises(RefusedError, match=f"payload of {size} bytes, expected 1 to 65536"):
        read_request(build_request(replace(REQUEST, payload=bytes(size))), "lite", VERSION, LOGITS)


def test_picture_may_be_larger_than_a_feature() -> None:
    picture = replace(REQUEST, partition=0, payload=bytes(1 << 17))
    assert read_request(build_request(picture), "lite", VERSION, LOGITS).payload == picture.payload


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        replace(ANSWER, next_timing=NextTiming(0.5, 0.0, 0.25, 0.125, 0.0625)),
        replace(ANSWER, fell_back="UNAVAILABLE: gone"),
        replace(ANSWER, newest=CROSSING),
    ],
)
def test_answer_there_and_back(answer: FrameAnswer) -> None:
    message = MESSAGES["ModelInferResponse"].FromString(build_answer(REQUEST, answer, LOGITS).SerializeToString())
    found = read_answer(message, REQUEST, LOGITS)
    np.testing.assert_array_equal(found.logits, answer.logits)
    assert replace(found, logits=answer.logits) == answer


NAN = np.array([1, np.nan, 0], dtype="<f4").tobytes()
UNBELIEVABLE: list[tuple[Callable[[Any], Any], str]] = [
    (lambda m: setattr(m, "id", "18"), "id: '18' received, '17' expected"),
    (lambda m: setattr(m, "model_name", "lite-p2"), "model: 'lite-p2' received"),
    (lambda m: setattr(m, "model_version", ""), "version: '' received"),
    (lambda m: m.ClearField("outputs"), "number of outputs: '0' received, '1' expected"),
    (lambda m: setattr(m.outputs[0], "name", "x"), "output: 'x' received"),
    (lambda m: setattr(m.outputs[0], "datatype", "FP16"), "datatype: 'FP16' received, 'FP32' expected"),
    (lambda m: m.outputs[0].shape.__setitem__(1, 4), r"shape: '\[1, 4\]' received, '\[1, 3\]' expected"),
    (lambda m: m.raw_output_contents.__setitem__(0, b"abc"), r"bytes of outputs: '\[3\]' received, '\[12\]' expected"),
    (lambda m: m.ClearField("raw_output_contents"), r"bytes of outputs: '\[\]' received"),
    (lambda m: m.raw_output_contents.__setitem__(0, NAN), "values that are not finite"),
    (lambda m: m.parameters.clear(), "received_s: nan received, a number from 0 to"),
    (
        lambda m: setattr(m.parameters["wait_s"], "double_param", 1e300),
        "wait_s: 1e\\+300 received, a number from 0 to 3600",
    ),
    (lambda m: setattr(m.parameters["wait_s"], "string_param", "0"), "wait_s: nan received, a number from 0 to"),
    (lambda m: setattr(m.parameters["wait_s"], "double_param", -1.0), "wait_s: -1.0 received"),
]


@pytest.mark.parametrize(("change", "sentence"), UNBELIEVABLE)
def test_unbelievable_answer(change: Callable[[Any], Any], sentence: str) -> None:
    message = build_answer(REQUEST, ANSWER, LOGITS)
    change(message)
    with pytest.raises(AnswerError, match=sentence):
        read_answer(message, REQUEST, LOGITS)


def test_answers_of_any_shape_there_and_back() -> None:
    """As any Triton client gets them: each tensor by its name and shape."""
    values = np.arange(13, dtype=np.float32)
    message = build_answer(REQUEST, replace(ANSWER, logits=values), TENSORS)
    assert [(o.name, o.datatype, list(o.shape)) for o in message.outputs] == [
        ("heat", "FP32", [1, 2, 2, 3]), ("count", "FP32", [1, 1]),
    ]  # fmt: skip
    np.testing.assert_array_equal(read_answer(message, REQUEST, TENSORS).logits, values)
    tensors = TENSORS.tensors(values)
    assert (tensors["heat"][0, 1, 0, 2], tensors["count"][0, 0]) == (8.0, 12.0)
    message.outputs[1].shape[1] = 2
    with pytest.raises(AnswerError, match=r"shape: '\[1, 2\]' received, '\[1, 1\]' expected"):
        read_answer(message, REQUEST, TENSORS)


def test_a_client_may_ask_for_some_of_the_tensors() -> None:
    message = build_request(REQUEST)
    message.outputs.add(name="count")
    request = read_request(message, "lite", VERSION, TENSORS)
    assert request == replace(REQUEST, outputs=("count",))
    answer = build_answer(request, replace(ANSWER, logits=np.arange(13, dtype=np.float32)), TENSORS)
    assert [o.name for o in answer.outputs] == ["count"]
    assert answer.raw_output_contents[0] == np.float32(12).tobytes()
    message.outputs[0].parameters["classification"].int64_param = 1
    with pytest.raises(RefusedError, match="'classification' received, and this net's answer has no classes"):
        read_request(message, "lite", VERSION, TENSORS)
    message.outputs[0].name = "boxes"
    with pytest.raises(RefusedError, match="1 outputs asked for, expected none or some of"):
        read_request(message, "lite", VERSION, TENSORS)


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ({}, "an answer of 0 tensors received, 1 to 16 expected"),
        ({"": (1, 2)}, "an output called '' received"),
        ({"a": (2, 2)}, r"output 'a' of shape \[2, 2\] received, \[1, ...\] expected"),
        ({"a": (1, 0)}, r"output 'a' of shape \[1, 0\] received"),
        ({"a": (1,) * 9}, "output 'a' of 9 axes received, at most 8 expected"),
        ({"a": (1, MOST_VALUES), "b": (1, 1)}, f"an answer of {MOST_VALUES + 1} values received, at most"),
    ],
)
def test_forms_that_cannot_be(shapes: dict[str, tuple[int, ...]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        AnswerForm(shapes)


def test_the_best_classes_in_place_of_logits() -> None:
    message = build_request(REQUEST)
    message.outputs.add(name="logits").parameters["classification"].int64_param = 2
    request = read_request(message, "lite", VERSION, LOGITS)
    assert request == replace(REQUEST, class_count=2)
    answer = build_answer(request, ANSWER, LOGITS)
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("BYTES", [1, 2])
    assert answer.raw_output_contents[0] == b"\x0e\0\0\0001.500000:0:cat" + b"\x0e\0\0\0000.000000:2:eel"
    every = build_answer(replace(request, class_count=99), ANSWER, LOGITS)
    assert list(every.outputs[0].shape) == [1, 3]


def test_no_class_asked_for_is_logits_and_a_wrong_number_is_refused() -> None:
    message = build_request(REQUEST)
    parameter = message.outputs.add(name="logits").parameters["classification"]
    parameter.int64_param = 0
    assert read_request(message, "lite", VERSION, LOGITS) == REQUEST
    for wrong in ({"int64_param": -1}, {"string_param": "2"}):
        parameter.CopyFrom(MESSAGES["InferParameter"](**wrong))
        with pytest.raises(RefusedError, match="'classification' of the output is no number of classes"):
            read_request(message, "lite", VERSION, LOGITS)
    message.outputs[0].parameters.clear()
    message.outputs[0].parameters["shared_memory_region"].string_param = "x"
    with pytest.raises(RefusedError, match="output with 'shared_memory_region'"):
        read_request(message, "lite", VERSION, LOGITS)


def test_probe_there_and_back() -> None:
    assert read_probe(build_probe("3", bytes(1000))) == ("3", False)
    assert read_probe(build_probe("3", bytes(1000), probe_next=True)) == ("3", True)
    for told in (ProbeAnswer(5.0, 0.25), ProbeAnswer(5.0, 0.25, CROSSING)):
        assert read_probe_answer(build_probe_answer("3", told), "3") == told
    with pytest.raises(RefusedError, match="payload of 65537 bytes"):
        read_probe(build_probe("3", bytes((1 << 16) + 1)))
    with pytest.raises(AnswerError, match="id: '4' received, '3' expected"):
        read_probe_answer(build_probe_answer("4", ProbeAnswer(5.0, 0.25)), "3")


@pytest.mark.parametrize(
    "data",
    [
        b"\x2a\x00" * (MAX_MESSAGE_BYTES // 2),  # half a million empty inputs
        b"\x3a\x00" * (MAX_MESSAGE_BYTES // 2),
        b"\x22\x00" * (MAX_MESSAGE_BYTES // 2),
        b"\x0b" * MAX_MESSAGE_BYTES,  # groups within groups
        b"\xff" * 64,
        b"\x0a",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\x02\xff\xfe",  # a name that is not UTF-8
    ],
)
def test_bytes_that_are_no_request(data: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(KIND, data)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


text = st.text(max_size=20)
tensors = st.builds(
    lambda name, datatype, shape: KIND.InferInputTensor(name=name, datatype=datatype, shape=shape),
    st.sampled_from(["payload", "", "x"]) | text,
    st.sampled_from(["UINT8", "FP32", "BYTES"]) | text,
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
)
parameters = st.dictionaries(
    st.sampled_from(["point", "next_point", "timeout", "stream", "sequence", "reference"]) | text,
    st.builds(lambda s: MESSAGES["InferParameter"](string_param=s), text | st.just("d/p3"))
    | st.builds(lambda i: MESSAGES["InferParameter"](int64_param=i), st.integers(-(2**63), 2**63 - 1))
    | st.builds(lambda d: MESSAGES["InferParameter"](double_param=d), st.floats()),
    max_size=5,
)
built = st.builds(
    lambda name, version, number, told, inputs, raw: KIND(
        model_name=name, model_version=version, id=number, parameters=told, inputs=inputs, raw_input_contents=raw
    ).SerializeToString(),
    st.sampled_from(["lite-p0", "lite-p3", "probe"]) | text,
    st.sampled_from(["", VERSION]) | text,
    text,
    parameters,
    st.lists(tensors, max_size=3),
    st.lists(st.binary(max_size=64), max_size=3),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid request with bytes changed, removed or added."""
    data = bytearray(build_request(REQUEST).SerializeToString())
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) + draw(st.binary(max_size=16))


@settings(max_examples=EXAMPLES, deadline=None)
@given(built | damaged() | st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """TIDESPLIT_EXAMPLES=100000 runs more."""
    with contextlib.suppress(RefusedError):
        message = parse(KIND, data)
        if message.model_name == messages.PROBE:
            read_probe(message)
        else:
            read_request(message, "lite", VERSION, LOGITS)


def test_refusing_allocates_little() -> None:
    data = b"\x2a\x00" * (MAX_MESSAGE_BYTES // 2)
    tracemalloc.start()
    with pytest.raises(RefusedError, match="more than 48 fields"):
        parse(KIND, data)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
