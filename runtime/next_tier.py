"""From the middle tier to the one behind it: a payload of a later cut out, logits back."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from compression.knobs import Knobs
from runtime.answers import Answer, AnswerError, read_answer
from runtime.certificate import check_dates
from runtime.messages import RefusedError, Request, build_request, short
from runtime.protocol import CLIENT_OPTIONS, METHODS
from runtime.security import client_credentials, is_loopback

__all__ = ["NextError", "NextTier", "next_tier", "read_point"]

POINT = re.compile(r"p(\d{1,2})-c(\d\.\d{2})-r(\d\.\d{2})-b(\d)")


class NextError(Exception):
    """The tier behind gave no answer: its status, or what was wrong with what it said."""


def read_point(text: str) -> Knobs:
    """The operating point that an identifier such as p4-c1.00-r1.00-b2 stands for."""
    found = POINT.fullmatch(text)
    try:
        if found is None:
            raise ValueError("expected an inner cut such as p4-c1.00-r1.00-b2")
        return Knobs(int(found[1]), float(found[2]), float(found[3]), int(found[4]))
    except ValueError as error:
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, f"next_point {short(text)}: {error}") from error


class NextTier:
    """A channel to the next server."""

    def __init__(self, address: str, classes: int, credentials: Any = None, token: str = "") -> None:
        self._classes = classes
        options = list(CLIENT_OPTIONS)
        self._channel = (
            grpc.aio.insecure_channel(address, options)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options)
        )
        method = METHODS["ModelInfer"]
        self._call = self._channel.unary_unary(
            method.path, request_serializer=method.request.SerializeToString, response_deserializer=None
        )
        self._parse = method.response.FromString
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def ask(self, request: Request, timeout_s: float) -> tuple[Answer, float]:
        """The answer, and the seconds until it was here. NextError for whatever else happens."""
        start_s = time.perf_counter()
        try:
            data = await self._call(build_request(request), timeout=timeout_s, metadata=self._metadata)
            answer = read_answer(self._parse(data), request, self._classes)
        except grpc.aio.AioRpcError as error:
            raise NextError(f"{error.code().name}: {error.details()}") from error
        except (AnswerError, ValueError) as error:  # ValueError: protobuf's DecodeError
            raise NextError(f"an answer that cannot be believed: {error}") from error
        return answer, time.perf_counter() - start_s

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()


def next_tier(
    address: str, classes: int, ca: Path | None, cert: Path | None, key: Path | None, token: str, insecure: bool
) -> NextTier:
    """The tier behind, over TLS where its authority is given. ValueError where that would be unsafe or cannot be."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"--next {address}: HOST:PORT expected")
    if ca is not None:
        if cert is not None:
            check_dates(cert.read_bytes(), f"--tls-cert {cert}")
        return NextTier(address, classes, client_credentials(ca, cert, key), token)
    if not (insecure or is_loopback(host)):
        raise ValueError(f"--next {address} over plaintext: give --next-ca, or say --insecure")
    return NextTier(address, classes, None, token)
