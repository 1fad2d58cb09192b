"""Message classes and method paths of the Open Inference Protocol, made from `open_inference.proto` at import.

The classes live in a pool of their own: another library in the same process may bring the same protocol.
Beside them the options of gRPC that both sides need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory

from tidesplit.runtime.wire.proto3 import read_proto, walk

__all__ = ["CLIENT_OPTIONS", "MAX_MESSAGE_BYTES", "MESSAGES", "METHODS", "SERVER_OPTIONS", "SERVICE", "Method"]

PROTO = Path(__file__).with_name("open_inference.proto")
MAX_MESSAGE_BYTES = 1 << 20  # the largest picture at quality 95 has 40 KB; gRPC refuses more before it is read
# Recovery after an outage: 0.06 to 0.43 s with these, 7 to 23 s with gRPC's own (measured on an emulated link).
CLIENT_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
# A server that is pinged each second by many devices must not call that abuse and hang up.
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 200),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 << 10),  # a bearer token has 8 KiB at most
    ("grpc.so_reuseport", 0),  # a second server on the port is refused, in place of sharing it unseen
)


@dataclass(frozen=True)
class Method:
    """One unary call: its path in HTTP/2 and the message classes that cross."""

    name: str
    path: str
    request: Any
    response: Any


def _load() -> tuple[str, Mapping[str, Any], Mapping[str, Method]]:
    file = read_proto(PROTO.read_text(encoding="utf-8"), PROTO.name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    types = {
        title.removeprefix(f".{file.package}."): message_factory.GetMessageClass(pool.FindMessageTypeByName(title[1:]))
        for title, _ in walk(file.message_type, f".{file.package}")
    }
    short = len(file.package) + 2
    service = file.service[0]
    full = f"{file.package}.{service.name}"
    methods = {
        m.name: Method(m.name, f"/{full}/{m.name}", types[m.input_type[short:]], types[m.output_type[short:]])
        for m in service.method
    }
    return full, types, methods


SERVICE, MESSAGES, METHODS = _load()
