"""Our reader of the .proto against protoc, and the classes it makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from tidesplit.runtime.wire.proto3 import ProtoError, read_proto
from tidesplit.runtime.wire.protocol import MESSAGES, METHODS, PROTO

HEAD = 'syntax = "proto3"; package p; '
BAD = [
    (HEAD + "enum E { A = 0; }", "'enum' is not known here"),
    (HEAD + "message M { Other x = 1; }", "'Other', used in .p.M, is not in the file"),
    (HEAD + "message M { string x 1; }", "'=' expected, '1' received"),
    (HEAD + "message M { string x = 1;", "expected, 'the end' received"),
    (HEAD + "service S { rpc A(B) returns (C); }", "'B', used in"),
    (HEAD + "message M { string x = 1 [deprecated = true]; }", "';' expected, '[' received"),
]


def compiled(folder: Path) -> descriptor_pb2.FileDescriptorProto:
    """What protoc makes of the file."""
    protoc = pytest.importorskip("grpc_tools.protoc")
    out = folder / "set.pb"
    assert protoc.main(["protoc", f"-I{PROTO.parent}", f"--descriptor_set_out={out}", PROTO.name]) == 0
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    return file


def without_json_names(messages: object) -> None:
    """protoc derives them from the names; nothing here uses them."""
    for message in messages:  # type: ignore[attr-defined]
        for field in message.field:
            field.ClearField("json_name")
        without_json_names(message.nested_type)


def test_reader_agrees_with_protoc(tmp_path: Path) -> None:
    expected = compiled(tmp_path)
    without_json_names(expected.message_type)
    for service in expected.service:
        for method in service.method:
            method.ClearField("options")  # protoc writes empty ones
    found = read_proto(PROTO.read_text(encoding="utf-8"), PROTO.name)
    for message in (*found.message_type, *expected.message_type):
        message.nested_type.sort(key=lambda nested: nested.name)  # we make a map's entry where it stands, protoc last
    assert found == expected


@pytest.mark.parametrize(("text", "sentence"), BAD)
def test_reader_says_what_it_does_not_know(text: str, sentence: str) -> None:
    with pytest.raises(ProtoError, match=sentence.replace("(", r"\(").replace("[", r"\[")):
        read_proto(text, "p.proto")


def test_request_on_the_wire_byte_by_byte() -> None:
    request = MESSAGES["ModelInferRequest"](model_name="a-p1", id="7", raw_input_contents=[b"\x00\xff"])
    request.inputs.add(name="payload", datatype="UINT8", shape=[2])
    request.parameters["point"].string_param = "x"
    tensor = b"\x0a\x07payload" + b"\x12\x05UINT8" + b"\x1a\x01\x02"
    expected = (
        b"\x0a\x04a-p1"
        + b"\x1a\x017"
        + b"\x22\x0c\x0a\x05point\x12\x03\x1a\x01x"
        + b"\x2a" + bytes([len(tensor)]) + tensor
        + b"\x3a\x02\x00\xff"
    )  # fmt: skip
    assert request.SerializeToString() == expected
    assert MESSAGES["ModelInferRequest"].FromString(expected) == request


def test_paths() -> None:
    assert METHODS["ModelInfer"].path == "/inference.GRPCInferenceService/ModelInfer"
    assert sorted(METHODS) == [
        "ModelInfer", "ModelMetadata", "ModelReady", "ServerLive", "ServerMetadata", "ServerReady",
    ]  # fmt: skip
