"""The compiled protocol against its source, and the classes made from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from tidesplit.runtime.wire.protocol import DESCRIPTORS, MESSAGES, METHODS


def test_compiled_protocol_is_its_sources(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    out, source = tmp_path / "compiled.binpb", DESCRIPTORS.with_suffix(".proto")
    assert protoc.main(["protoc", f"-I{source.parent}", f"--descriptor_set_out={out}", source.name]) == 0
    compiled, committed = (descriptor_pb2.FileDescriptorSet.FromString(f.read_bytes()) for f in (out, DESCRIPTORS))
    assert compiled == committed, f"{source.name} has changed: its first lines have the command that compiles it"


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
        "ModelConfig", "ModelInfer", "ModelMetadata", "ModelReady", "ModelStatistics", "RepositoryIndex", "ServerLive",
        "ServerMetadata", "ServerReady",
    ]  # fmt: skip
