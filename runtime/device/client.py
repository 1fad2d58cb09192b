"""The device's side of the wire: gRPC calls that return at once. Each ends once, with an answer or a failure."""

from __future__ import annotations

import argparse
import contextlib
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc

from tidesplit.compression.codec.knobs import PASSED_ON, partition_of, sender, split
from tidesplit.runtime.cnn import Cnn
from tidesplit.runtime.core.sending import Done, Failure, Receipt, Reply
from tidesplit.runtime.device.connection import ServerConnection
from tidesplit.runtime.wire.address import read_address
from tidesplit.runtime.wire.answers import AnswerError, ServerTiming, read_answer, read_probe_answer, read_receipt
from tidesplit.runtime.wire.messages import Request, build_probe, build_request, read_point
from tidesplit.runtime.wire.reasons import LASTS, lasting, reason
from tidesplit.runtime.wire.refusals import lacks_reference, lacks_video, read_pushback_s
from tidesplit.runtime.wire.security import Credentials, Renewed, check_plaintext, client_credentials, read_token
from tidesplit.runtime.wire.stream_place import StreamPlace

__all__ = ["GrpcClient", "credentials"]

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.name
DEVICE_BYTES = 8  # of a drawn id: among a million devices no two have the same one
RECEIPTS = 128  # threads at most: more than the frames that a camera takes while one answer may be awaited


def credentials(options: argparse.Namespace) -> Credentials:
    """Read the files of the command line's security options. They are read again after a change.

    Raises:
        ValueError: an option is missing, or a file cannot be used.
    """
    if (options.tls_cert is None) != (options.tls_key is None):
        raise ValueError("--tls-cert and --tls-key belong together: one was received without the other")
    if options.tls_cert is not None and options.tls_ca is None:
        raise ValueError("--tls-cert received without --tls-ca: the server's certificate has to be checked too")
    files = Renewed(
        (options.tls_ca, options.tls_cert, options.tls_key, options.token_file), lambda: credentials(options)
    )
    token = "" if options.token_file is None else read_token(options.token_file)
    found = client_credentials(options.tls_ca, options.tls_cert, options.tls_key, token)
    return replace(found, renewed=files.changed)


class GrpcClient:
    """Sends to one server. `next_point` is where the middle server cuts again; empty if nowhere.

    `device` names this device's streams. By default it is drawn, so that no server takes them for those of another one
    or of an earlier start. Files of `safety` that have changed are taken with a probe, between two messages.
    """

    def __init__(
        self, address: str, cnn: Cnn, safety: Credentials | None = None, insecure: bool = False, next_point: str = "",
        device: str = "",
    ) -> None:  # fmt: skip
        safety, server = safety or Credentials(), read_address("--server", address)
        check_plaintext("--server", server.host, safety.tls is not None, insecure, "--tls-ca")
        self._cnn, self._next_point = cnn, next_point
        self._next_partition = cnn.partitions if next_point == PASSED_ON else _partition(next_point)
        self._device = device or secrets.token_hex(DEVICE_BYTES)
        self._connection = ServerConnection(str(server), safety, self._device)
        self._receipts = ThreadPoolExecutor(RECEIPTS, thread_name_prefix="receipt")
        self._probes = 0

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._receipts.shutdown()

    def infer(
        self, number: int, point_id: str, payload: bytes, limit_s: float, done: Done,
        receipt: Receipt | None = None, probe_next: bool = False, place: StreamPlace | None = None,
    ) -> None:  # fmt: skip
        """Send a frame's payload. The point's second part, if any, is the middle server's work."""
        partition, second = partition_of(sender(point_id)), split(point_id)[1]
        if not second and partition < self._next_partition:
            second = self._next_point
        request = Request(
            self._cnn.name, partition, self._cnn.version, str(number), payload, point_id, second, probe_next,
            place=None if place is None else replace(place, device=self._device),
        )  # fmt: skip

        def read(message: Any) -> Reply:
            answer = read_answer(message, request, self._cnn.form)
            return Reply(answer.logits, answer.timing, answer.next_timing, answer.newest)

        self._send(build_request(request), limit_s, read, done, receipt)

    def probe(self, size: int, limit_s: float, done: Done, probe_next: bool = False) -> None:
        """Send `size` bytes without meaning."""
        self._connection.renew()
        self._probes += 1
        number = f"probe-{self._probes}"

        def read(message: Any) -> Reply:
            answer = read_probe_answer(message, number)
            return Reply(None, ServerTiming(answer.received_s, answer.wait_s, 0.0, answer.clock), None, answer.newest)

        self._send(build_probe(number, bytes(size), probe_next, self._cnn.version), limit_s, read, done)

    def _send(
        self, message: Any, limit_s: float, read: Callable[[Any], Reply], done: Done, receipt: Receipt | None = None
    ) -> None:
        try:
            call = self._connection.begin(message, limit_s, as_stream=receipt is not None)
        except ValueError as error:
            done(Failure(str(error)))
            return
        end = _Ending(self._connection, self._receipts, read, done)
        if receipt is None:
            call.add_done_callback(end.take)
            return
        try:
            self._receipts.submit(end.follow, call, receipt).add_done_callback(_log)
        except RuntimeError as error:  # the pool is closed
            end(Failure(str(error)))


def _log(followed: Future[None]) -> None:
    """Log an exception of a callback, as gRPC does. A full disk under the frames' log raises one."""
    if (error := followed.exception()) is not None:
        logging.getLogger(__name__).error("an answer could not be processed", exc_info=error)


class _Ending:
    """The end of one message: `done` is called once, with what `read` makes of the answer or with the failure."""

    def __init__(
        self, connection: ServerConnection, pool: ThreadPoolExecutor, read: Callable[[Any], Reply], done: Done
    ) -> None:
        self._connection, self._pool, self._read, self._done = connection, pool, read, done

    def __call__(self, got: Reply | Failure) -> None:
        if self._connection.ended(isinstance(got, Failure) and got.lasts):
            with contextlib.suppress(RuntimeError):  # the pool is closed
                self._pool.submit(self._connection.rest)
        self._done(got)

    def follow(self, call: Any, receipt: Receipt) -> None:
        """Wait for the receipt, if one comes, and for the answer. Runs on a thread of the client."""
        try:
            timing = read_receipt(call.initial_metadata())
            if timing is not None:
                receipt(timing)
            message = next(call)
        except StopIteration:
            self(Failure("OK without an answer"))
            return
        except grpc.RpcError as error:
            self(self._failure(error))
            return
        self._answer(message)
        with contextlib.suppress(grpc.RpcError):
            next(call, None)  # read the status too, or gRPC would cancel the call

    def take(self, future: Any) -> None:
        """Take a call's end. Runs on a thread of gRPC."""
        if future.cancelled():
            self(Failure("the client was closed"))
        elif (error := future.exception()) is not None:
            self(self._failure(error))
        else:
            self._answer(future.result())

    def _answer(self, message: Any) -> None:
        try:
            reply = self._read(message)
        except AnswerError as wrong:
            self(Failure(f"an answer that cannot be believed: {wrong}"))
            return
        self(reply)

    def _failure(self, error: Any) -> Failure:
        if not isinstance(error, grpc.RpcError):
            return Failure(f"{type(error).__name__}: {error}")
        code, details = error.code().name, error.details()
        # A server says no more than that it closed the connection where the device's certificate has expired.
        own = self._connection.fault() if code == UNAVAILABLE else ""
        sentence = reason(code, details) if not own else f"{code}: {own} ({LASTS})"
        unknown, no_video = lacks_reference(code, details), lacks_video(code, details)
        pause_s = read_pushback_s(error.trailing_metadata())
        return Failure(sentence, unknown, no_video, pause_s, lasting(sentence) and not no_video)


def _partition(next_point: str) -> int:
    return read_point(next_point).partition if next_point else 0
