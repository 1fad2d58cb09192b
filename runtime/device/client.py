"""The device's side of the wire: gRPC calls that nobody waits for, each ended once by an answer or a failure."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from tidesplit.compression.codec.knobs import PASSED_ON, partition_of, split
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.device.loop import Done, Failure, Receipt, Reply
from tidesplit.runtime.wire.answers import AnswerError, Timing, read_answer, read_probe_answer, read_receipt
from tidesplit.runtime.wire.certificate import check_dates
from tidesplit.runtime.wire.messages import Request, build_probe, build_request, read_point
from tidesplit.runtime.wire.protocol import CLIENT_OPTIONS, METHODS

__all__ = ["ClientError", "Credentials", "GrpcClient", "credentials"]


RECEIPTS = 128  # threads, made as they are needed: more frames than a camera takes while an answer may be awaited


class ClientError(ValueError):
    """A server that cannot be talked to as asked, in one sentence."""


@dataclass(frozen=True)
class Credentials:
    """What makes the connection safe: PEM bytes, and a bearer token; None where not used."""

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    token: str | None = None


def credentials(options: argparse.Namespace) -> Credentials:
    """Read the files of the command line's security options. Raises ClientError, another ValueError or OSError."""

    def read(path: Path | None) -> bytes | None:
        return None if path is None else path.read_bytes()

    if (options.tls_cert is None) != (options.tls_key is None):
        raise ClientError("--tls-cert and --tls-key belong together: one was received without the other")
    if options.tls_cert is not None and options.tls_ca is None:
        raise ClientError("--tls-cert received without --tls-ca: the server's certificate has to be checked too")
    token = read(options.token_file)
    text = None if token is None else token.decode("ascii", errors="replace").strip()
    if text == "":
        raise ClientError(f"{options.token_file} holds no token")
    safety = Credentials(read(options.tls_ca), read(options.tls_cert), read(options.tls_key), text)
    if safety.certificate is not None:
        check_dates(safety.certificate, f"--tls-cert {options.tls_cert}")
    return safety


class GrpcClient:
    """Sends to one server. `next_point`: operating point at which a middle tier is to cut again; empty: none."""

    def __init__(
        self, address: str, cnn: Cnn, safety: Credentials | None = None, insecure: bool = False, next_point: str = ""
    ) -> None:
        safety = safety or Credentials()
        host = _host(address)
        self._cnn, self._next_point = cnn, next_point
        self._next_partition = cnn.partitions if next_point == PASSED_ON else _partition(next_point)
        self._metadata = () if safety.token is None else (("authorization", f"Bearer {safety.token}"),)
        if safety.ca is None and not insecure and not _loopback(host):
            raise ClientError(
                f"{host} is not this machine: give --tls-ca, or --insecure to send plaintext over a network"
            )
        options = list(CLIENT_OPTIONS)
        if safety.ca is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            secret = grpc.ssl_channel_credentials(safety.ca, safety.key, safety.certificate)
            self._channel = grpc.secure_channel(address, secret, options)
        method = METHODS["ModelInfer"]
        coders: Any = (method.request.SerializeToString, method.response.FromString)
        self._call = self._channel.unary_unary(method.path, *coders)
        # The same method and the same bytes; but of a stream gRPC gives the initial metadata before the message.
        self._call_with_receipt = self._channel.unary_stream(method.path, *coders)
        self._receipts = ThreadPoolExecutor(RECEIPTS, thread_name_prefix="receipt")
        self._probes = 0

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
        self._receipts.shutdown()

    def infer(
        self, number: int, point_id: str, payload: bytes, limit_s: float, done: Done,
        receipt: Receipt | None = None, probe_next: bool = False,
    ) -> None:  # fmt: skip
        """Send a frame's payload. What stands behind a ">" in the point's name is for a middle tier to do."""
        first, second = split(point_id)
        partition = partition_of(first)
        if not second and partition < self._next_partition:
            second = self._next_point
        request = Request(
            self._cnn.name, partition, self._cnn.version, str(number), payload, point_id, second, probe_next
        )

        def read(message: Any) -> Reply:
            answer = read_answer(message, request, len(self._cnn.classes))
            return Reply(answer.logits, answer.timing, answer.next_timing, answer.newest)

        self._send(build_request(request), limit_s, read, done, receipt)

    def probe(self, size: int, limit_s: float, done: Done, probe_next: bool = False) -> None:
        """Send `size` bytes that mean nothing."""
        self._probes += 1
        number = f"probe-{self._probes}"

        def read(message: Any) -> Reply:
            answer = read_probe_answer(message, number)
            return Reply(None, Timing(answer.received_s, answer.wait_s, 0.0), None, answer.newest)

        self._send(build_probe(number, bytes(size), probe_next), limit_s, read, done)

    def _send(
        self, message: Any, limit_s: float, read: Callable[[Any], Reply], done: Done, receipt: Receipt | None = None
    ) -> None:
        try:
            if receipt is None:
                future = self._call.future(message, timeout=limit_s, metadata=self._metadata)
                future.add_done_callback(partial(_ended, read=read, done=done))
            else:
                call = self._call_with_receipt(message, timeout=limit_s, metadata=self._metadata)
                self._receipts.submit(_follow, call, receipt, read, done).add_done_callback(_say)
        except (ValueError, RuntimeError) as error:  # the channel, or the pool, is closed
            done(Failure(str(error)))


def _say(followed: Future[None]) -> None:
    """As gRPC does where a callback fails: a log that cannot be written, say."""
    if (error := followed.exception()) is not None:
        logging.getLogger(__name__).error("an answer could not be taken", exc_info=error)


def _follow(call: Any, receipt: Receipt, read: Callable[[Any], Reply], done: Done) -> None:
    """On a thread of the client's: wait for the receipt, if there is one, and for the answer."""
    try:
        told = read_receipt(call.initial_metadata())
        if told is not None:
            receipt(told)
        message = next(call)
    except StopIteration:
        done(Failure("OK without an answer"))
        return
    except grpc.RpcError as error:
        done(Failure(_reason(error)))
        return
    _read(message, read, done)
    with contextlib.suppress(grpc.RpcError):
        next(call, None)  # the status behind it, or the call would be cancelled as nobody's


def _ended(future: Any, read: Callable[[Any], Reply], done: Done) -> None:
    """On a thread of gRPC's: the call is over."""
    if future.cancelled():
        done(Failure("the client was closed"))
        return
    error = future.exception()
    if error is not None:
        done(Failure(_reason(error)))
        return
    _read(future.result(), read, done)


def _read(message: Any, read: Callable[[Any], Reply], done: Done) -> None:
    try:
        reply = read(message)
    except AnswerError as wrong:
        done(Failure(f"an answer that cannot be believed: {wrong}"))
        return
    done(reply)


def _reason(error: Any) -> str:
    code = error.code().name if isinstance(error, grpc.RpcError) else type(error).__name__
    details = error.details() if isinstance(error, grpc.RpcError) else str(error)
    return f"{code}: {details}"


def _partition(next_point: str) -> int:
    return read_point(next_point).partition if next_point else 0


def _host(address: str) -> str:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ClientError(f"server {address!r} received, HOST:PORT expected, e.g. localhost:50051")
    return host.strip("[]")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
