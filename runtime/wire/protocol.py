"""Message classes and method paths of the Open Inference Protocol, and the gRPC options of both sides.

The classes are made from `open_inference.binpb`, which protoc compiled from `open_inference.proto`. They live in a pool
of their own, because another library in the same process may bring the same protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message_factory import GetMessageClass

DESCRIPTORS = Path(__file__).with_name("open_inference.binpb")
MAX_MESSAGE_BYTES = 1 << 20  # the largest picture at quality 95 has 40 KB; gRPC refuses more before it is read
# Recovery after an outage takes 0.06 to 0.43 s with these, 7 to 23 s with gRPC's defaults (measured, emulated link).
CLIENT_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # By default gRPC sends even loopback through a proxy that the environment names, which then reads all plaintext.
    ("grpc.enable_http_proxy", 0),  # http_proxy, https_proxy, grpc_proxy
    ("grpc.address_http_proxy", ""),  # GRPC_ADDRESS_HTTP_PROXY
)
# By default a server treats a ping every second as abuse and closes the connection.
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 200),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 << 10),  # a bearer token has 4 KiB at most
    # By default gRPC finds a window by a ping after nearly every message, which costs a small request 4 % of its time.
    # One whole message is enough: at 100 ms there and back it lets 80 Mbit/s through. 64 KiB would let 5 through.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a second server on the port fails to start; by default both would share it
)


@dataclass(frozen=True)
class Method:
    """One unary call: its HTTP/2 path and its two message classes."""

    path: str
    request: Any
    response: Any


def _load() -> Any:
    """The compiled file's descriptor."""
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool.FindFileByName(file.name)


_FILE = _load()
_SERVICE = _FILE.services_by_name["GRPCInferenceService"]
SERVICE: str = _SERVICE.full_name
MESSAGES: dict[str, Any] = {name: GetMessageClass(kind) for name, kind in _FILE.message_types_by_name.items()}
METHODS = {
    m.name: Method(f"/{SERVICE}/{m.name}", MESSAGES[m.input_type.name], MESSAGES[m.output_type.name])
    for m in _SERVICE.methods
}
